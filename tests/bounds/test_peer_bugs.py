"""Soundness bugs found in other verifiers (design: each is a test here)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import robnet_fx
from robnet_fx import BiasField, UnsupportedError
from robnet_fx.algebra.domains import InputShape, Interval, form_of
from robnet_fx.rules import rule_for
from robnet_fx.testing import all_corners, check_sound
from tests.soundness import Drawing, draws

aten = torch.ops.aten
FIELD = BiasField(1, 0.4, True, True)


def images(*shape: int) -> Tensor:
    return torch.rand(2, *shape, dtype=torch.float64)


def test_a_constant_before_a_zero_padded_convolution_stays_out_of_the_padding():
    """The clip's `1 - relu(1 - x)` ends in a constant; counted inside the padding it shifts every border output."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)).double()
    x = images(1, 3, 3)
    for clip in ("relu", "clamp"):
        check_sound(robnet_fx.trace(model, x), FIELD, x, clip=clip)

    r = draws(1)
    drawing = Drawing(1, 3, 3)
    value = drawing(aten.add.Tensor, drawing.x, 5.0)
    value = drawing(aten.conv2d.default, value, r(2, 1, 3, 3), r(2), [1, 1], [1, 1])
    nets = check_sound(drawing.logits(value, r), FIELD, x)
    corners = nets["rsip-ibp"].center + nets["rsip-ibp"].radius * all_corners(8)
    logits = nets["rsip-ibp"].perturbed(corners, x[:1].expand(len(corners), -1, -1, -1))
    lower, upper = nets["rsip-ibp"].bounds(x[:1], torch.eye(3).double().unsqueeze(0))
    torch.testing.assert_close(upper[0], logits.amax(0))
    torch.testing.assert_close(lower[0], logits.amin(0))


def test_an_always_negative_leaky_unit_keeps_its_slope():
    pre = Interval(torch.full((1, 2), -3.0).double(), torch.full((1, 2), -1.0).double())
    rule = rule_for(aten.leaky_relu.default)
    got = rule.rsip(form_of(torch.eye(2).double().unsqueeze(0)), InputShape((2,)), 0.1, pre=pre)
    torch.testing.assert_close(got.coef, 0.1 * torch.eye(2).double().unsqueeze(0))
    torch.testing.assert_close(got.const, torch.zeros(1, 2).double())
    drawing = Drawing(1, 4)
    value = drawing(aten.leaky_relu.default, drawing(aten.sub.Tensor, drawing.x, 9.0), 0.1)
    check_sound(drawing.logits(value, draws(1)), FIELD, images(1, 4))


@pytest.mark.parametrize(
    "forward",
    [
        lambda x, i: x.repeat(1, 2),
        lambda x, i: x.repeat_interleave(2, 1),
        lambda x, i: x.gather(1, i.expand(x.shape[0], -1)),
        lambda x, i: x[:, [0, 0, 2, 0]],
        lambda x, i: torch.index_select(x, 1, torch.tensor([0, 0, 2, 0])),
        lambda x, i: x.unsqueeze(2).expand(-1, -1, 2).flatten(1)[:, :4],
    ],
    ids=["repeat", "repeat_interleave", "gather", "index", "index_select", "expand"],
)
def test_copying_operations_count_every_copy(forward):
    """repeat with its axes swapped, gather with duplicate indices (scatter for scatter-add)."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("index", torch.tensor([[0, 0, 2, 0]]))
            self.last = nn.LazyLinear(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(forward(torch.relu(x.flatten(1) - 0.5), self.index))

    torch.manual_seed(0)
    model, x = Net(), images(1, 4)
    model(x.float())
    model.double()
    check_sound(model, FIELD, x)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "zeros"])
def test_padding_modes_of_a_convolution_are_not_zero_padding(mode: str):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode=mode), nn.Tanh(), nn.Flatten(), nn.Linear(32, 3))
    x = images(1, 4, 4)
    check_sound(robnet_fx.trace(model.double(), x), FIELD, x, clip="clamp", climbs=1)


@pytest.mark.parametrize("value", [0.7, -2.0])
def test_a_padding_value_other_than_zero_counts(value: float):
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConstantPad2d(1, value), nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))
    x = images(1, 3, 3)
    check_sound(robnet_fx.trace(model.double(), x), FIELD, x, clip="clamp", climbs=1)


@pytest.mark.parametrize("batch", [1, 4, 5])
def test_a_batch_of_size_d_is_not_broadcast_the_wrong_way(batch: int):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 4)).double()
    x = torch.rand(batch, 1, 4, dtype=torch.float64)
    nets = check_sound(robnet_fx.trace(model, x), FIELD, x, clip="relu", climbs=1)
    assert len(nets["ssip"].center) == 4


def test_x_plus_x_counts_twice():
    """Any input used twice by one node: the sum, the difference (0) and the concatenation of x with itself."""
    r = draws(2)
    for target in (aten.add.Tensor, aten.sub.Tensor):
        drawing = Drawing(1, 4)
        twice = drawing(target, drawing.x, drawing.x)
        last, bias = r(3, 4), r(3)
        x = images(1, 4)
        nets = check_sound(drawing.finish(drawing(aten.linear.default, drawing.flat(twice), last, bias)), FIELD, x)
        net = nets["rsip-ibp"]
        corners = net.center + net.radius * all_corners(4)
        pixels = net.perturbed(corners, x[:1].expand(16, 1, 4))
        upper = net.bounds(x[:1], torch.eye(3).double().unsqueeze(0))[1]
        torch.testing.assert_close(upper[0], pixels.amax(0))
        if target is aten.sub.Tensor:
            torch.testing.assert_close(upper[0], bias)
    drawing = Drawing(1, 4)
    value = drawing(aten.relu.default, drawing(aten.sub.Tensor, drawing.x, 0.5))
    joined = drawing(aten.cat.default, [value, drawing(aten.neg.default, value), value], 1)
    check_sound(drawing.logits(joined, r), FIELD, images(1, 4))


@pytest.mark.parametrize("activation", [aten.sigmoid.default, aten.tanh.default])
@pytest.mark.parametrize("shift", [-30.0, -3.0, 0.0, 3.0, 30.0])
def test_sigmoid_and_tanh_backward(activation, shift: float):
    """Curved and saturated, on either side of the inflection and across it."""
    r = draws(3)
    drawing = Drawing(1, 4)
    mixed = drawing(aten.linear.default, drawing.flat(drawing.x), 3 * r(6, 4), r(6) + shift)
    check_sound(drawing.logits(drawing(activation, mixed), r), FIELD, images(1, 4), climbs=1)


@pytest.mark.parametrize("activation", [torch.sigmoid, torch.tanh])
def test_saturated_curves_in_float32(activation):
    """float32 bounds against float64 values: a saturated tanh is 1 in float32 and just below it in truth."""
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(activation(self.first(x.flatten(1))))

    model = Net()
    with torch.no_grad():
        model.first.bias.copy_(torch.tensor([-40.0, -9.0, -0.1, 0.1, 9.0, 40.0]))
        model.last.weight.copy_(torch.eye(6)[[0, 4, 5]])
    x = torch.rand(2, 1, 4)
    for method in ("ibp", "ssip", "rsip-ibp", "rsip-ssip", "rsip"):
        net = robnet_fx.bound(model, FIELD, method, clip=None, example=x)
        lower, upper = (side.double() for side in net.bounds(x, torch.eye(3).expand(2, -1, -1)))
        center, radius = net.center.double(), net.radius.double()
        t = torch.cat([all_corners(4), torch.rand(50, 4, dtype=torch.float64) * 2 - 1])
        exact = Net().double()
        exact.load_state_dict(model.state_dict())
        for b in range(2):
            a = center + radius * t
            position = torch.arange(1, 5) / 4
            pixels = x[b].double() * (a[:, :1] + a[:, 1:2] * position).unsqueeze(1)
            pixels = pixels + (a[:, 2:3] + a[:, 3:] * position).unsqueeze(1)
            with torch.no_grad():
                logits = exact(pixels)
            assert bool((logits <= upper[b] + 1e-9).all())
            assert bool((logits >= lower[b] - 1e-9).all())


@pytest.mark.parametrize(
    ("forward", "target"),
    [
        (lambda x: torch.lgamma(x), "aten.lgamma.default"),
        (lambda x: x.cumprod(1), "aten.cumprod.default"),
        (lambda x: x + x.prod(0), "aten.prod.dim_int"),
        (lambda x: x.sort(1)[0], "aten.sort.default"),
        (lambda x: x - x.mean(0, keepdim=True), "a batch of one does not reproduce the model"),
        (lambda x: x + x.sum(), "a batch of one does not reproduce the model"),
        (lambda x: torch.where(x > 0.3, x, 0.0), "aten.where"),
    ],
)
def test_what_has_no_rule_is_refused(forward, target: str):
    """No rule, or mixing the batch: refused by name, never guessed and never skipped."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x.flatten(1)).flatten(1)

    with pytest.raises(UnsupportedError, match=target.replace(".", r"\.")):
        robnet_fx.bound(Net(), FIELD, example=images(1, 4))


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda x: x.mean(0, keepdim=True) + x, "mixes samples"),
        (lambda x: x.mean((0, 1), keepdim=True) + x, "mixes samples"),
        (lambda x: torch.cat([x, x])[: x.shape[0]], ""),
        (lambda x: torch.cat([x, torch.ones(x.shape[0], 1).double()], 1), ""),
        (lambda x: x[:1] + x, "mixes samples"),
        (lambda x: x[0] + x, "mixes samples"),
        (lambda x: x.flip(0), "mixes samples"),
        (lambda x: torch.nn.functional.batch_norm(x, None, None, training=True), "native_batch_norm"),
        (lambda x: torch.nn.functional.avg_pool1d(x, 2, 2), ""),
        (lambda x: torch.nn.functional.max_pool1d(x, 2, 2), "without a channel axis"),
        (lambda x: torch.nn.functional.avg_pool2d(x.reshape(-1, 1, 2, 2), 2, divisor_override=-3), "divisor_override"),
    ],
)
def test_what_mixes_samples_or_breaks_a_rule_is_refused(forward, reason: str):
    """Traced on a batch of one, which the front end makes two unlike samples of."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x.flatten(1)).flatten(1)

    x = images(1, 4)[:1]
    if not reason:
        check_sound(robnet_fx.trace(Net(), x), FIELD, images(1, 4), climbs=1)
        return
    with pytest.raises(UnsupportedError, match=reason):
        robnet_fx.bound(Net(), FIELD, example=x)
