"""Births of error symbols, on values made up: nothing that a value may be is lost, and no sample has too many."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

from robnet_fx.algebra import kernels
from robnet_fx.algebra.domains import Symbolic, concretise
from robnet_fx.algebra.symbols import Born, aligned, born, in_use, widened
from tests.soundness import draws

SHAPES = [(), (5,), (2, 3), (2, 3, 4), (2, 2, 3, 2)]
MANY = 2**40


def made(seed: int, batch: int, columns: int, shape: tuple[int, ...]) -> Symbolic:
    """A value with columns that matter more and less, and units of much, of little and of no slack."""
    r = draws(seed)
    slack = r(batch, *shape).abs() * (r(batch, *shape) > -0.5)
    matters = 10 ** r(batch, columns, *[1] * len(shape))
    return Symbolic(matters * r(batch, columns, *shape), r(batch, *shape), slack)


def at(x: Symbolic, t: Tensor, u: Tensor) -> Tensor:
    """The point of a value `[B, *S]` at variables `t [B, N]` and at `u [B, *S]` of its slack."""
    return (kernels.flat(x.coef, 2) * t.unsqueeze(2)).sum(1).reshape(x.const.shape) + x.const + x.slack * u


def new_symbols(x: Symbolic, after: Symbolic, sample: int) -> dict[int, int]:
    """Column -> unit of what was born for a sample, as the coefficients tell it."""
    was, now = (kernels.flat(value.coef, 2)[sample] for value in (x, after))
    changed = [column for column in range(len(now)) if column >= len(was) or not torch.equal(now[column], was[column])]
    units = {column: now[column].nonzero().flatten().tolist() for column in changed}
    assert all(len(unit) <= 1 for unit in units.values())  # the error of one unit, or room for other samples'
    return {column: unit[0] for column, unit in units.items() if unit}


def assert_held(x: Symbolic, live: tuple[Symbolic, ...], after: Born) -> None:
    """Every point of the values before, all units of all of them at once, is one of the values behind."""
    generator = torch.Generator().manual_seed(7)
    columns = max(value.coef.shape[1] for value in (*live, after.value))
    for _ in range(5):
        t, *us = (
            torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
            for shape in ((len(x.coef), columns), x.slack.shape, *(value.slack.shape for value in live))
        )
        behind = t.clone()
        for sample in range(len(t)):
            for column, unit in new_symbols(x, after.value, sample).items():
                behind[sample, column] = us[0][sample].flatten()[unit]
        for old, new, u in zip((x, *live), (after.value, *after.live), us, strict=True):
            off = at(old, t[:, : old.coef.shape[1]], u) - at(new, behind[:, : new.coef.shape[1]], 0 * u)
            assert bool((off.abs() <= new.slack + 1e-12).all())


BIRTHS = {
    "seed": st.integers(0, 10**6),
    "batch": st.integers(1, 4),
    "dimensions": st.integers(1, 3),
    "shape": st.sampled_from(SHAPES),
    "room": st.sampled_from([0, 1, 2, 3, 7, MANY]),
    "before": st.integers(0, 4),
}


@settings(max_examples=80, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(**BIRTHS)
def test_nothing_a_value_may_be_is_lost(seed, batch, dimensions, shape, room, before):
    """Some of the value's columns are symbols already; another value that is read later has some more of them."""
    x, y = made(seed, batch, dimensions + before, shape), made(seed + 1, batch, dimensions + before + 2, (3,))
    used = dimensions + before + torch.randint(0, 3, (batch,), generator=torch.Generator().manual_seed(seed))
    y.coef[torch.arange(y.coef.shape[1]).expand(batch, -1) >= used.unsqueeze(1)] = 0
    most = int(used.max()) + room
    after = born(x, used, most, dimensions, (y,))
    assert_held(x, (y,), after)
    for old, new in zip((x, y), (after.value, *after.live), strict=True):
        torch.testing.assert_close(tuple(concretise(new)), tuple(concretise(old)), rtol=1e-13, atol=1e-13)
        assert torch.equal(new.coef[:, :dimensions], old.coef[:, :dimensions])
    assert bool((after.used <= most).all()) and after.value.coef.shape[1] <= most
    for sample in range(batch):  # what is not counted as in use is free
        assert not any(value.coef[sample, int(after.used[sample]) :].any() for value in (after.value, *after.live))


@settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(**{name: of for name, of in BIRTHS.items() if name != "room"} | {"dimensions": st.integers(0, 3)})
def test_with_room_for_all_every_slack_is_a_symbol(seed, batch, dimensions, shape, before):
    x = made(seed, batch, dimensions + before, shape)
    used = x.coef.shape[1] + torch.randint(0, 3, (batch,), generator=torch.Generator().manual_seed(seed))
    after = born(x, used, MANY, dimensions)
    assert not after.value.slack.any()
    assert torch.equal(after.used - used, (kernels.flat(x.slack, 1) > 0).sum(1))
    assert torch.equal(after.value.coef[:, : x.coef.shape[1]], x.coef)
    assert after.value.coef.shape[1] == max(int(after.used.max()), x.coef.shape[1])
    for sample in range(batch):
        births = new_symbols(x, after.value, sample)
        assert sorted(births) == list(range(int(used[sample]), int(after.used[sample])))
        sizes = [float(x.slack[sample].flatten()[births[column]]) for column in sorted(births)]
        assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("most", [3, 4, 6, 40])
def test_while_it_is_traced_it_is_the_same_with_room_for_all(shape: tuple[int, ...], most: int):
    """The columns may be others."""
    x, y = made(1, 3, 3, shape), made(2, 3, 3, (4,))
    used = torch.tensor([3, 3, 3])
    eager = born(x, used, most, 2, (y,))
    with kernels.plain():
        traced = born(x, used, most, 2, (y,))
    assert traced.value.coef.shape[1] == most and traced.used.tolist() == [most] * 3
    assert_held(x, (y,), traced)
    for one, other in zip((eager.value, *eager.live), (traced.value, *traced.live), strict=True):
        columns = [kernels.flat(widened(value.coef, most), 2) for value in (one, other)]
        assert torch.equal(columns[0][:, :2], columns[1][:, :2])
        for sample in zip(*columns, strict=True):
            rows = [sorted(map(tuple, part[2:].tolist())) for part in sample]
            assert rows[0] == rows[1]
        torch.testing.assert_close(tuple(one[1:]), tuple(other[1:]), rtol=1e-15, atol=0)


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_a_slack_that_is_not_finite_stays(bad: float):
    x = made(2, 2, 3, (2, 4))
    x.slack[0, 1, 2] = x.slack[1, 0, 0] = x.slack[1, 1, 3] = bad
    after = born(x, in_use(x), MANY, 3)
    torch.testing.assert_close(after.value.slack, torch.where(x.slack.isfinite(), 0.0, x.slack), equal_nan=True)
    assert bool(after.value.coef.isfinite().all())
    assert after.used.tolist() == [3 + int((row[row.isfinite()] > 0).sum()) for row in x.slack]
    for ends in zip(concretise(after.value), concretise(x), strict=True):
        torch.testing.assert_close(*ends, equal_nan=True)


def test_a_value_that_is_nowhere_finite_has_no_symbols():
    x = made(3, 2, 3, (4,))
    x.slack.fill_(torch.inf)
    x.coef.fill_(torch.nan)
    after = born(x, in_use(x), 10, 3)
    assert torch.equal(after.value.slack, x.slack) and after.used.tolist() == [3, 3]
    assert after.value.coef.isnan().all()


def test_without_an_error_nothing_is_born():
    x = made(4, 3, 2, (2, 3))._replace(slack=torch.zeros(3, 2, 3, dtype=torch.float64))
    after = born(x, in_use(x), MANY, 2)
    assert all(map(torch.equal, after.value, x))
    assert after.used.tolist() == [2, 2, 2]


def test_values_that_meet_are_as_wide_as_the_widest():
    x, y, z = made(6, 2, 3, (2, 3)), made(7, 2, 5, (2, 3)), made(8, 2, 4, (2, 3))
    found = aligned(x, y, z)
    assert all(value.coef.shape == y.coef.shape for value in found)
    for before, after in zip((x, y, z), found, strict=True):
        assert torch.equal(after.coef[:, : before.coef.shape[1]], before.coef)
        assert not after.coef[:, before.coef.shape[1] :].any()
        assert after.const is before.const and after.slack is before.slack
    assert found[1].coef is y.coef


@pytest.mark.parametrize(
    "order", [torch.contiguous_format, torch.channels_last], ids=["channels first", "channels last"]
)
@pytest.mark.parametrize("most", [12, MANY])
def test_the_order_of_memory_is_kept(order: torch.memory_format, most: int):
    """Of what follows the columns, as the next convolution wants it."""

    def arranged(x: Symbolic) -> Symbolic:
        coef = x.coef.flatten(0, 1).contiguous(memory_format=order).unflatten(0, x.coef.shape[:2])
        return Symbolic(coef, *(part.contiguous(memory_format=order) for part in x[1:]))

    x, y = (arranged(made(seed, 2, 12, (2, 4, 5))) for seed in (8, 9))
    x, y = x._replace(coef=x.coef[:, :5]), y._replace(coef=y.coef / 1000)
    after = born(x, torch.tensor([12, 12]), most, 3, (y,))
    assert torch.equal(after.live[0].slack, y.slack) == (most == MANY)  # or else symbols have made way
    for value in (aligned(x, y)[0], after.value, after.live[0]):
        assert value.coef.flatten(0, 1).is_contiguous(memory_format=order)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2)])
@pytest.mark.parametrize(("most", "traced"), [(4, False), (6, False), (MANY, False), (4, True), (6, True)])
def test_births_have_the_right_derivative(shape: tuple[int, ...], most: int, traced: bool):
    x = made(10, 3, 3, shape)
    x = x._replace(slack=draws(14)(*x.slack.shape).abs() + 0.1)  # about 0, and where two are equal, births differ
    used = torch.tensor([3, 4, 4])

    def parts(coef: Tensor, const: Tensor, slack: Tensor) -> tuple[Tensor, ...]:
        with kernels.plain() if traced else torch.enable_grad():
            return (*born(Symbolic(coef, const, slack), used, most, 3).value,)

    assert gradcheck(parts, [part.clone().requires_grad_() for part in x])


def test_widening_has_the_right_derivative():
    coef = made(11, 2, 3, (2, 2, 3)).coef.requires_grad_()
    assert gradcheck(lambda x: aligned(Symbolic(x, x[:, 0], x[:, 0]), made(12, 2, 5, (2, 2, 3)))[0].coef, [coef])


def test_no_gradient_is_lost_to_a_slack_that_is_not_finite():
    x = made(13, 2, 3, (4,))
    x.slack[0, 1] = torch.inf
    inputs = [part.requires_grad_() for part in x]
    after = born(x, in_use(x), MANY, 3)
    after.value.coef.square().sum().backward()
    assert all(part.grad is None or bool(part.grad.isfinite().all()) for part in inputs)
