"""Layouts: a network that takes images channels last or flat has the field where images are, and the same bounds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import robnet_fx
from robnet_fx import BiasField, UsageError
from robnet_fx.layout import arrange, image_shape, layout
from robnet_fx.testing import check_sound
from robnet_fx.train.loop import train
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
    ("images", "taken", "way"),
    [
        ((3, 5, 6), (3, 5, 6), "channels first"),
        ((3, 5, 6), (5, 6, 3), "channels last"),
        ((3, 5, 6), (90,), "flat"),
        ((3, 5, 6), (90, 1), "flat"),
        ((90,), (90,), "channels first"),
        ((2, 7), (7, 2), "channels last"),
        ((3, 3, 3), (3, 3, 3), "channels first"),
        ((3, 5, 6), (6, 5, 3), None),
        ((3, 5, 6), (91,), None),
    ],
)
def test_the_shapes_say_the_layout(images, taken, way):
    assert layout(images, taken) == way
    batch = torch.rand(2, *images)
    if way is None:
        with pytest.raises(UsageError, match="do not fit"):
            arrange(batch, taken)
        return
    made = arrange(batch, taken)
    assert made.shape[1:] == taken and made.is_contiguous()
    torch.testing.assert_close(made.movedim(-1, 1) if way == "channels last" else made.reshape(batch.shape), batch)


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
    assert image_shape(taken) == images


@pytest.mark.parametrize("kind", ["channels last", "flat"])
@pytest.mark.parametrize("method", ["ibp", "rsip-ssip", "rsip"])
def test_bounds_do_not_depend_on_the_layout(kind, method):
    net, field = convnet(), BiasField(1, 0.1, additive=True)
    images, labels = torch.rand(3, 3, 5, 6, dtype=torch.float64), torch.tensor([0, 4, 2])
    plain = robnet_fx.bound(net, field, method, example=images, **CONSTANTS)
    other = robnet_fx.bound(around(kind, net), field, method, example=images, **CONSTANTS)
    assert other.input_shape == (3, 5, 6) and layout((3, 5, 6), other.taken) == kind
    torch.testing.assert_close(other.margins(images, labels), plain.margins(images, labels))
    torch.testing.assert_close(other.logits(images), plain.logits(images))
    torch.testing.assert_close(other.module_logits(images), plain.logits(images))
    coefficients = other.center + other.radius * torch.rand(3, len(other.center))
    torch.testing.assert_close(other(coefficients, images), plain(coefficients, images))


@pytest.mark.parametrize("kind", ["channels last", "flat"])
def test_the_layout_is_sound(kind):
    images = torch.rand(2, 3, 5, 6, dtype=torch.float64)
    check_sound(around(kind, convnet()), BiasField(1, 0.1), images, clip="relu", climbs=1, **CONSTANTS)


def test_a_model_that_takes_images_as_they_are_is_given_them_so():
    images = torch.rand(2, 3, 4, 4)
    net = robnet_fx.bound(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), BiasField(1, 0.1), "ibp", example=images)
    assert net.taken == net.input_shape == (3, 4, 4)
    assert net.normalise(images) is images


def test_no_layout_fits():
    with pytest.raises(UsageError, match="does not accept images of shape"):
        robnet_fx.bound(nn.Linear(7, 3), BiasField(1, 0.1), example=torch.rand(2, 1, 2, 3))


def over_pixels(end: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (5, 1, 1)), end, nn.Flatten())


@pytest.mark.parametrize(
    "end", [nn.Softmax(1), nn.LogSoftmax(-1), over_pixels(nn.Softmax(1)), over_pixels(nn.LogSoftmax(-3))]
)
def test_a_softmax_at_the_end_is_left_out(end):
    net, images, labels = convnet(), torch.rand(3, 3, 5, 6, dtype=torch.float64), torch.tensor([0, 4, 2])
    plain, other = (robnet_fx.bound(n, BiasField(1, 0.1), example=images) for n in (net, nn.Sequential(net, end)))
    assert plain.softmax is None and other.softmax == ("log_softmax" if "Log" in repr(end) else "softmax")
    torch.testing.assert_close(other.margins(images, labels), plain.margins(images, labels))
    torch.testing.assert_close(other.logits(images), net(images))
    torch.testing.assert_close(other.module_logits(images), net(images).log_softmax(1))


def test_a_softmax_inside_stays():
    net = nn.Sequential(nn.Flatten(), nn.Softmax(1), nn.Linear(4, 3), nn.Softmax(1), nn.ReLU())
    bounds = robnet_fx.bound(net, BiasField(0, 0.1), "ibp", example=torch.rand(2, 1, 4))
    assert bounds.softmax is None
    assert sum(node.name.startswith("softmax") for node in bounds.clean.graph.nodes) == 2


def test_training_gives_the_module_its_own_layout():
    x, y = digits()
    model = nn.Sequential(last(bounded(fit=200).model), nn.Softmax(1))
    net = robnet_fx.bound(model, BiasField(1, 0.1), example=x[:2] / 255)
    history = train(net, x[:128], y[:128], robnet_fx.Recipe.short(2, lr=1e-3, batch_size=64))
    assert history.epochs[-1]["clean"] > 0.8
