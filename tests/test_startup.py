"""What a fresh interpreter loads, by modules and not by time: PyTorch for bounds only, ONNX packages for files only."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import robnet_fx

ROOT = Path(__file__).parents[1]
ONNX = {"onnx", "onnx2torch", "onnxruntime", "onnxscript", "onnx_ir"}
HEAVY = {"torch", "torchvision", "numpy", "scipy", "sklearn", "PIL", *ONNX}
COMMANDS = [
    "",
    "robustify",
    "certify",
    "verify",
    "attack",
    "check",
    "inspect",
    "report",
    "reproduce",
    "zoo",
    "zoo list",
    "zoo export",
]

TRACE = """
import torch
from torch import nn
network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
net = robnet_fx.bound(network, robnet_fx.BiasField(1, 0.1), example=torch.rand(2, 1, 4, 4))
net.margins(torch.rand(2, 1, 4, 4), torch.tensor([0, 1])).sum().backward()
robnet_fx.certify(net, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]))
robnet_fx.attack(net, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), steps=1)
"""


def fresh(program: str) -> tuple[set[str], str]:
    """The top-level modules that a program leaves loaded in an interpreter of its own, and what it printed."""
    ends = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", f"{program}\n{ends}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split()), done.stdout


def test_importing_the_package_loads_nothing_else():
    loaded, _ = fresh("import robnet_fx; dir(robnet_fx); robnet_fx.UsageError")
    assert "robnet_fx" in loaded
    assert not loaded & {*HEAVY, "typer", "rich"}


def test_a_module_is_traced_bounded_and_judged_without_onnx_and_torchvision():
    loaded, _ = fresh("import robnet_fx\n" + TRACE)
    assert "torch" in loaded
    assert not loaded & {*ONNX, "torchvision", "sklearn", "typer"}


def run_command(*arguments: str) -> tuple[set[str], str]:
    program = f"""
import sys
from robnet_fx.cli.main import main
sys.argv = ["robnet-fx", *{list(arguments)!r}]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
    return fresh(program)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(command):
    loaded, printed = run_command(*command.split(), "--help")
    assert "Usage: robnet-fx" in printed
    assert not loaded & HEAVY


def test_the_version_loads_nothing_heavy():
    loaded, printed = run_command("--version")
    assert printed == f"robnet-fx {robnet_fx.__version__}\n"
    assert not loaded & HEAVY


def test_every_public_name_is_there():
    assert list(robnet_fx.__all__) == sorted(robnet_fx.__all__)
    for name in robnet_fx.__all__:
        value = getattr(robnet_fx, name)
        assert value.__name__ == name
        assert value is getattr(robnet_fx, name)
        assert pickle.loads(pickle.dumps(value)) is value
        assert name in dir(robnet_fx)
    namespace: dict[str, object] = {}
    exec("from robnet_fx import *", namespace)
    assert set(robnet_fx.__all__) <= set(namespace)


def test_an_unknown_name_is_refused_as_ever():
    assert not hasattr(robnet_fx, "unknown")
    with pytest.raises(AttributeError, match="'robnet_fx' has no attribute 'unknown'"):
        robnet_fx.unknown  # noqa: B018
    with pytest.raises(ImportError):
        exec("from robnet_fx import unknown")


def test_type_checkers_see_what_is_loaded():
    tree = ast.parse(Path(robnet_fx.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: f"robnet_fx.{home}" for name, home in robnet_fx._HOMES.items()}
    eager = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(robnet_fx.__all__) == {*seen, *eager} - {"annotations", "Any", "TYPE_CHECKING", "__version__"}
