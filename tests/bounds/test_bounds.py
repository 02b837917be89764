"""What every bounds graph promises: exactness where nothing is relaxed, inclusions, independence of the batch,
gradients, the margins' contract, and the clip forms."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, fx, nn

import robnet_fx
from robnet_fx import BiasField, UsageError, WhiteNoise
from robnet_fx.bounds.evaluate import margin_spec, other_classes
from robnet_fx.bounds.generator import generate
from robnet_fx.bounds.methods import METHODS
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.perturbations.base import Perturbation
from robnet_fx.problem import Problem
from robnet_fx.testing import all_corners, check_sound, node_values
from robnet_fx.verify import certify
from tests.rules.cases import AFFINE, Case, name_of
from tests.small import bounded, digits
from tests.soundness import Drawing, draws

aten = torch.ops.aten
FIELD = BiasField(1, 0.3, True, True)
SYMBOLIC = [name for name, method in METHODS.items() if method.symbolic]


def conv_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3)
    ).double()


def dense_net(seed: int = 0) -> nn.Module:
    """Images `[1, 5]`, so that a field of order 1 has D = 2 or 4."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(5, 6), nn.LeakyReLU(0.1), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)
    ).double()


@cache
def canonical(make: Callable[..., nn.Module], seed: int = 0) -> fx.GraphModule:
    """Traced once; nothing below changes a network for good."""
    return robnet_fx.trace(make(seed), torch.rand(2, *SHAPES[make], dtype=torch.float64))


def kinked_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Sigmoid(), nn.Flatten(),
        nn.Linear(8, 4), nn.LeakyReLU(0.2), nn.Linear(4, 4), nn.Hardtanh(0, 1), nn.Linear(4, 3),
    ).double()  # fmt: skip


SHAPES = {conv_net: (1, 4, 4), dense_net: (1, 5), kinked_net: (1, 4, 4)}


def compiled(make: Callable[..., nn.Module], perturbation: Perturbation, method: str, clip: str | None = "relu"):
    return BoundedModel(canonical(make), Problem(perturbation, clip), method)


def spec_for(batch: int, classes: int = 3) -> Tensor:
    return draws(6)(1, 4, classes).expand(batch, -1, -1)


# --- exactness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in AFFINE if len(case.shapes) == 1], ids=name_of)
def test_an_affine_network_is_bounded_exactly(case: Case):
    """Without a clip: SSIP and RSIP are the maximum and minimum over the corners, at every node and for every row."""
    r = draws(1)
    drawing = Drawing(2, 3)
    (shape,) = case.shapes
    size = int(torch.tensor(shape).prod())
    mixed = drawing(aten.linear.default, drawing.flat(drawing.x), r(size, 6), r(size))
    args, kwargs = case.call(r, drawing(aten.reshape.default, mixed, [-1, *shape]))
    canonical = drawing.logits(drawing(case.target, *args, **kwargs), r)
    images = torch.rand(2, 2, 3, dtype=torch.float64)
    for method in ("ssip", "rsip-ibp", "rsip-ssip", "rsip"):
        exact(BoundedModel(canonical, Problem(FIELD, None), method), images)


def exact(net: BoundedModel, images: Tensor) -> None:
    corners = net.center + net.radius * all_corners(len(net.center))
    spec = spec_for(len(images), net.classes)
    lower, upper = net.bounds(images, spec)
    probe = net.probe(images)
    for b, image in enumerate(images):
        values = node_values(net.perturbed, corners, image.expand(len(corners), *image.shape))
        for node, kinds in probe.items():
            for kind in set(kinds) & {"ssip"}:
                torch.testing.assert_close(kinds[kind].lower[b], values[node].amin(0))
                torch.testing.assert_close(kinds[kind].upper[b], values[node].amax(0))
        last = net.perturbed.graph.find_nodes(op="output")[0].args[0].name
        rows = values[last] @ spec[b].T
        torch.testing.assert_close(lower[b], rows.amin(0))
        torch.testing.assert_close(upper[b], rows.amax(0))


@pytest.mark.parametrize("method", ["ssip", "rsip-ibp", "rsip-ssip", "rsip"])
@pytest.mark.parametrize("clip", ["clamp", "relu"])
def test_a_stable_network_is_bounded_exactly(method: str, clip: str):
    """A box so small that no unit and no pixel changes sides: the relaxations are lines, and nothing is lost."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    images = 0.2 + 0.6 * torch.rand(3, 1, 5, dtype=torch.float64)
    exact(robnet_fx.bound(model, BiasField(1, 1e-4, True, True), method, clip=clip, example=images), images)


# --- inclusions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", SYMBOLIC)
@pytest.mark.parametrize("clip", ["clamp", "relu"])
@pytest.mark.parametrize("make", [conv_net, dense_net])
def test_pre_is_inside_both_forward_domains_and_stand_alone_ibp(method: str, clip: str, make):
    images = torch.rand(3, *SHAPES[make], dtype=torch.float64)
    net = compiled(make, FIELD, method, clip)
    alone = compiled(make, FIELD, "ibp", clip).probe(images)
    checked = 0
    for node, kinds in net.probe(images).items():
        outer = alone[node]["ibp"]
        assert bool(
            (kinds["ibp"].lower >= outer.lower - 1e-12).all() and (kinds["ibp"].upper <= outer.upper + 1e-12).all()
        )
        if "pre" not in kinds:
            continue
        checked += 1
        for other, rounding in ((kinds["ibp"], 0), (kinds["ssip"], 0), (outer, 1e-12)):
            assert bool((kinds["pre"].lower >= other.lower - rounding).all())
            assert bool((kinds["pre"].upper <= other.upper + rounding).all())
        if method != "rsip":
            assert torch.equal(kinds["pre"].lower, torch.maximum(kinds["ibp"].lower, kinds["ssip"].lower))
            assert torch.equal(kinds["pre"].upper, torch.minimum(kinds["ibp"].upper, kinds["ssip"].upper))
    assert checked >= 3
    table = net.intermediate(images)
    assert set(table) == {node for node, kinds in net.probe(images).items() if "pre" in kinds}
    for node, interval in table.items():
        assert torch.equal(interval.lower, net.probe(images)[node]["pre"].lower)
        assert bool((interval.lower <= interval.upper).all())


def test_full_rsip_tightens_intermediate_bounds():
    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (nn.Linear(8, 8), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), nn.Linear(5, 8), nn.ReLU(), *layers, nn.Linear(8, 3)).double()
    images = torch.rand(3, 1, 5, dtype=torch.float64)
    last = {}
    for method in ("rsip-ssip", "rsip"):
        net = robnet_fx.bound(model, BiasField(1, 0.5, True, True), method, clip=None, example=images)
        *_, pre = net.intermediate(images).values()
        last[method] = float((pre.upper - pre.lower).detach().sum())
    assert last["rsip"] < 0.95 * last["rsip-ssip"]


def test_full_rsip_in_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch):
    images = torch.rand(3, 1, 5, dtype=torch.float64)
    net = compiled(dense_net, FIELD, "rsip")
    whole = net.intermediate(images)
    monkeypatch.setattr(sys.modules["robnet_fx.bounds.rows"], "_BUDGET", 1)
    for node, pre in net.intermediate(images).items():
        for a, b in zip(pre, whole[node], strict=True):
            torch.testing.assert_close(a, b)


# --- the batch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("perturbation", [BiasField(1, 0.3, True, True), WhiteNoise(0.1)], ids=["field", "noise"])
def test_samples_do_not_depend_on_their_batch(method: str, perturbation):
    """One at a time, in a batch as large as D or K, and in a larger one: the same bounds."""
    images = torch.rand(9, 1, 5, dtype=torch.float64)
    labels = torch.arange(9) % 3
    net = compiled(dense_net, perturbation, method)
    d = len(net.center)
    assert d in (4, 5)
    whole = net.margins(images, labels)
    for size in {1, 2, 3, d, 6}:
        parts = [net.margins(images[i : i + size], labels[i : i + size]) for i in range(0, 9, size)]
        torch.testing.assert_close(torch.cat(parts), whole)
    order = torch.tensor([4, 0, 8, 2])
    torch.testing.assert_close(net.margins(images[order], labels[order]), whole[order])
    alone = [net.probe(images[i : i + 1]) for i in range(d)]
    for node, kinds in net.probe(images[:d]).items():
        for kind, bounds in kinds.items():
            for side in (0, 1):
                torch.testing.assert_close(torch.cat([one[node][kind][side] for one in alone]), bounds[side])


def test_a_batch_as_large_as_d_is_sound():
    """Design §13: broadcasting [B, D] the wrong way shows only where B equals D."""
    r = draws(2)
    drawing = Drawing(2, 4)
    hidden = drawing(aten.relu.default, drawing(aten.conv1d.default, drawing.x, r(4, 2, 3), r(4), [1], [1]))
    value = drawing(aten.batch_norm.default, hidden, r(4), r(4), r(4), r(4).abs() + 0.5, False, 0.1, 1e-5, False)
    value = drawing(aten.mul.Tensor, drawing(aten.sigmoid.default, value), r(4, 4))
    canonical = drawing.logits(value, r, classes=4)
    for batch in (4, 1):
        check_sound(canonical, FIELD, torch.rand(batch, 2, 4, dtype=torch.float64), clip="clamp", climbs=1)


def test_tracing_on_a_batch_of_one_leaves_the_batch_free():
    images = torch.rand(4, 1, 5, dtype=torch.float64)
    one = robnet_fx.bound(dense_net(), FIELD, example=images[:1])
    many = robnet_fx.bound(dense_net(), FIELD, example=images)
    labels = torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(one.margins(images, labels), many.margins(images, labels))


# --- margins --------------------------------------------------------------------------------------------------------


def test_other_classes_leave_out_the_label():
    assert other_classes(torch.tensor([0, 1, 3]), 4).tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 2]]
    labels = torch.tensor([2, 0])
    spec = margin_spec(labels, other_classes(labels, 3), 3)
    assert spec.tolist() == [[[1, 0, -1], [0, 1, -1]], [[-1, 1, 0], [-1, 0, 1]]]


@pytest.mark.parametrize("method", METHODS)
def test_margins_are_upper_bounds_with_minus_infinity_at_the_label(method: str):
    images, labels = torch.rand(4, 1, 4, 4, dtype=torch.float64), torch.tensor([2, 0, 1, 1])
    net = compiled(conv_net, FIELD, method)
    margins = net.margins(images, labels)
    assert margins.shape == (4, 3)
    assert bool((margins.gather(1, labels.unsqueeze(1)) == -torch.inf).all())
    others = other_classes(labels, 3)
    spec = margin_spec(labels, others, 3).double()
    assert spec.shape == (4, 2, 3)
    torch.testing.assert_close(margins.gather(1, others), net.bounds(images, spec)[1])
    if method == "rsip-ssip":
        torch.testing.assert_close(robnet_fx.margin_bounds(conv_net(), images, labels, FIELD), margins)


def test_generate_is_the_bounds_graph():
    images = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    net = compiled(conv_net, FIELD, "rsip-ibp")
    for a, b in zip(
        generate(net.perturbed, "rsip-ibp")(images, spec_for(2)), net.bounds(images, spec_for(2)), strict=True
    ):
        assert torch.equal(a, b)
    with pytest.raises(UsageError, match="perturbed graph"):
        generate(net.clean)


def test_by_another_method_it_is_the_same_problem():
    net = compiled(conv_net, BiasField(1, 0.1), "ibp")
    images, labels = torch.rand(2, *net.input_shape, dtype=torch.float64), torch.tensor([0, 1])
    other, fresh = net.by("rsip-ssip", 8), compiled(conv_net, BiasField(1, 0.2), "rsip-ssip")
    assert (other.method, other.symbols, net.method, net.symbols) == ("rsip-ssip", 8, "ibp", 0)
    net.set_eps(0.2)  # one box for both
    spec = spec_for(2)
    assert torch.equal(other.by("rsip-ssip").bounds(images, spec)[1], fresh.bounds(images, spec)[1])
    assert other.model is net.model and set(other.state_dict()) == set(fresh.state_dict())
    assert not torch.equal(net.margins(images, labels), other.margins(images, labels))
    with pytest.raises(UsageError, match="symbols"):
        net.by("rsip-ibp", 8)


def test_a_one_logit_model_has_the_margins_of_two_classes():
    images = torch.rand(2, 1, 5, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    net = robnet_fx.bound(model, FIELD, example=images)
    lower, upper = net.bounds(images, torch.tensor([0.0, 1.0]).double().expand(2, 1, 2))
    margins = net.margins(images, torch.tensor([0, 1]))
    torch.testing.assert_close(torch.stack([margins[0, 1], margins[1, 0]]), torch.stack([upper[0, 0], -lower[1, 0]]))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.rand(2, 1, 6), torch.tensor([0, 1]), r"takes images \[1, 5\]"),
        (torch.rand(2, 1, 5), torch.tensor([0, 1, 2]), "labels must be 2 whole numbers"),
        (torch.rand(2, 1, 5), torch.tensor([0.0, 1.0]), "whole numbers"),
        (torch.rand(2, 1, 5), torch.tensor([0, 3]), "between 0 and 2"),
        (torch.rand(2, 1, 5), torch.tensor([-1, 0]), "between 0 and 2"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(images: Tensor, labels: Tensor, message: str):
    net = compiled(dense_net, FIELD, "ibp")
    with pytest.raises(UsageError, match=message):
        net.margins(images.double(), labels)


def test_options_that_do_not_exist_are_errors():
    """Design §13: never ignored."""
    images = torch.rand(2, 1, 5, dtype=torch.float64)
    with pytest.raises(
        UsageError, match=r"unknown method 'crown': choose one of ibp, ssip, rsip-ibp, rsip-ssip, rsip$"
    ):
        robnet_fx.bound(dense_net(), FIELD, "crown", example=images)
    for clip in ("sigmoid", "", True):
        with pytest.raises(UsageError, match="clip must be one of"):
            robnet_fx.bound(dense_net(), FIELD, clip=clip, example=images)
    with pytest.raises(TypeError):
        robnet_fx.bound(dense_net(), FIELD, slopes="adaptive", example=images)


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("clip", ["clamp", "relu"])
def test_gradients_are_those_of_the_bounds(method: str, clip: str):
    """Away from kinks, along random directions in all parameters and in the images."""
    traced = canonical(conv_net, 2)
    model = traced.model
    images = 0.15 + 0.7 * torch.rand(3, 1, 4, 4, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2])
    net = BoundedModel(traced, Problem(BiasField(1, 0.1, True, True), clip), method)
    weights = draws(3)(3, 3)

    def value() -> Tensor:
        margins = net.margins(images, labels)
        return (margins.masked_fill(margins == -torch.inf, 0) * weights).sum()

    images.requires_grad_(True)
    variables = [*model.parameters(), images]
    gradients = torch.autograd.grad(value(), variables)
    r = draws(4)
    for _ in range(3):
        directions = [r(*v.shape) for v in variables]
        expected = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))
        step = 1e-6
        ends = []
        with torch.no_grad():
            for sign in (1, -1):
                for v, d in zip(variables, directions, strict=True):
                    v += sign * step * d
                ends.append(float(value()))
                for v, d in zip(variables, directions, strict=True):
                    v -= sign * step * d
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("clip", ["clamp", "relu"])
def test_gradients_are_finite_on_kinks(method: str, clip: str):
    """eps = 0 (l = u everywhere), black and white pixels (on the clip's kinks), units at exactly 0, any box."""
    traced = canonical(kinked_net)
    images = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4), torch.rand(1, 4, 4).round()]).double()
    images.requires_grad_(True)
    labels = torch.tensor([0, 1, 2])
    net = BoundedModel(traced, Problem(FIELD, clip), method)
    for eps in (0.0, 1e-12, 0.3, 1.0):
        net.set_eps(eps)
        margins = net.margins(images, labels)
        total = margins.masked_fill(margins == -torch.inf, 0).sum()
        for gradient in torch.autograd.grad(total, [*net.model.parameters(), images]):
            assert bool(gradient.isfinite().all())


# --- eps, clip, normalisation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_ramp_is_a_new_box_in_the_same_graph(method: str):
    images, labels = torch.rand(3, 1, 5, dtype=torch.float64), torch.tensor([0, 1, 2])
    net = compiled(dense_net, BiasField(1, 0.4, True, True), method)
    bounds = net.bounds
    widths = []
    for eps in (0.0, 0.1, 0.2, 0.4):
        net.set_eps(eps)
        fresh = compiled(dense_net, BiasField(1, eps, True, True), method)
        torch.testing.assert_close(net.margins(images, labels), fresh.margins(images, labels))
        assert net.eps == eps
        assert net.bounds is bounds
        lower, upper = net.bounds(images, spec_for(3))
        widths.append(float((upper - lower).detach().sum()))
    assert widths == sorted(widths)


def test_the_clips_are_one_function():
    """relu and clamp give the same values, and the identity where nothing leaves [0, 1]."""
    images = torch.rand(4, 1, 5, dtype=torch.float64)
    nets = {clip: compiled(dense_net, FIELD, "ibp", clip) for clip in ("relu", "clamp", None)}
    coefficients = nets["relu"].center + 4 * draws(1)(4, 4)
    torch.testing.assert_close(nets["relu"](coefficients, images), nets["clamp"](coefficients, images))
    assert not torch.allclose(nets["relu"](coefficients, images), nets[None](coefficients, images))
    small = torch.tensor([[0.9, 0.05, 0.01, 0.0]]).double().expand(4, -1)
    torch.testing.assert_close(nets["relu"](small, images), nets[None](small, images))


@pytest.mark.parametrize("clip", ["relu", "clamp", None])
def test_normalisation_stays_behind_the_clip(clip: str | None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    images = torch.rand(3, 2, 5, dtype=torch.float64)
    mean, std = (0.4, 0.6), (0.2, 0.5)
    net = robnet_fx.bound(model, FIELD, "rsip-ssip", clip=clip, mean=mean, std=std, example=images)
    shift, scale = (torch.tensor(v).double().reshape(2, 1) for v in (mean, std))
    torch.testing.assert_close(net.logits(images), model((images - shift) / scale))
    torch.testing.assert_close(net.normalise(images), (images - shift) / scale)
    coefficients = net.center + 2 * draws(1)(3, 4)
    field = coefficients[:, :1] + coefficients[:, 1:2] * (torch.arange(1, 6) / 5)
    extra = coefficients[:, 2:3] + coefficients[:, 3:] * (torch.arange(1, 6) / 5)
    pixels = images * field.unsqueeze(1) + extra.unsqueeze(1)
    pixels = pixels if clip is None else pixels.clamp(0, 1)
    torch.testing.assert_close(net(coefficients, images), model((pixels - shift) / scale))
    check_sound(robnet_fx.trace(model, images), FIELD, images, clip=clip, mean=mean, std=std, climbs=1)


def test_without_normalisation_images_are_taken_as_they_are():
    images = torch.rand(2, 1, 5, dtype=torch.float64)
    net = robnet_fx.bound(dense_net(), FIELD, "ibp", example=images)
    assert net.normalise(images) is images
    half = robnet_fx.bound(dense_net(), FIELD, "ibp", std=0.5, example=images)
    torch.testing.assert_close(half.normalise(images), images / 0.5)


@pytest.mark.parametrize("last", [aten.sigmoid.default, aten.relu.default, aten.hardtanh.default])
def test_a_network_may_end_in_a_non_affine_node(last):
    """The spec then meets the relaxation itself."""
    r = draws(3)
    drawing = Drawing(1, 5)
    hidden = drawing(aten.relu.default, drawing(aten.linear.default, drawing.flat(drawing.x), r(6, 5), r(6)))
    logits = drawing(last, drawing(aten.linear.default, hidden, r(3, 6), r(3)))
    check_sound(drawing.finish(logits), FIELD, torch.rand(2, 1, 5, dtype=torch.float64), clip="clamp", climbs=1)


def test_many_classes_are_worked_in_parts(monkeypatch):
    """Rows are independent, so the parts change nothing; with gradients there are none."""
    net = bounded(eps=0.2)
    images, labels = digits()[0][:3] / 255, digits()[1][:3]
    whole = net.margins(images, labels)
    sizes, original = [], net.upper_graph.forward

    def watch(images, spec):
        sizes.append(spec.shape[1])
        return original(images, spec)

    monkeypatch.setattr(net.upper_graph, "forward", watch)
    monkeypatch.setattr("robnet_fx.bounds.memory.ROWS_BUDGET", 4 * 3 * net._widest)
    with torch.no_grad():
        torch.testing.assert_close(net.margins(images, labels), whole.detach())
    net.margins(images, labels)
    assert sizes == [3, 3, 3, 9]


def test_compiled_margins_serve_batches_of_any_size():
    """No graph break; one graph with gradients and one without, though the first batch is as large as an image."""
    from torch._dynamo.testing import CompileCounterWithBackend

    plain, net = bounded(eps=0.2), copy.deepcopy(bounded(eps=0.2))
    x, y = digits()
    counter = CompileCounterWithBackend("aot_eager")
    net.compile(backend=counter, fullgraph=True)
    for size in (8, 5, 1):
        images, labels = x[:size] / 255, y[:size]
        with torch.no_grad():
            torch.testing.assert_close(to_train_on(net, images, labels), to_train_on(plain, images, labels))
        ours, theirs = (gradient_of(each, images, labels) for each in (net, plain))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert counter.frame_count == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_verdict_never_runs_what_was_compiled(dtype):
    def broken(*args):
        raise RuntimeError("compiled after all")

    x, y = digits()
    net = copy.deepcopy(bounded(eps=0.2)).to(dtype)
    net.compile(backend=broken)
    images = (x[:4] / 255).to(dtype)
    for chosen in (None, torch.float64):
        certify(net, images, y[:4], dtype=chosen)
    net.margins(images, y[:4])
    with pytest.raises(RuntimeError, match="compiled after all"):
        to_train_on(net, images, y[:4])


def to_train_on(net, images, labels):
    return torch.cat(list(net.margins_in_parts(images, labels, precision="float32")), 1)


def gradient_of(net, images, labels):
    net.model.zero_grad()
    to_train_on(net, images, labels).clamp(min=-1).sum().backward()
    return [p.grad.clone() for p in net.model.parameters()]
