"""The page: well formed, self-contained, complete, every link with an end."""

from __future__ import annotations

import re
import struct
import zlib
from base64 import b64decode
from html.parser import HTMLParser

import pytest
import torch

from robnet_fx import BiasField, bound
from robnet_fx.inspect import code_lines, survey
from robnet_fx.report.page import page
from robnet_fx.report.page.layout import HEIGHT, WIDTH, layout, path
from robnet_fx.report.page.marks import LogScale, number
from robnet_fx.report.page.picture import png_uri
from tests.onnx_files import Residual, settled
from tests.small import bounded, digits

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Ids, links, tags and text of a page; fails where tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]


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
    assert "http:" not in text and "https:" not in text and "//" not in re.sub(r"data:[^\"]*|// [^\n]*", "", text)
    parsed = Page(text)
    assert len(parsed.ids) == len(set(parsed.ids))
    for tag, name, value in parsed.attributes:
        if name in ("src", "href"):
            assert value.startswith(("#", "data:")), (tag, value)
    assert "a <net> & 'more'" in parsed.words  # escaped, so it is text
    assert not re.search(r"\b(nan|inf)\b", re.sub(r"base64,[^\"]*", "", text), re.IGNORECASE)


def test_every_link_has_an_end(made):
    parsed = Page(made[-1])
    links = [value[1:] for _, name, value in parsed.attributes if name == "href" and value.startswith("#")]
    assert links and set(links) <= set(parsed.ids)
    labels = [value for _, name, value in parsed.attributes if name == "aria-labelledby"]
    assert {name for value in labels for name in value.split()} <= set(parsed.ids)


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


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_a_png(channels):
    data = b64decode(png_uri(torch.ones(channels, 2, 5)).partition(",")[2])
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (5, 2)
    start = data.index(b"IDAT") + 4
    assert set(zlib.decompress(data[start:])) == {0, 255}
