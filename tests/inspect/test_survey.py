"""Widths node by node: sound against sampled fields, ordered as the methods promise, mapped to the generated nodes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robnet_fx import BiasField, bound
from robnet_fx.inspect import code_lines, survey
from robnet_fx.inspect.origin import origin
from robnet_fx.inspect.survey import BLOW_UP, MOST
from tests.onnx_files import Residual, settled
from tests.small import bounded, digits


@pytest.fixture(scope="module")
def residual():
    torch.manual_seed(0)
    net = bound(settled(Residual()), BiasField(2, 0.2), example=torch.rand(2, 3, 8, 8))
    return net, survey(net, torch.rand(2, 3, 8, 8))


def test_every_bound_holds_what_was_sampled(residual):
    _, found = residual
    for node in found.nodes:
        for width in (node.ibp, node.ssip, node.pre, node.rsip_ibp, node.rsip_ssip, node.rsip):
            assert width is None or width >= node.sampled * (1 - 1e-5), node.name
    assert min(found.logits.values()) >= found.nodes[-1].sampled


def test_tighter_methods_are_tighter(residual):
    _, found = residual
    relaxed = [node for node in found.nodes if node.pre is not None]
    assert len(relaxed) >= 4
    for node in relaxed:
        assert node.rsip_ibp == node.ibp
        assert node.pre == node.rsip_ssip <= min(node.ibp, node.ssip) * (1 + 1e-6)
        assert node.rsip <= node.rsip_ssip * (1 + 1e-6)
        assert 0 <= node.unstable <= 1
    assert found.logits["rsip"] < found.logits["rsip-ssip"] < found.logits["ibp"]


def test_inputs_follow_the_graph(residual):
    net, found = residual
    names = [node.name for node in found.nodes]
    assert names[0] == "field" and found.nodes[0].inputs == ()
    (add,) = (node for node in found.nodes if node.rule == "add")
    assert len(add.inputs) == 2
    for position, node in enumerate(found.nodes):
        assert set(node.inputs) <= set(names[:position])
    assert set(net.probe(torch.rand(1, 3, 8, 8))) == set(names)


def test_every_source_node_has_generated_nodes(residual):
    net, found = residual
    made = {node.name for node in net.bounds.graph.nodes}
    for node in found.nodes:
        assert node.generated and set(node.generated) <= made
        assert all(name.startswith(f"{node.name}_") for name in node.generated)


def test_a_blow_up_is_where_bounds_lose_and_not_where_the_network_grows():
    def net(last: nn.Module):
        return bound(nn.Sequential(nn.Flatten(), last), BiasField(1, 0.2), "ibp", None, example=torch.rand(2, 1, 4, 4))

    images = torch.rand(1, 1, 4, 4)
    scaled, mixed = nn.Linear(16, 16), nn.Linear(16, 16)
    with torch.no_grad():
        scaled.weight.copy_(100 * torch.eye(16))
        mixed.weight.copy_(torch.tensor([1.0, -1.0]).repeat(16, 8))  # intervals forget that neighbours move together
    grown, lost = (survey(net(layer), images).nodes[-1] for layer in (scaled, mixed))
    assert grown.sampled > 10 and not grown.blow_up and grown.growth == pytest.approx(1, rel=1e-3)
    assert lost.blow_up and lost.growth > BLOW_UP


def test_a_method_without_ssip_and_a_survey_without_full_rsip():
    found = survey(bounded(method="rsip-ibp"), digits()[0][:1] / 255, full=False)
    assert found.method == "rsip-ibp" and set(found.logits) == {"ibp", "ssip", "rsip-ibp", "rsip-ssip"}
    assert all(node.rsip is None for node in found.nodes)
    assert all(node.pre == node.rsip_ibp for node in found.nodes)


def test_a_box_of_one_point_has_no_width():
    found = survey(bounded(eps=0.0), digits()[0][:1] / 255)
    assert not any(node.blow_up for node in found.nodes)
    assert max(node.sampled for node in found.nodes) < 1e-5
    bounded()  # the shared network gets its box back


@pytest.mark.parametrize(
    ("name", "belongs"),
    [
        ("conv2d_1_ssip", ("conv2d_1", "ssip")),
        ("conv2d_ibp", ("conv2d", "ibp")),
        ("relu_rsip_part_2", ("relu", "rsip")),
        ("relu_1_rsip_pre", ("relu_1", "pre")),
        ("conv2d_rsip_1", ("conv2d", "rsip")),
        ("spec_rows", ("", "")),
        ("upper_1", ("", "")),
        ("gone_ibp", ("", "")),
    ],
)
def test_names_say_where_a_node_comes_from(name, belongs):
    assert origin(name, {"conv2d", "conv2d_1", "relu", "relu_1"}) == belongs


def test_code_lines_are_the_code(residual):
    net, found = residual
    lines = code_lines(net.bounds, {node.name for node in found.nodes})
    code = net.bounds.code.strip().splitlines()
    assert len(lines) == len(code)
    for line, original in zip(lines, code, strict=True):
        assert original.startswith(line.text)
    assert not any("= None" in line.text for line in lines[1:])  # the first has the box's defaults
    linked = {line.node for line in lines if line.source}
    assert linked == {name for node in found.nodes for name in node.generated}


def test_only_the_worst_are_marked():
    torch.manual_seed(0)
    layers = [layer for _ in range(9) for layer in (nn.Linear(16, 16), nn.ReLU())]
    net = bound(nn.Sequential(nn.Flatten(), *layers), BiasField(1, 0.3), "ibp", None, example=torch.rand(2, 1, 4, 4))
    found = survey(net, torch.rand(1, 1, 4, 4))
    marked = [node.growth for node in found.nodes if node.blow_up]
    others = [node.growth for node in found.nodes if not node.blow_up and node.growth is not None]
    assert 0 < len(marked) <= MOST
    assert min(marked) >= BLOW_UP and (len(marked) < MOST or min(marked) >= max(others))
