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
from robnet_fx.algebra.symbols import Born, born, in_use, padded, widened
from tests.soundness import draws

SHAPES = [(), (5,), (2, 3), (2, 3, 4), (2, 2, 3, 2)]
MANY = 2**40


def made(seed: int, batch: int, dimensions: int, shape: tuple[int, ...]) -> Symbolic:
    """A value with units of much, of little and of no slack."""
    r = draws(seed)
    slack = r(batch, *shape).abs() * (r(batch, *shape) > -0.5)
    return Symbolic(r(batch, dimensions, *shape), r(batch, *shape), slack)


def at(x: Symbolic, t: Tensor, u: Tensor) -> Tensor:
    """The point of a value `[B, *S]` at variables `t [B, N]` and at `u [B, *S]` of its slack."""
    return (kernels.flat(x.coef, 2) * t.unsqueeze(2)).sum(1).reshape(x.const.shape) + x.const + x.slack * u


def symbols_at(x: Symbolic, after: Born, used: Tensor, u: Tensor) -> Tensor:
    """`[B, N]`: what the columns of the value behind are where the slack of the one before is at `u`."""
    new = kernels.flat(after.value.coef, 2).clone()
    new[:, : x.coef.shape[1]] -= kernels.flat(x.coef, 2)
    t = torch.zeros(new.shape[:2], dtype=new.dtype)
    for sample in range(len(t)):
        for column in range(int(used[sample]), int(after.used[sample])):
            (unit,) = new[sample, column].nonzero().flatten()
            t[sample, column] = u[sample].flatten()[unit]
    return t


def assert_same_set(x: Symbolic, used: Tensor, after: Born) -> None:
    """Every point of the value before, all its units at once, is one of the value behind."""
    generator = torch.Generator().manual_seed(7)
    for _ in range(5):
        t = torch.rand(x.coef.shape[:2], generator=generator, dtype=torch.float64) * 2 - 1
        u = torch.rand(x.slack.shape, generator=generator, dtype=torch.float64) * 2 - 1
        behind = symbols_at(x, after, used, u)
        behind[:, : t.shape[1]] += t
        torch.testing.assert_close(at(after.value, behind, u), at(x, t, u), rtol=0, atol=1e-13)


@settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 4),
    dimensions=st.integers(0, 3),
    shape=st.sampled_from(SHAPES),
    room=st.sampled_from([0, 1, 2, 3, 7, MANY]),
    before=st.integers(0, 3),
)
def test_what_was_slack_is_symbols(seed, batch, dimensions, shape, room, before):
    """Some of the value's columns are symbols already, and other values have some that it has not."""
    x = made(seed, batch, dimensions + before, shape)
    taken = torch.randint(0, before + 3, (batch,), generator=torch.Generator().manual_seed(seed))
    used = x.coef.shape[1] + taken
    most = int(used.max()) + room
    after = born(x, used, most)
    assert_same_set(x, used, after)
    torch.testing.assert_close(tuple(concretise(after.value)), tuple(concretise(x)), rtol=1e-14, atol=1e-14)
    slack, left = (kernels.flat(value.slack, 1) for value in (x, after.value))
    assert torch.equal(after.used - used, torch.minimum((slack > 0).sum(1), most - used))
    assert bool((after.used <= most).all())
    gone = left != slack
    assert torch.equal(gone.sum(1), after.used - used) and bool((left[gone] == 0).all())
    for sample in range(batch):  # the largest become symbols
        assert min(slack[sample][gone[sample]], default=torch.inf) >= max(left[sample], default=0)
    width = after.value.coef.shape[1]
    assert width == max(int(after.used.max()), x.coef.shape[1])
    for sample in range(batch):  # nothing in the columns that others have taken, nor in those nobody has
        assert not after.value.coef[sample, int(after.used[sample]) :].any()
        assert not after.value.coef[sample, x.coef.shape[1] : int(used[sample])].any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("most", [3, 4, 6, 40])
def test_while_it_is_traced_it_is_the_same_with_room_for_all(shape: tuple[int, ...], most: int):
    x = made(1, 3, 3, shape)
    used = torch.tensor([3, 4, 3]).clamp(max=most)
    eager = born(x, used, most)
    with kernels.plain():
        traced = born(x, used, most)
    assert traced.value.coef.shape[1] == most
    assert torch.equal(traced.value.coef, widened(eager.value.coef, most))
    assert torch.equal(traced.used, eager.used)
    assert all(map(torch.equal, traced.value[1:], eager.value[1:]))


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_a_slack_that_is_not_finite_stays(bad: float):
    x = made(2, 2, 3, (2, 4))
    x.slack[0, 1, 2] = x.slack[1, 0, 0] = x.slack[1, 1, 3] = bad
    after = born(x, in_use(x), MANY)
    torch.testing.assert_close(after.value.slack, torch.where(x.slack.isfinite(), 0.0, x.slack), equal_nan=True)
    assert bool(after.value.coef.isfinite().all())
    assert after.used.tolist() == [3 + int((row[row.isfinite()] > 0).sum()) for row in x.slack]
    for ends in zip(concretise(after.value), concretise(x), strict=True):
        torch.testing.assert_close(*ends, equal_nan=True)


def test_a_value_that_is_nowhere_finite_has_no_symbols():
    x = made(3, 2, 3, (4,))
    x.slack.fill_(torch.inf)
    x.coef.fill_(torch.nan)
    after = born(x, in_use(x), 10)
    assert torch.equal(after.value.slack, x.slack) and after.used.tolist() == [3, 3]
    assert after.value.coef.isnan().all()


def test_without_an_error_nothing_is_born():
    x = made(4, 3, 2, (2, 3))._replace(slack=torch.zeros(3, 2, 3, dtype=torch.float64))
    after = born(x, in_use(x), MANY)
    assert all(map(torch.equal, after.value, x))
    assert after.used.tolist() == [2, 2, 2]


def test_a_sample_is_not_kept_back_by_its_neighbour():
    """One has used all it may, the other nothing: each is what it is alone."""
    x = made(5, 3, 2, (2, 3))
    used, most = torch.tensor([6, 2, 4]), 6
    together = born(x, used, most)
    assert together.used.tolist()[0] == 6 and torch.equal(together.value.slack[0], x.slack[0])
    for sample in range(3):
        alone = born(Symbolic(*(part[sample : sample + 1] for part in x)), used[sample : sample + 1], most)
        width = together.value.coef.shape[1]
        assert torch.equal(widened(alone.value.coef, width)[0], together.value.coef[sample])
        assert torch.equal(alone.value.slack[0], together.value.slack[sample])
        assert alone.used.tolist() == [together.used.tolist()[sample]]


def test_a_value_is_as_wide_as_what_it_meets():
    x, y = made(6, 2, 3, (2, 3)), made(7, 2, 5, (2, 3))
    wide = padded(x, y)
    assert wide.coef.shape == y.coef.shape
    assert torch.equal(wide.coef[:, :3], x.coef) and not wide.coef[:, 3:].any()
    assert wide.const is x.const and wide.slack is x.slack
    assert padded(x, x).coef is x.coef


@pytest.mark.parametrize(
    "order", [torch.contiguous_format, torch.channels_last], ids=["channels first", "channels last"]
)
@pytest.mark.parametrize("traced", [False, True])
def test_the_order_of_memory_is_kept(order: torch.memory_format, traced: bool):
    """Of what follows the columns, as the next convolution wants it."""
    x = made(8, 2, 3, (2, 4, 5))
    coef, slack = x.coef.flatten(0, 1).contiguous(memory_format=order).unflatten(0, (2, 3)), x.slack
    x = Symbolic(coef, x.const, slack.contiguous(memory_format=order))
    expected = kernels.as_stored(x.coef)
    wide = padded(x, made(9, 2, 7, (2, 4, 5)))
    with kernels.plain() if traced else torch.enable_grad():
        after = born(x, in_use(x), 12)
    for value in (wide, after.value):
        assert kernels.as_stored(value.coef) == expected
        assert value.coef.flatten(0, 1).is_contiguous(memory_format=order)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2)])
@pytest.mark.parametrize(("most", "traced"), [(4, False), (6, False), (MANY, False), (4, True), (6, True)])
def test_births_have_the_right_derivative(shape: tuple[int, ...], most: int, traced: bool):
    x = made(10, 3, 3, shape)
    x = x._replace(slack=draws(14)(*x.slack.shape).abs() + 0.1)  # about 0, and where two are equal, births differ
    used = torch.tensor([3, 4, 4])

    def parts(coef: Tensor, const: Tensor, slack: Tensor) -> tuple[Tensor, ...]:
        with kernels.plain() if traced else torch.enable_grad():
            return (*born(Symbolic(coef, const, slack), used, most).value,)

    assert gradcheck(parts, [part.clone().requires_grad_() for part in x])


def test_widening_has_the_right_derivative():
    coef = made(11, 2, 3, (2, 2, 3)).coef.requires_grad_()
    assert gradcheck(lambda x: padded(Symbolic(x, x[:, 0], x[:, 0]), made(12, 2, 5, (2, 2, 3))).coef, [coef])


def test_no_gradient_is_lost_to_a_slack_that_is_not_finite():
    x = made(13, 2, 3, (4,))
    x.slack[0, 1] = torch.inf
    inputs = [part.requires_grad_() for part in x]
    after = born(x, in_use(x), MANY)
    after.value.coef.square().sum().backward()
    assert all(part.grad is None or bool(part.grad.isfinite().all()) for part in inputs)
