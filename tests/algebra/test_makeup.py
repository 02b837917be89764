"""What a width is made of, on numbers that can be added up by hand."""

from __future__ import annotations

import torch

from robnet_fx.algebra import makeup
from robnet_fx.algebra.domains import Symbolic

VALUE = Symbolic(  # one coefficient, and three symbols of which one is 0
    torch.tensor([[[1.0, -2.0], [-3.0, 0.5], [0.0, 0.0], [0.0, -4.0]]]),
    torch.tensor([[7.0, 8.0]]),
    torch.tensor([[0.25, 0.0]]),
)


def test_a_width_is_coefficients_and_symbols_and_slack():
    made = makeup.makeup(VALUE, 1)
    assert made.coefficients.tolist() == [[1, 2]] and made.symbols.tolist() == [[3, 4.5]]
    assert made.slack is VALUE.slack and made.kept.tolist() == [2]


def test_columns_count_whatever_their_signs_are():
    assert makeup.columns(VALUE).tolist() == [[3, 3.5, 0, 4]]


def test_born_are_the_columns_that_are_new():
    before = VALUE._replace(coef=VALUE.coef[:, :3])
    assert makeup.born(before, VALUE).tolist() == [[False, False, False, True]]
