"""Error symbols through whole graphs: aligned where paths meet, each sample's own, and worth what they cost."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.autograd import gradcheck

from robnet_fx import BiasField, BoundedModel, UsageError, WhiteNoise, bound
from robnet_fx.algebra import symbols
from robnet_fx.algebra.domains import Symbolic
from robnet_fx.algebra.ops import product
from robnet_fx.bounds.emit import Emitter
from robnet_fx.bounds.methods import METHODS, OrNone, Symbols
from robnet_fx.perturbations.base import Box
from robnet_fx.problem import Problem
from robnet_fx.testing import check_sound
from tests.soundness import Drawing, draws

aten = torch.ops.aten
FIELD = BiasField(1, 0.4)
SYMBOLIC = [name for name, method in METHODS.items() if method.symbolic]
LABELS = torch.tensor([2, 0, 1])


def images(count: int = 3) -> Tensor:
    """The first is dark: fewer of its units bend, so it has fewer errors than the others."""
    made = torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    made[0] *= 0.05
    return made


def branched() -> fx.GraphModule:
    """Two branches with relaxations of their own that are subtracted, multiplied, and joined with where they began."""
    r = draws(3)
    drawing = Drawing(1, 3, 3)
    stem = drawing(aten.relu.default, drawing(aten.conv2d.default, drawing.x, r(2, 1, 3, 3), r(2), [1, 1], [1, 1]))
    left = drawing(aten.relu.default, drawing(aten.conv2d.default, stem, r(2, 2, 3, 3) / 2, r(2), [1, 1], [1, 1]))
    right = drawing(aten.tanh.default, drawing(aten.conv2d.default, stem, r(2, 2, 1, 1), r(2)))
    apart = drawing(aten.sub.Tensor, left, right, alpha=0.8)
    times = drawing(product, right, drawing(aten.relu.default, apart))
    return drawing.logits(drawing(aten.cat.default, [stem, apart, times], 1), r)


def net(symbols: Symbols, method: str = "rsip-ssip") -> BoundedModel:
    return BoundedModel(branched(), Problem(FIELD), method, symbols)


# --- the ways to get it wrong ---------------------------------------------------------------------------------------

Born = Callable[..., symbols.Born]


def of_another_path(right: Born) -> Born:
    """Counted along a path, so that two branches give the same columns to different errors."""
    return lambda x, used, *rest: right(x, torch.full_like(used, x.coef.shape[1]), *rest)


def of_another_sample(right: Born) -> Born:
    """The symbols of a sample in the rows of its neighbour."""

    def born(x: Symbolic, *rest: Any) -> symbols.Born:
        after = right(x, *rest)
        new = after.value.coef - symbols.widened(x.coef, after.value.coef.shape[1])
        return after._replace(value=after.value._replace(coef=after.value.coef - new + new.roll(1, 0)))

    return born


def for_all_samples(right: Born) -> Born:
    """One count for the batch: the columns in use are those of the first sample."""
    return lambda x, used, *rest: right(x, used[:1].expand(len(used)), *rest)


def never_counted(right: Born) -> Born:
    """Born anew in the same columns by the next relaxation."""
    return lambda x, used, *rest: right(x, used, *rest)._replace(used=used)


def without_the_rest(right: Born) -> Born:
    """What found no room is forgotten."""

    def born(x: Symbolic, *rest: Any) -> symbols.Born:
        after = right(x, *rest)
        return after._replace(value=after.value._replace(slack=torch.zeros_like(x.slack)))

    return born


def gone_from_one_value_only(right: Born) -> Born:
    """A symbol that made way for another stays in the values that are read later."""
    return lambda x, used, most, dimensions, live: right(x, used, most, dimensions, live)._replace(live=live)


def gone_without_a_trace(right: Born) -> Born:
    """A symbol that made way is no slack."""

    def born(x: Symbolic, used: Tensor, most: Any, dimensions: int, live: tuple[Symbolic, ...]) -> symbols.Born:
        after = right(x, used, most, dimensions, live)
        pairs = zip(live, after.live, strict=True)
        return after._replace(live=tuple(new._replace(slack=old.slack) for old, new in pairs))

    return born


@pytest.mark.parametrize("kept", [5, 20, OrNone(20), OrNone(40), "all"])
def test_branches_that_meet_are_aligned(kept: Symbols):
    check_sound(branched(), FIELD, images(), symbols=(kept,))


@pytest.mark.parametrize(
    ("wrong", "kept"),
    [
        (of_another_path, "all"),
        (of_another_sample, "all"),
        (for_all_samples, "all"),
        (never_counted, "all"),
        (without_the_rest, 5),
        (gone_from_one_value_only, 20),
        (gone_without_a_trace, 20),
    ],
)
def test_what_is_born_or_goes_in_a_wrong_way_is_noticed(wrong: Callable[[Born], Born], kept: Symbols, monkeypatch):
    monkeypatch.setattr(symbols, "born", wrong(symbols.born))
    with pytest.raises(AssertionError, match="UNSOUND"):
        check_sound(branched(), FIELD, images(), methods=["rsip-ssip"], symbols=(kept,), climbs=0)


def test_a_sign_lost_where_paths_meet_is_noticed(monkeypatch):
    right = symbols.aligned

    def merged(*values: Symbolic) -> tuple[Symbolic, ...]:
        return tuple(x._replace(coef=torch.cat([x.coef[:, :4], x.coef[:, 4:].abs()], 1)) for x in right(*values))

    monkeypatch.setattr(symbols, "aligned", merged)
    with pytest.raises(AssertionError, match="UNSOUND"):
        check_sound(branched(), FIELD, images(), methods=["rsip-ssip"], symbols=("all",), climbs=0)


def test_a_sign_lost_where_symbols_make_way_is_noticed(monkeypatch):
    right = symbols._without

    def without(x: Symbolic, *rest: Tensor) -> Symbolic:
        after = right(x, *rest)
        return after._replace(slack=x.slack + (x.coef - after.coef).sum(1))

    monkeypatch.setattr(symbols, "_without", without)
    with pytest.raises(AssertionError, match="UNSOUND"):
        check_sound(branched(), FIELD, images(), methods=["rsip-ssip"], symbols=(20,), climbs=0)


def lost_without_a_trace(right: Callable[..., Symbolic]) -> Callable[..., Symbolic]:
    """Whoever lacks room has no symbols, and no slack for them."""
    return lambda x, *rest: right(x, *rest)._replace(slack=x.slack)


def lost_with_their_signs(right: Callable[..., Symbolic]) -> Callable[..., Symbolic]:
    """What is lost adds up with its signs."""

    def without_any(x: Symbolic, out: Tensor, dimensions: int, columns: int) -> Symbolic:
        after = right(x, out, dimensions, columns)
        gone = out.reshape(-1, *[1] * (x.slack.dim() - 1))
        return after._replace(slack=x.slack + torch.where(gone, x.coef[:, dimensions:].sum(1), 0.0))

    return without_any


def lost_by_a_neighbour(right: Callable[..., Symbolic]) -> Callable[..., Symbolic]:
    """The symbols go from one sample and become the slack of another."""

    def without_any(x: Symbolic, *rest: Any) -> Symbolic:
        after = right(x, *rest)
        return after._replace(slack=x.slack + (after.slack - x.slack).roll(1, 0))

    return without_any


@pytest.mark.parametrize("wrong", [lost_without_a_trace, lost_with_their_signs, lost_by_a_neighbour])
def test_symbols_that_are_lost_in_a_wrong_way_are_noticed(wrong: Callable[..., Any], monkeypatch):
    monkeypatch.setattr(symbols, "_without_any", wrong(symbols._without_any))
    with pytest.raises(AssertionError, match="UNSOUND"):
        check_sound(branched(), FIELD, images(), methods=["rsip-ssip"], symbols=(OrNone(20),), climbs=0)


@pytest.mark.parametrize(("forgotten", "kept"), [(slice(1), 3), (slice(-1, None), 20)])
def test_a_value_that_is_forgotten_while_it_is_still_read_is_noticed(forgotten: slice, kept: int, monkeypatch):
    right = Emitter.live

    def live(emit: Emitter, node: fx.Node) -> list[fx.Node]:
        found = right(emit, node)
        return [value for value in found if value not in found[forgotten]]

    monkeypatch.setattr(Emitter, "live", live)
    with pytest.raises(AssertionError, match="UNSOUND"):
        check_sound(branched(), FIELD, images(), methods=["rsip-ssip"], symbols=(kept,), climbs=0)


def cancelling(kept: Symbols) -> float:
    """How wide SSIP finds the difference of two branches that read one relaxed value, and differ by constants."""
    r = draws(6)
    drawing = Drawing(1, 3, 3)
    bent = drawing(aten.relu.default, drawing(aten.linear.default, drawing.flat(drawing.x), r(6, 9), r(6)))
    weight = r(4, 6)
    once, twice = (drawing(aten.linear.default, bent, factor * weight, r(4)) for factor in (1, 2))
    graph = drawing.logits(drawing(aten.sub.Tensor, twice, once, alpha=2), r)
    lower, upper = BoundedModel(graph, Problem(FIELD), "ssip", kept).probe(images())["sub"]["ssip"]
    return float((upper - lower).detach().max())


def test_an_error_that_is_read_twice_is_one(monkeypatch):
    assert cancelling("all") < 1e-12 < 0.1 < cancelling(0)

    right, aligned = symbols.born, Emitter.aligned

    def born_when_read(emit: Emitter, values: Sequence[fx.Node]) -> dict[fx.Node, fx.Node]:
        for value in emit.plan.relaxed & set(values):
            before = emit.ssip[value]
            both = emit.call(right, f"{value.name}_read", before, emit.used, 10**6, 4)
            emit.used, emit.ssip[value] = emit.item(both, 1, "used"), emit.item(both, 0, f"{value.name}_ssip")
            found = aligned(emit, values)
            emit.ssip[value] = before
            return found
        return aligned(emit, values)

    monkeypatch.setattr(symbols, "born", lambda x, used, most, dimensions, live: symbols.Born(x, used, live))
    monkeypatch.setattr(Emitter, "aligned", born_when_read)
    assert cancelling("all") > 0.1


# --- samples know nothing of each other -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", SYMBOLIC)
@pytest.mark.parametrize("kept", [0, 4, 34, OrNone(4), OrNone(34), "all"])
def test_an_image_has_its_bounds_alone_and_among_others(method: str, kept: Symbols):
    bounded, batch = net(kept, method), images()
    together, tables = bounded.margins(batch, LABELS), bounded.probe(batch)
    reverse = bounded.margins(batch.flip(0), LABELS.flip(0)).flip(0)
    torch.testing.assert_close(reverse, together, rtol=1e-12, atol=1e-12)
    for index in range(3):
        image, label = batch[index : index + 1], LABELS[index : index + 1]
        torch.testing.assert_close(bounded.margins(image, label)[0], together[index], rtol=1e-12, atol=1e-12)
        for node, kinds in bounded.probe(image).items():
            for kind, ends in kinds.items():
                for alone, among in zip(ends, tables[node][kind], strict=True):
                    torch.testing.assert_close(alone[0], among[index], rtol=1e-12, atol=1e-12)


def births(bounded: BoundedModel, batch: Tensor) -> list[symbols.Born]:
    """What the births of a graph return."""
    bounded.probe(batch)
    recorder = fx.Interpreter(bounded.probe_graph, garbage_collect_values=False)
    recorder.run(batch)
    return [value for value in recorder.env.values() if isinstance(value, symbols.Born)]


def test_a_budget_is_each_samples_own():
    """Enough for the first image, and not for the others."""
    dimensions = len(net(0).center)
    everything = births(net("all"), images())[-1].used - dimensions
    enough = int(everything[0])
    assert enough < int(everything[1:].min())
    some, all_ = (net(kept).margins(images(), LABELS).detach() for kept in (enough, "all"))
    torch.testing.assert_close(some[0], all_[0], rtol=1e-12, atol=1e-12)
    assert not torch.equal(some[1:], all_[1:])
    for kept in (1, 5, enough):
        for after in births(net(kept), images()):
            assert all(value.coef.shape[1] <= dimensions + kept for value in (after.value, *after.live))
            assert bool((after.used <= dimensions + kept).all())


def test_who_lacks_room_loses_all_symbols_and_costs_nothing_more():
    """Enough for the first image, and not for the others: it has the bounds of all its symbols, they have columns for
    their coefficients alone from where they ran out."""
    dimensions = len(net(0).center)
    everything = births(net("all"), images())[-1].used - dimensions
    enough = OrNone(int(everything[0]))
    some, all_ = (net(kept).margins(images(), LABELS).detach() for kept in (enough, "all"))
    torch.testing.assert_close(some[0], all_[0], rtol=1e-12, atol=1e-12)
    made = births(net(enough), images())
    for sample in (1, 2):
        out = [int(after.used[sample]) > dimensions + enough for after in made]
        assert out == sorted(out)
        assert out[-1]
        for after, gone in zip(made, out, strict=True):
            left = any(bool(value.coef[sample, dimensions:].any()) for value in (after.value, *after.live))
            assert not (left and gone)
    alone = births(net(OrNone(1)), images()[1:])
    assert {value.coef.shape[1] for after in alone for value in (after.value, *after.live)} == {dimensions}


@pytest.mark.parametrize("kept", [0, 5, OrNone(5), "all"])
def test_no_images_have_no_bounds(kept: Symbols):
    assert net(kept).margins(images()[:0], LABELS[:0]).shape == (0, 3)


# --- what they are worth --------------------------------------------------------------------------------------------


def logits_range(net: BoundedModel, of: Tensor) -> Tensor:
    """`[B, classes]`: how far the bounds of each logit are apart."""
    lower, upper = net.bounds(of, torch.eye(net.classes, dtype=of.dtype).expand(len(of), -1, -1))
    return (upper - lower).detach()


def test_a_deep_network_is_bounded_where_slack_explodes():
    """No rule that more symbols are tighter: slopes change with `pre`. But all of them are far tighter than none."""
    r = draws(0)
    drawing = Drawing(1, 4, 4)
    value = drawing.flat(drawing.x)
    for _ in range(16):
        value = drawing(aten.relu.default, drawing(aten.linear.default, value, r(16, 16) / 8**0.5, r(16) / 10))
    graph, pixels = drawing.logits(value, r), torch.rand(2, 1, 4, 4, dtype=torch.float64)
    nets = [BoundedModel(graph, Problem(BiasField(1, 0.05)), "ssip", kept) for kept in (0, "all")]
    without, with_all = (float(logits_range(net, pixels).mean()) for net in nets)
    assert with_all * 1000 < without


@pytest.mark.parametrize("method", SYMBOLIC)
def test_a_budget_larger_than_all_errors_is_all(method: str):
    pair = [net(kept, method).margins(images(), LABELS) for kept in (1000, "all")]
    torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-12)


# --- gradients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [2, "all"])
def test_margins_have_the_right_derivative(kept: Symbols):
    bounded, batch = net(kept), images()
    box = Box(bounded.center.expand(3, -1), bounded.radius.expand(3, -1) * 0.7)
    bounded.requires_grad_(False)

    def margins(pixels: Tensor, center: Tensor, radius: Tensor) -> Tensor:
        return torch.cat(list(bounded.margins_in_parts(pixels, LABELS, Box(center, radius))), 1)

    assert gradcheck(margins, [part.clone().requires_grad_() for part in (batch, *box)], fast_mode=True)


@pytest.mark.parametrize("kept", [2, "all"])
def test_weights_have_the_right_derivative(kept: Symbols):
    bounded, batch = net(kept), images()
    weights = [weight.requires_grad_() for weight in bounded.model.parameters()]

    def value() -> Tensor:
        return torch.cat(list(bounded.margins_in_parts(batch, LABELS)), 1).sum()

    gradients = torch.autograd.grad(value(), weights)
    r = draws(9)
    for weight, gradient in zip(weights, gradients, strict=True):
        direction = r(*weight.shape)
        ends = []
        with torch.no_grad():
            for step in (1e-6, -2e-6):
                weight += step * direction
                ends.append(float(value()))
            weight += 1e-6 * direction
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float((gradient * direction).sum()), rel=1e-5, abs=1e-6)


# --- graphs -----------------------------------------------------------------------------------------------------------


def test_no_symbols_are_no_nodes():
    for method in METHODS:
        for graph in (net(0, method).bounds, net(0, method)._probe):
            assert not any(getattr(node.target, "__module__", "") == symbols.__name__ for node in graph.graph.nodes)


@pytest.mark.parametrize("kept", [3, OrNone(3), "all"])
def test_a_net_with_symbols_is_saved(kept: Symbols):
    bounded, batch = net(kept), images()
    for again in (pickle.loads(pickle.dumps(bounded)), copy.deepcopy(bounded)):
        assert again.symbols == kept
        assert torch.equal(again.margins(batch, LABELS), bounded.margins(batch, LABELS))
        assert again.bounds.code == bounded.bounds.code


def test_what_cannot_be_kept_is_refused():
    for kept in (-1, 1.5, True, "some", None):
        with pytest.raises(UsageError, match='symbols must be "all" or a whole number of at least 0'):
            net(kept)
    for method in ("ibp", "rsip-ibp"):
        for kept in (3, "all"):
            with pytest.raises(UsageError, match=f"method {method} has no SSIP"):
                net(kept, method)
        assert net(0, method).symbols == 0


def test_all_symbols_have_no_layout_to_compile():
    with pytest.raises(UsageError, match=r'with symbols "all".*cannot be compiled or exported\n.*give a number'):
        net("all").compile()


def test_many_coefficients_and_symbols_are_refused_together():
    """White noise on a large image has more coefficients than SSIP takes, whatever it keeps."""
    layers = nn.Sequential(nn.Flatten(), nn.Linear(64 * 64, 2)).eval()
    with pytest.raises(UsageError, match="use rsip-ibp"):
        bound(layers, WhiteNoise(0.1), example=torch.rand(1, 1, 64, 64), symbols=4)
