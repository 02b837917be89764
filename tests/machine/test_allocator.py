"""Memory that a process keeps is not zeroed by the system again; the command line asks for it, the library does not."""

import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource
def work():
    held = [torch.ones(2**23) for _ in range(8)]  # 32 MiB each: larger than anything the C library keeps by itself
for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
BY_HAND = "robnet_fx.keep_freed_memory()"
BY_COMMAND = """
from typer.testing import CliRunner
from robnet_fx.cli.main import app
assert CliRunner().invoke(app, ["zoo", "list"]).exit_code == 0
"""
BY_LIBRARY = """
from torch import nn
images, labels = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
net = robnet_fx.bound(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), robnet_fx.BiasField(0, 0.1), example=images)
robnet_fx.certify(net, images, labels)
from robnet_fx.train import Recipe, train
train(net, images, labels, Recipe.short(epochs=1))
"""
BY_VERDICT = """
from torch import nn
from robnet_fx.machine.memory import at_most
from robnet_fx.verify import Limits, classification, decide, search
robnet_fx.keep_freed_memory()
torch.manual_seed(0)
layers = nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
model = nn.Sequential(nn.Flatten(), *layers)
images = torch.rand(8, 1, 4, 4)
net = robnet_fx.bound(model, robnet_fx.BiasField(1, 0.6), example=images)
own, given = search.give_back_freed_memory, []
search.give_back_freed_memory = lambda: given.append(own())
with at_most(2**32):
    decide(net, images, classification(model(images).argmax(1), 3, torch.float32), limits=Limits(boxes=8))
assert given
"""
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no mallopt")


def faults(before: str = "") -> int:
    """How many pages the system hands out anew to a loop that has run before."""
    command = [sys.executable, "-W", "ignore", "-c", f"import torch\nimport robnet_fx\n{before}\n{FAULTS}"]
    root = Path(__file__).parents[2]
    return int(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("kept", [BY_HAND, BY_COMMAND])
def test_large_tensors_find_their_memory_again(kept):
    assert faults(kept) < 100


def test_a_verdict_that_gives_back_what_it_frees_ends_with_what_was_asked_for():
    assert faults(BY_VERDICT) < 100


@pytest.mark.parametrize("not_kept", ["", BY_LIBRARY])
def test_nobody_else_asks_for_it(not_kept):
    assert faults(not_kept) > 100
