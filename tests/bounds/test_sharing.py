"""One set of parameters and buffers for ever: the user's module, every graph, before and after it is moved."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import robnet_fx
from robnet_fx import BiasField
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.problem import Problem


def user_model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 4),
        nn.ReLU(),
        nn.Linear(4, 3),
    )


def compiled(method: str = "rsip") -> tuple[nn.Module, BoundedModel, torch.fx.GraphModule]:
    model = user_model()
    canonical = robnet_fx.trace(model, torch.rand(2, 1, 4, 4))
    return model, BoundedModel(canonical, Problem(BiasField(1, 0.1), mean=0.5, std=0.5), method), canonical


def graphs(net: BoundedModel) -> Iterator[torch.fx.GraphModule]:
    yield from (net.clean, net.perturbed, net.bounds)
    net.margins(torch.rand(2, 1, 4, 4, dtype=net.center.dtype), torch.tensor([0, 1]))
    yield from (net.upper_graph, net._intermediate, net._probe)


def assert_shared(model: nn.Module, net: BoundedModel, canonical: torch.fx.GraphModule) -> None:
    assert net.model is model
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    assert any("running_mean" in name for name in own)
    for graph in (canonical, *graphs(net)):
        assert graph.model is model
        for node in graph.graph.find_nodes(op="get_attr"):
            if str(node.target).startswith("model."):
                value = graph
                for part in str(node.target).split("."):
                    value = getattr(value, part)
                assert value is own[str(node.target).removeprefix("model.")]
    for name in ("center", "radius", "multiplicative"):
        tensors = [getattr(graph.field, name) for graph in graphs(net) if hasattr(graph, "field")]
        assert len(tensors) == 5
        assert all(tensor is tensors[0] for tensor in tensors)
    assert net.clean.normalisation.mean is net.bounds.normalisation.mean


@pytest.mark.parametrize("method", ["ibp", "rsip-ssip", "rsip"])
@pytest.mark.parametrize("move", ["none", "double", "to", "model-double", "late"])
def test_parameters_and_buffers_are_the_users_own(method: str, move: str):
    model, net, canonical = compiled(method)
    if move != "late":
        assert_shared(model, net, canonical)
    if move == "none":
        return
    if move == "to":
        net.to(torch.float64)
    else:
        net.double()
    if move == "model-double":
        model.double()
    assert_shared(model, net, canonical)
    assert {t.dtype for t in [*net.parameters(), *net.buffers()] if t.is_floating_point()} == {torch.float64}


@pytest.mark.parametrize("method", ["ibp", "rsip-ssip", "rsip"])
def test_what_training_does_to_the_model_the_bounds_see(method: str):
    """New weights, and batch norm's new running statistics, without generating anything again."""
    model, net, _ = compiled(method)
    images, labels = torch.rand(3, 1, 4, 4), torch.tensor([0, 1, 2])
    before = net.margins(images, labels)
    assert not torch.equal(before[0], before[1])
    model.train()
    model(torch.rand(8, 1, 4, 4) * 3)
    after_statistics = net.margins(images, labels)
    assert not torch.allclose(before, after_statistics)
    torch.testing.assert_close(net.logits(images), model.eval()((images - 0.5) / 0.5))
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    margins = net.margins(images, labels)
    margins.masked_fill(margins == -torch.inf, 0).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    assert any(bool((p.grad != 0).any()) for p in model.parameters())
    optimiser.step()
    finite = margins != -torch.inf
    assert bool(net.margins(images, labels)[finite].sum() < margins[finite].sum())
    fresh = robnet_fx.bound(model, BiasField(1, 0.1), method, mean=0.5, std=0.5, example=images)
    torch.testing.assert_close(net.margins(images, labels), fresh.margins(images, labels))


def test_bounds_do_not_depend_on_the_mode():
    model, net, _ = compiled("rsip-ssip")
    images, labels = torch.rand(3, 1, 4, 4), torch.tensor([0, 1, 2])
    expected = net.margins(images, labels)
    statistics = {name: value.clone() for name, value in model.named_buffers()}
    net.train()
    assert torch.equal(net.margins(images, labels), expected)
    net.logits(images)
    for name, value in model.named_buffers():
        assert torch.equal(value, statistics[name])


def test_loading_a_state_reaches_every_graph():
    model, net, _ = compiled("rsip-ssip")
    images, labels = torch.rand(3, 1, 4, 4), torch.tensor([0, 1, 2])
    torch.manual_seed(5)
    other: dict[str, Tensor] = {
        k: torch.rand_like(v) if v.is_floating_point() else v for k, v in model.state_dict().items()
    }
    before = net.margins(images, labels)
    model.load_state_dict(other)
    assert not torch.allclose(before, net.margins(images, labels))
    fresh = robnet_fx.bound(model, BiasField(1, 0.1), "rsip-ssip", mean=0.5, std=0.5, example=images)
    torch.testing.assert_close(net.margins(images, labels), fresh.margins(images, labels))
