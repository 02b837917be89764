"""Layouts: a network that takes images channels last or flat has the field where images are, and the same bounds."""

from __future__ import annotations

import contextlib
import math
import random

import pytest
import torch
from onnx import helper
from torch import Tensor, nn

import robnet_fx
from robnet_fx import BiasField, UsageError
from robnet_fx.images.layout import FLATS, Evidence, UnsettledLayout, arrange, channels_first, layouts, likely, settle
from robnet_fx.testing import check_sound
from robnet_fx.train.loop import train
from tests.onnx_files import by_hand, weight
from tests.small import bounded, digits

CONSTANTS = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}


class Inside(nn.Module):
    """A channels-first network behind what makes its images of others."""

    def __init__(self, net: nn.Module, unpack) -> None:
        super().__init__()
        self.net, self.unpack = net, unpack

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.unpack(x))


def last(net: nn.Module) -> nn.Module:
    return Inside(net, lambda x: x.permute(0, 3, 1, 2))


def flat(net: nn.Module, *shape: int) -> nn.Module:
    return Inside(net, lambda x: x.unflatten(1, shape))


def convnet() -> nn.Module:
    torch.manual_seed(3)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 3 * 4, 5)
    return nn.Sequential(*layers).double().eval()


def around(kind: str, net: nn.Module) -> nn.Module:
    return last(net) if kind == "channels last" else flat(net, 3, 5, 6)


@pytest.mark.parametrize(
    ("given", "taken", "axes", "way"),
    [
        ((3, 5, 6), (3, 5, 6), "nchw", "channels first"),
        ((3, 5, 6), (5, 6, 3), "nchw", "channels last"),
        ((5, 6, 3), (5, 6, 3), "nhwc", "channels last"),
        ((5, 6, 3), (3, 5, 6), "nhwc", "channels first"),
        ((28, 28), (1, 28, 28), "nhw", "channels first"),
        ((28, 28), (28, 28, 1), "nhw", "channels last"),
        ((1, 28, 28), (28, 28), "nchw", "no channel axis"),
        ((28, 28, 1), (784,), "nhwc", "flat"),
        ((1, 5, 6), (30,), "nchw", "flat"),
        ((1, 5, 6), (30, 1), "nchw", "flat"),
        ((90,), (90,), "nchw", "channels first"),
        ((1, 7), (1, 7), "nchw", "channels first"),
        ((4, 9, 9, 9), (4, 9, 9, 9), "nchw", "channels first"),
        ((9, 9, 9, 1), (9, 9, 9, 1), "nhwc", "channels last"),
        ((9, 8, 7), (1, 9, 8, 7), "nhw", "channels first"),
    ],
)
def test_sizes_that_tell_the_layout(given, taken, axes, way):
    found = settle(layouts(given, taken))
    assert (found.axes, found.way, found.given) == (axes, way, given)
    batch = torch.rand(2, *given)
    pictures = channels_first(batch, axes)
    assert pictures.shape[1:] == found.image
    made = arrange(pictures, found.way, found.taken)
    assert made.shape[1:] == taken
    torch.testing.assert_close(made.sum((0,)).sum(), batch.sum((0,)).sum())


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ((3, 3, 3), (3, 3, 3)),
        ((8, 8, 8), (8, 8, 8)),
        ((4, 5, 3), (4, 5, 3)),
        ((28, 28), (28, 28)),
        ((2, 7), (2, 7)),
        ((3, 5, 6), (90,)),
        ((3, 4, 4, 3), (3, 4, 4, 3)),
    ],
)
def test_sizes_that_do_not_tell_the_layout(given, taken):
    with pytest.raises(UnsettledLayout, match=r"more than one way(.|\n)*either(.|\n)*either(.|\n)*remedy") as error:
        settle(layouts(given, taken))
    flat = len(taken) == 1
    assert ("--flat" in str(error.value)) == flat and ("--layout" in str(error.value)) != flat
    for word in FLATS if flat else ("nchw", "nhwc"):
        found = settle(layouts(given, taken), **{"flat" if flat else "axes": word})
        assert found.given == given and (found.axes == word or found.way.startswith("flat"))


@pytest.mark.parametrize(("given", "axes"), [((12, 10, 3), "nhwc"), ((3, 12, 10), "nchw"), ((9, 8, 8, 4), "nhwc")])
@pytest.mark.parametrize("flat", FLATS)
def test_the_order_of_a_flat_network_makes_no_grey_volume_of_colours(given, axes, flat):
    found = settle(layouts(given, (math.prod(given),)), flat=flat)
    assert (found.axes, found.given, found.order) == (axes, given, flat)


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ((32, 32, 3), {(3, 1)}),  # a pool over colours
        ((8, 3, 8), {(8, 3), (3, 1)}),  # a reshape that makes other axes of the numbers
        ((5, 8), {(8, 5)}),
    ],
)
def test_axes_that_are_slid_over_tell_nothing_where_they_are_no_axes_of_space(given, seen):
    with pytest.raises(UnsettledLayout):
        settle(layouts(given, given), evidence=Evidence(frozenset(seen)))


def test_what_fits_in_no_way_is_refused():
    assert layouts((3, 5, 6), (6, 5, 3)) == layouts((3, 5, 6), (91,)) == []
    for words, message in (
        ({"axes": "chwn"}, "layout must be one of nchw, nhwc, nhw"),
        ({"flat": "rows"}, "flat must be one of"),
        ({"flat": "planes"}, "this network takes images"),
        ({"axes": "nhwc"}, "fit the network as nchw, and not as nhwc"),
    ):
        with pytest.raises(UsageError, match=message):
            settle(layouts((3, 5, 6), (3, 5, 6))[:1], **words)


@pytest.mark.parametrize(
    ("taken", "images"),
    [
        ((32, 32, 3), (3, 32, 32)),
        ((28, 30, 1), (1, 28, 30)),
        ((3, 32, 32), (3, 32, 32)),
        ((3, 32, 3), (3, 32, 3)),
        ((16, 8, 8), (16, 8, 8)),
        ((784,), (1, 28, 28)),
        ((784, 1), (1, 28, 28)),
        ((3072,), (3, 32, 32)),
        ((64,), (1, 8, 8)),
        ((16,), (16,)),
        ((100,), (1, 10, 10)),
        ((101,), (101,)),
        ((4, 12), (4, 12)),
    ],
)
def test_the_likely_images_of_an_input(taken, images):
    assert likely(taken).image == images


@pytest.mark.parametrize("kind", ["channels last", "flat"])
@pytest.mark.parametrize("method", ["ibp", "rsip-ssip", "rsip"])
def test_bounds_do_not_depend_on_the_layout(kind, method):
    net, field = convnet(), BiasField(1, 0.1, additive=True)
    images, labels = torch.rand(3, 3, 5, 6, dtype=torch.float64), torch.tensor([0, 4, 2])
    plain = robnet_fx.bound(net, field, method, example=images, **CONSTANTS)
    other = robnet_fx.bound(around(kind, net), field, method, example=images, **CONSTANTS)
    assert other.input_shape == (3, 5, 6) and other.layout.way == kind
    torch.testing.assert_close(other.margins(images, labels), plain.margins(images, labels))
    torch.testing.assert_close(other.logits(images), plain.logits(images))
    torch.testing.assert_close(other.module_logits(images), plain.logits(images))
    coefficients = other.center + other.radius * torch.rand(3, len(other.center))
    torch.testing.assert_close(other(coefficients, images), plain(coefficients, images))


@pytest.mark.parametrize(
    ("unpack", "axes", "given", "constants"),
    [
        (lambda x: x.unsqueeze(1), "nhw", (5, 6), {}),
        (lambda x: x.flatten(1).unflatten(1, (1, 5, 6)), "nhw", (5, 6), {"mean": 0.1}),
        (lambda x: x.unflatten(1, (1, 5, 6)), "nhw", (5, 6), {}),
        (lambda x: x.reshape(-1, 1, 5, 6), "nhwc", (5, 6, 1), {"std": 0.5}),
        (lambda x: x.unsqueeze(1), "nhw", (4, 5, 3), {}),
    ],
)
def test_images_without_a_channel_axis_keep_all_axes_of_the_field(unpack, axes, given, constants):
    """Reshapes of the network next to the one that makes the channel axis are not merged with it."""
    torch.manual_seed(3)
    conv = nn.Conv2d if 5 in given[:1] else nn.Conv3d
    net = nn.Sequential(conv(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).double().eval()
    images, labels = torch.rand(2, *given, dtype=torch.float64), torch.tensor([0, 2])
    plain = channels_first(images, axes)
    net(plain)
    ours, theirs = (
        robnet_fx.bound(model, BiasField(1, 0.1), "ibp", example=x, layout=word, **constants)
        for model, x, word in ((Inside(net, unpack), images, axes), (net, plain, "nchw"))
    )
    assert ours.layout.image == theirs.input_shape
    torch.testing.assert_close(ours.center, theirs.center)
    torch.testing.assert_close(ours.margins(images, labels), theirs.margins(plain, labels))


@pytest.mark.parametrize("kind", ["channels last", "flat"])
def test_the_layout_is_sound(kind):
    images = torch.rand(2, 3, 5, 6, dtype=torch.float64)
    check_sound(around(kind, convnet()), BiasField(1, 0.1), images, clip="relu", climbs=1, **CONSTANTS)


def test_a_model_that_takes_images_as_they_are_is_given_them_so():
    images = torch.rand(2, 3, 4, 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    net = robnet_fx.bound(model, BiasField(1, 0.1), "ibp", example=images, layout="nchw")
    assert net.taken == net.input_shape == (3, 4, 4)
    assert net.normalise(images) is images


def test_no_layout_fits():
    with pytest.raises(UsageError, match="does not accept images of shape"):
        robnet_fx.bound(nn.Linear(7, 3), BiasField(1, 0.1), example=torch.rand(2, 1, 2, 3))


UNPACKED = {
    "channels first": lambda x, c, h, w: x,
    "channels last": lambda x, c, h, w: x.permute(0, 3, 1, 2),
    "flat": lambda x, c, h, w: x.unflatten(1, (c, h, w)),
    "flat, pixel by pixel": lambda x, c, h, w: x.unflatten(1, (h, w, c)).permute(0, 3, 1, 2),
}


class Hidden(nn.Module):
    """A network on `[B, C, H, W]` behind an input of another layout, which shows to a compiler or does not."""

    def __init__(self, net: nn.Module, image: tuple[int, int, int], way: str) -> None:
        super().__init__()
        self.net, self.image, self.way = net, image, way

    def forward(self, x: Tensor) -> Tensor:
        return self.net(UNPACKED[self.way](x, *self.image))


def dense(image: tuple[int, int, int], way: str) -> nn.Module:
    """A perceptron on the numbers in the order of the layout: nothing in it says what they are."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image), 4), nn.ReLU(), nn.Linear(4, 3))


def of_images(net: nn.Module, image: tuple[int, int, int], way: str) -> nn.Module:
    """What a perceptron on the layout `way` is to images `[B, C, H, W]`."""
    ordered = way in ("channels last", "flat, pixel by pixel")
    return Inside(net, (lambda x: x.permute(0, 2, 3, 1).contiguous()) if ordered else (lambda x: x))


@pytest.mark.parametrize("seed", range(24))
def test_never_a_bound_under_the_wrong_layout(seed):
    """Random sizes, small ones so that many layouts fit: the bounds are those of the images meant, or none."""
    draw = random.Random(seed)
    image = draw.choice((1, 3, 4)), draw.choice((2, 3, 4, 5)), draw.choice((2, 3, 4, 5))
    axes, way = draw.choice(("nchw", "nhwc")), draw.choice(list(UNPACKED))
    if not seed % 3 and not way.startswith("flat"):  # a perceptron takes any order: it is asked in the user's own
        way = "channels first" if axes == "nchw" else "channels last"
    torch.manual_seed(seed)
    if seed % 3:
        inner = nn.Sequential(nn.Conv2d(image[0], 2, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
        inner(torch.rand(1, *image))
        plain, model = inner, Hidden(inner, image, way)
    else:
        net = dense(image, way)
        plain = of_images(net, image, way)
        model = net if not way.startswith("flat") else nn.Sequential(nn.Linear(math.prod(image), math.prod(image)), net)
        if way.startswith("flat"):
            plain = of_images(nn.Sequential(nn.Flatten(), model), image, way)
    field, images = BiasField(1, 0.1), torch.rand(2, *image)
    given = images if axes == "nchw" else images.permute(0, 2, 3, 1).contiguous()
    labels = torch.tensor([0, 2])
    expected = robnet_fx.bound(plain.eval(), field, "ibp", example=images, layout="nchw").margins(images, labels)
    with contextlib.suppress(UsageError):
        torch.testing.assert_close(robnet_fx.margin_bounds(model.eval(), given, labels, field, "ibp"), expected)
    if seed % 3:  # layers that slide tell all but how the images lie, and an unflattened vector tells everything
        words = {"layout": axes}
        torch.testing.assert_close(robnet_fx.margin_bounds(model, given, labels, field, "ibp", **words), expected)


def over_pixels(end: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (5, 1, 1)), end, nn.Flatten())


@pytest.mark.parametrize(
    "end", [nn.Softmax(1), nn.LogSoftmax(-1), over_pixels(nn.Softmax(1)), over_pixels(nn.LogSoftmax(-3))]
)
def test_a_softmax_at_the_end_is_left_out(end):
    net, images, labels = convnet(), torch.rand(3, 3, 5, 6, dtype=torch.float64), torch.tensor([0, 4, 2])
    plain, other = (robnet_fx.bound(n, BiasField(1, 0.1), example=images) for n in (net, nn.Sequential(net, end)))
    assert plain.head.function is None and other.head.function == ("log_softmax" if "Log" in repr(end) else "softmax")
    torch.testing.assert_close(other.margins(images, labels), plain.margins(images, labels))
    torch.testing.assert_close(other.logits(images), net(images))
    torch.testing.assert_close(other.module_logits(images), net(images).log_softmax(1))


def test_a_softmax_inside_stays():
    net = nn.Sequential(nn.Flatten(), nn.Softmax(1), nn.Linear(4, 3), nn.Softmax(1), nn.ReLU())
    bounds = robnet_fx.bound(net, BiasField(0, 0.1), "ibp", example=torch.rand(2, 1, 4))
    assert bounds.head.function is None
    assert sum(node.name.startswith("softmax") for node in bounds.clean.graph.nodes) == 2


def test_training_gives_the_module_its_own_layout():
    x, y = digits()
    model = nn.Sequential(last(bounded(fit=200).model), nn.Softmax(1))
    net = robnet_fx.bound(model, BiasField(1, 0.1), example=x[:2] / 255)
    history = train(net, x[:128], y[:128], robnet_fx.Recipe.short(2, lr=1e-3, batch_size=64))
    assert history.epochs[-1]["clean"] > 0.8


@pytest.mark.parametrize(("axes", "image"), [("nchw", (3, 8, 3)), ("nhwc", (3, 3, 8))])
def test_open_sizes_of_a_file_do_not_settle_a_layout(axes, image, tmp_path):
    """A file of three channels and any height and width takes 3 x 8 x 3 numbers both ways."""
    nodes = [
        helper.make_node("Conv", ["x", "W"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    inputs = [("x", 1, ["N", 3, "h", "w"])]
    path = by_hand(tmp_path / "net.onnx", nodes, {"W": weight(4, 3, 1, 1)}, inputs=inputs)
    images = torch.rand(2, 3, 8, 3)
    with pytest.raises(UnsettledLayout, match="more than one way"):
        robnet_fx.bound(path, BiasField(1, 0.1), "ibp", example=images)
    net = robnet_fx.bound(path, BiasField(1, 0.1), "ibp", example=images, layout=axes)
    assert net.layout.image == image
