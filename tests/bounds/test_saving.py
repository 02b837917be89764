"""Nets and graphs are saved, loaded in another process and copied, with the same numbers, names and metadata."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import robnet_fx
from robnet_fx import BiasField, BoundedModel, WhiteNoise
from robnet_fx.algebra.ops import WINDOWED, windowed
from robnet_fx.bounds.methods import METHODS
from robnet_fx.interchange.network import write_onnx
from robnet_fx.problem import Problem
from robnet_fx.rules import table

IMAGES = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([2, 0])


class Net(nn.Module):
    """Windows as more samples, a normalisation that is written out, a clamp and a leaky ReLU with arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 2), nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        windows = x.reshape(x.shape[0], 1, 2, 2, 4).permute(0, 2, 1, 3, 4).flatten(0, 1)
        h = F.leaky_relu(self.conv(windows), 0.1).reshape(x.shape[0], 2, 4, -1).mean((1, 3))
        return self.head(self.norm(h).clamp(-1, 2))


CODE = """
import sys, torch
folder, images, labels = sys.argv[1], *torch.load(sys.argv[1] + "/images.pt")
for method in sys.argv[2:]:
    net = torch.load(f"{folder}/{method}.pt", weights_only=False)
    torch.save((net.margins(images, labels).detach(), net.bounds.code), f"{folder}/{method}.again.pt")
"""


@pytest.fixture(scope="module")
def canonical() -> fx.GraphModule:
    torch.manual_seed(0)
    return robnet_fx.trace(Net(), IMAGES)


def compiled(canonical: fx.GraphModule, method: str) -> BoundedModel:
    return BoundedModel(canonical, Problem(BiasField(1, 0.1), "clamp", 0.5, 0.25), method)


def test_a_net_that_was_saved_gives_the_same_margins_in_another_process(canonical: fx.GraphModule, tmp_path: Path):
    torch.save((IMAGES, LABELS), tmp_path / "images.pt")
    nets = {method: compiled(canonical, method) for method in METHODS}
    for method, net in nets.items():
        torch.save(net, tmp_path / f"{method}.pt")
    subprocess.run([sys.executable, "-c", CODE, tmp_path, *METHODS], check=True)
    for method, net in nets.items():
        margins, code = torch.load(tmp_path / f"{method}.again.pt")
        assert torch.equal(margins, net.margins(IMAGES, LABELS)), method
        assert code == net.bounds.code


@pytest.mark.parametrize("method", METHODS)
def test_every_graph_is_pickled(canonical: fx.GraphModule, method: str):
    net = compiled(canonical, method)
    net.margins(IMAGES, LABELS), net.intermediate(IMAGES), net.probe(IMAGES)
    graphs = [canonical, net.clean, net.perturbed, net.bounds, net.upper_graph, net.intermediate_graph, net.probe_graph]
    for graph in graphs:
        again = pickle.loads(pickle.dumps(graph))
        assert (again.code, type(again).__name__) == (graph.code, type(graph).__name__)
        for node, other in zip(again.graph.nodes, graph.graph.nodes, strict=True):
            assert (node.op, node.name, node.target) == (other.op, other.name, other.target)
            assert node.meta.keys() == other.meta.keys()
            assert all(node.meta[key] == other.meta[key] for key in ("shape", "dtype", "layer") if key in node.meta)
        assert again.meta == graph.meta
        again.graph.lint()
    again = pickle.loads(pickle.dumps(net.bounds))
    spec = torch.eye(3).expand(2, -1, -1)
    for side, other in zip(again(IMAGES, spec), net.bounds(IMAGES, spec), strict=True):
        assert torch.equal(side, other)


def test_what_was_loaded_is_one_object_and_still_generates(canonical: fx.GraphModule):
    net = pickle.loads(pickle.dumps(compiled(canonical, "rsip-ssip")))
    before = net.margins(IMAGES, LABELS)
    assert net.model is net.clean.model is net.perturbed.model is net.bounds.model
    assert net.transform is net.bounds.field
    net.set_eps(0.05)
    with torch.no_grad():
        net.model.head.bias += 1
    assert not torch.equal(net.margins(IMAGES, LABELS), before)
    assert net.probe(IMAGES).keys() == compiled(canonical, "rsip-ssip").probe(IMAGES).keys()


def test_a_canonical_graph_that_was_loaded_is_bounded(canonical: fx.GraphModule):
    again = compiled(pickle.loads(pickle.dumps(canonical)), "rsip-ssip")
    assert torch.equal(again.margins(IMAGES, LABELS), compiled(canonical, "rsip-ssip").margins(IMAGES, LABELS))


def test_a_module_keeps_its_modes(canonical: fx.GraphModule):
    net = compiled(canonical, "ibp")
    net.perturbed.training, net.model.norm.training = False, True
    again = pickle.loads(pickle.dumps(net))
    assert not again.perturbed.training and again.model.norm.training and again.bounds.training


@pytest.mark.parametrize("method", ["rsip-ssip", "rsip"])
def test_a_copy_has_the_same_numbers(canonical: fx.GraphModule, method: str):
    net = compiled(canonical, method)
    again = copy.deepcopy(net)
    assert torch.equal(again.margins(IMAGES, LABELS), net.margins(IMAGES, LABELS))
    assert again.model is again.bounds.model is not net.model
    assert pickle.loads(pickle.dumps(again)).bounds.code == net.bounds.code


def test_a_net_from_a_file_is_pickled(canonical: fx.GraphModule, tmp_path: Path):
    write_onnx(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval(), tmp_path / "net.onnx", IMAGES)
    net = robnet_fx.bound(tmp_path / "net.onnx", BiasField(1, 0.1))
    again = pickle.loads(pickle.dumps(net))
    assert torch.equal(again.margins(IMAGES, LABELS), net.margins(IMAGES, LABELS))
    write_onnx(again.model, tmp_path / "again.onnx", IMAGES)


def test_windows_are_calls_of_their_own(canonical: fx.GraphModule):
    assert "ops_conv2d_windows(" in canonical.code


def test_noise_is_pickled(canonical: fx.GraphModule):
    net = BoundedModel(canonical, Problem(WhiteNoise(0.02)), "rsip-ibp")
    again = pickle.loads(pickle.dumps(net))
    assert torch.equal(again.margins(IMAGES, LABELS), net.margins(IMAGES, LABELS))


def test_every_operation_and_every_rule_function_is_itself_again():
    for target, rule in table().items():
        for value in (target, rule.ibp, rule.ssip, rule.rsip):
            assert pickle.loads(pickle.dumps(value)) is value
            assert copy.deepcopy(value) is value
    assert len({windowed(target).__name__ for target in WINDOWED}) == len(WINDOWED)
