"""Where columns run out: symbols that make way for larger errors become slack in every value that is read later."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from robnet_fx.algebra import kernels
from robnet_fx.algebra.domains import Symbolic, add_symbolic, concretise
from robnet_fx.algebra.symbols import aligned, born

SHAPES = [(), (5,), (2, 3), (2, 2, 2)]


def made(seed: int, columns: int, shape: tuple[int, ...], scale: float = 1.0) -> Symbolic:
    generator = torch.Generator().manual_seed(seed)

    def r(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    return Symbolic(scale * r(3, columns, *shape), r(3, *shape), r(3, *shape).abs() + 0.01)


def lost(before: Symbolic, after: Symbolic) -> tuple[Tensor, Tensor]:
    """What is taken from old columns, and added to slack."""
    columns = before.coef.shape[1]
    return before.coef - after.coef[:, :columns], after.slack - before.slack


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("traced", [False, True])
def test_what_makes_way_is_slack_in_all_values(shape: tuple[int, ...], traced: bool):
    """Of 2 coefficients and 4 symbols in 6 columns the small ones go, each from both values, and no error is lost."""
    scale = torch.tensor([1e-9, 1e-9, 1e-3, 2.0, 1e-2, 9.0], dtype=torch.float64).reshape(-1, *[1] * len(shape))
    x, y = made(1, 6, shape), made(2, 6, (4,))
    x, y = x._replace(coef=x.coef * scale), y._replace(coef=y.coef * scale.reshape(-1, 1))
    with kernels.plain() if traced else torch.enable_grad():
        after = born(x, torch.tensor([6, 6, 6]), 6, 2, (y,))
    (z,) = after.live
    assert after.used.tolist() == [6, 6, 6] and after.value.coef.shape == x.coef.shape
    assert torch.equal(after.value.coef[:, :2], x.coef[:, :2]) and torch.equal(z.coef[:, :2], y.coef[:, :2])
    for sample in range(3):
        slack = x.slack[sample].flatten()
        changed = (after.value.coef != x.coef)[sample].reshape(6, -1).any(1).nonzero().flatten().tolist()
        assert changed and 2 in changed
        rest = slack.clone()
        for column in changed:
            (unit,) = after.value.coef[sample, column].flatten().nonzero().flatten()
            assert after.value.coef[sample, column].flatten()[unit] == slack[unit]
            assert slack[unit] > x.coef[sample, column].abs().sum() + y.coef[sample, column].abs().sum()
            rest[unit] = 0
        rest += x.coef[sample, changed].abs().sum(0).flatten()
        torch.testing.assert_close(after.value.slack[sample].flatten(), rest, rtol=1e-12, atol=0)
        assert not z.coef[sample, changed].any()
        torch.testing.assert_close(z.slack[sample], y.slack[sample] + y.coef[sample, changed].abs().sum(0))
    for before, behind in ((x, after.value), (y, z)):  # no interval changes
        torch.testing.assert_close(tuple(concretise(behind)), tuple(concretise(before)))


def test_values_that_meet_again_hold_what_they_held():
    """x - y of two values that share symbols: exchanged in between, its interval holds the one of before."""
    x, y = made(3, 7, (5,)), made(4, 5, (5,), scale=0.1)
    exact = add_symbolic(*aligned(x, Symbolic(-y.coef, -y.const, y.slack)))
    after = born(x, torch.tensor([7, 7, 7]), 7, 1, (y,))
    (z,) = after.live
    both = concretise(add_symbolic(*aligned(after.value, Symbolic(-z.coef, -z.const, z.slack))))
    narrow = concretise(exact)
    assert bool((after.value.coef[:, :7] != x.coef).any())
    assert bool((both.lower <= narrow.lower + 1e-12).all() and (both.upper >= narrow.upper - 1e-12).all())


def test_a_sample_is_what_it_is_alone():
    """One has room and the others have none: the set is the same, whatever the columns are."""
    x, y = made(5, 6, (4,)), made(6, 6, (4,))
    for value in (x, y):
        value.coef[1, 2:] = 0
    x.slack[1, 1:] = 0
    used = torch.tensor([6, 2, 6])
    together = born(x, used, 6, 2, (y,))
    for sample in range(3):
        part = [Symbolic(*(tensor[sample : sample + 1] for tensor in value)) for value in (x, y)]
        alone = born(part[0], used[sample : sample + 1], 6, 2, (part[1],))
        for one, all_ in ((alone.value, together.value), (alone.live[0], together.live[0])):
            torch.testing.assert_close(one.slack[0], all_.slack[sample])
            columns = [value.abs().sum(1).sort().values for value in (one.coef[0], all_.coef[sample])]
            filled = torch.zeros_like(columns[1])
            filled[len(filled) - len(columns[0]) :] = columns[0]
            torch.testing.assert_close(filled, columns[1])


def test_a_column_that_no_value_needs_is_free():
    x, y = made(7, 5, (3,), scale=9.0), made(8, 3, (3,))
    x.coef[:, 3] = 0
    after = born(x, torch.tensor([5, 5, 5]), 5, 1, (y,))
    largest = x.slack.max(1)
    assert torch.equal(after.value.coef[torch.arange(3), 3, largest.indices], largest.values)
    assert torch.equal(after.live[0].coef, y.coef) and after.live[0].slack.equal(y.slack)


def test_what_is_in_use_stays_where_memory_holds_less_by_now():
    """With fewer columns allowed than a sample uses already, none is dropped, for that would lose its error."""
    x, y = made(12, 6, (4,)), made(13, 6, (3,))
    after = born(x, torch.tensor([6, 2, 4]), 3, 2, (y,))
    for before, behind in ((x, after.value), (y, after.live[0])):
        assert behind.coef.shape == before.coef.shape
        torch.testing.assert_close(tuple(concretise(behind)), tuple(concretise(before)))


def test_infinite_columns_and_errors_stay():
    x = made(9, 4, (3,), scale=1e-3)
    x.coef[0, 2, 1], x.slack[1, 2], x.coef[2, 3] = torch.inf, torch.inf, torch.nan
    after = born(x, torch.tensor([4, 4, 4]), 4, 1)
    assert after.value.coef[0, 2, 1] == torch.inf and after.value.slack[1, 2] == torch.inf
    assert bool(after.value.coef[2, 3].isnan().all()) and bool(after.value.slack[0].isfinite().all())


@pytest.mark.parametrize("traced", [False, True])
def test_exchanges_have_the_right_derivative(traced: bool):
    x, y = made(10, 5, (4,)), made(11, 5, (2,))

    def parts(*tensors: Tensor) -> tuple[Tensor, ...]:
        with kernels.plain() if traced else torch.enable_grad():
            after = born(Symbolic(*tensors[:3]), torch.tensor([5, 5, 5]), 5, 2, (Symbolic(*tensors[3:]),))
        return (*after.value, *after.live[0])

    assert gradcheck(parts, [tensor.requires_grad_() for tensor in (*x, *y)])
