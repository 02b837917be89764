"""The page: well formed, self-contained, complete, every link with an end."""

from __future__ import annotations

import struct
import zlib
from base64 import b64decode

import pytest
import torch

from robnet_fx import BiasField, bound
from robnet_fx.inspect import code_lines, survey
from robnet_fx.report.page import page
from robnet_fx.report.page.layout import HEIGHT, WIDTH, layout, path
from robnet_fx.report.page.marks import LogScale, number
from robnet_fx.report.page.picture import png_uri
from tests.onnx_files import Residual, settled
from tests.pages import Page, self_contained
from tests.small import bounded, digits


@pytest.fixture(scope="module", params=["digits", "residual"])
def made(request):
    if request.param == "digits":
        images = digits()[0][:1] / 255
        net = bound(bounded().model, BiasField(1, 0.2), example=images, symbols="all")
    else:
        torch.manual_seed(0)
        images = torch.rand(1, 3, 8, 8)
        net = bound(settled(Residual()), BiasField(1, 0.1), example=images)
    found = survey(net, images)
    lines = code_lines(net.bounds, {node.name for node in found.nodes})
    facts = {"model": "a <net> & 'more'"}
    return found, lines, page("<net>", facts, found, lines, {"image": png_uri(images[0])}, ("certified", True))


def test_it_is_well_formed_and_needs_no_network(made):
    *_, text = made
    parsed = self_contained(text)
    assert "a <net> & 'more'" in parsed.words  # escaped, so it is text
    assert any(value.startswith("#") for value in parsed.of("a", "href"))


def test_it_shows_every_node_and_every_line(made):
    found, lines, text = made
    parsed = Page(text)
    for node in found.nodes:
        assert {f"node-{node.name}", f"row-{node.name}"} <= set(parsed.ids)
        assert {f"code-{name}" for name in node.generated} <= set(parsed.ids)
    for line in lines:
        assert line.text.strip() in parsed.words
    assert text.count('<svg class="graph"') == text.count('<svg class="chart"') == 1
    assert parsed.words.count("Width of the bounds by layer and method") == 1
    assert ("◆" in parsed.words.partition("What the errors of relaxations do")[2].partition("From the network")[0]) == (
        found.symbols == "all"
    )
    for method in ("IBP", "SSIP", "RSIP-IBP", "RSIP-SSIP", "RSIP", "sampled"):
        assert method in parsed.words


def test_boxes_do_not_overlap_and_long_arrows_have_their_own_lanes():
    inputs = {
        "a": [],
        "b": ["a"],
        "c": ["b"],
        "d": ["c"],
        "side": ["a"],
        "e": ["d", "side"],
        "f": ["e", "a"],
        "g": ["f", "b"],
        "h": ["g", "g"],
    }
    shape = layout(inputs)
    boxes = list(shape.boxes.values())
    for i, one in enumerate(boxes):
        assert 0 <= one.x <= shape.width - WIDTH and 0 <= one.y <= shape.height - HEIGHT
        for other in boxes[:i]:
            assert abs(one.x - other.x) >= WIDTH or abs(one.y - other.y) >= HEIGHT
    for arrow in shape.arrows:
        assert shape.boxes[arrow.source].y < shape.boxes[arrow.target].y
        assert path(shape, arrow).startswith("M")
    lanes = [arrow.lane for arrow in shape.arrows if arrow.lane is not None and not arrow.below]
    assert len(lanes) == len(set(lanes)) == 2
    assert [arrow.source for arrow in shape.arrows if arrow.below] == ["side"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.12345, "0.123"),
        (676.4, "676"),
        (1234.5, "1,234"),
        (2.5e8, "2.5e8"),
        (4e-5, "4e-5"),
        (1e16, "1e16"),
        (0, "0"),
        (None, "–"),
    ],
)
def test_numbers(value, shown):
    assert number(value) == shown


def test_a_logarithmic_scale():
    scale = LogScale([0.01, 100, 0.0, float("nan")], 0, 100)
    assert 0 < scale(0.01) < scale(1) < scale(100) < 100
    assert scale(1) == pytest.approx(50)
    assert scale.ticks == pytest.approx([0.01, 0.1, 1, 10, 100])
    assert LogScale([3.0], 0, 100)(3.0) == pytest.approx(50)
    assert LogScale([1.0, 8.0], 0, 100).ticks == pytest.approx([1, 2, 5, 10])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_picture_is_a_png(channels):
    data = b64decode(png_uri(torch.ones(channels, 2, 5)).partition(",")[2])
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (5, 2)
    start = data.index(b"IDAT") + 4
    assert set(zlib.decompress(data[start:])) == {0, 255}
