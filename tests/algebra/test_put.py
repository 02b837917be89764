"""Symbols put into coefficients: against the operation it saves a pass of, with derivatives, in any order of memory."""

import pytest
import torch
from torch.autograd import gradcheck

from robnet_fx.algebra import symbols
from robnet_fx.algebra.domains import Symbolic

B, N, S, COLUMNS = 3, 4, (2, 5, 3), 7


def channels_last(x):
    return x.movedim(2, -1).contiguous().movedim(-1, 2)


def arguments(columns=COLUMNS):
    torch.manual_seed(0)
    place = torch.randint(0, columns, (B, 6))
    unit = torch.randint(0, 30, (B, 6))
    place[0, 0], unit[0, 0] = place[0, 1], unit[0, 1]  # twice at one place
    return place, unit, torch.rand(B, 6, dtype=torch.float64)


@pytest.mark.parametrize("columns", [N, COLUMNS])
@pytest.mark.parametrize("arrange", [lambda x: x, channels_last], ids=["contiguous", "channels last"])
def test_what_is_put_is_added_at_its_place(arrange, columns):
    place, unit, size = arguments(columns)
    coef = arrange(torch.randn(B, N, *S, dtype=torch.float64)).requires_grad_(True)
    size.requires_grad_(True)
    made = symbols.put(coef, columns, place, unit, size)
    expected = torch.cat([coef, torch.zeros(B, columns - N, *S, dtype=torch.float64)], 1).flatten(2).detach().clone()
    for b in range(B):
        for p, u, s in zip(place[b], unit[b], size[b], strict=True):
            expected[b, p, u] += s.detach()
    assert torch.equal(made.flatten(2), expected)
    if arrange is channels_last:
        assert made.stride() == channels_last(torch.empty_like(made)).stride()
    weight = torch.randn_like(made)
    over_coef, over_size = torch.autograd.grad((made * weight).sum(), (coef, size))
    assert torch.equal(over_coef, weight[:, :N])
    assert torch.equal(over_size, weight.flatten(2)[torch.arange(B)[:, None], place, unit])


def test_derivatives_by_differences():
    place, unit, size = arguments()
    coef = torch.randn(B, N, *S, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda c, s: symbols.put(c, COLUMNS, place, unit, s), [coef, size.requires_grad_(True)])


def test_what_went_in_stays_as_it_is():
    coef = torch.randn(B, N, *S, dtype=torch.float64)
    for columns in (N, COLUMNS):
        before = coef.clone()
        symbols.put(coef, columns, *arguments(columns))
        assert torch.equal(coef, before)


def test_a_number_of_a_sample():
    made = symbols.put(
        torch.ones(2, 1), 3, torch.tensor([[1], [2]]), torch.tensor([[0], [0]]), torch.tensor([[4.0], [5.0]])
    )
    assert made.tolist() == [[1, 4, 0], [1, 0, 5]]


def test_where_nothing_is_born_nothing_is_copied():
    x = Symbolic(torch.randn(2, 3, 4), torch.randn(2, 4), torch.zeros(2, 4))
    made, used = symbols.born(x, torch.tensor([3, 3]), 10)
    assert made.coef.data_ptr() == x.coef.data_ptr()
    full = Symbolic(x.coef, x.const, torch.ones(2, 4))
    made, used = symbols.born(full, torch.tensor([3, 3]), 3)
    assert made.coef.data_ptr() == x.coef.data_ptr()
    assert torch.equal(made.slack, full.slack)
    assert used.tolist() == [3, 3]


def test_a_value_of_an_earlier_branch_is_as_wide_as_what_is_in_use():
    """It counts as the latest, and what it meets is filled up to its columns."""
    x = Symbolic(torch.randn(2, 3, 4), torch.randn(2, 4), torch.zeros(2, 4))
    made, used = symbols.born(x, torch.tensor([5, 6]), 10)
    assert made.coef.shape == (2, 6, 4)
    assert used.tolist() == [5, 6]
