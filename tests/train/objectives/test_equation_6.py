import pytest
import torch

from robnet_fx.train.objectives import robust_loss

INF = torch.inf


def test_equation_6_by_hand():
    margins = torch.tensor([[-INF, 1.0, -2.0], [3.0, -INF, 0.5], [-1.0, -0.1, -INF]])
    assert robust_loss(margins).item() == pytest.approx((1.0 + 3.5 + 0.0) / 3)
    assert robust_loss(margins, torch.tensor([True, False, True])).item() == pytest.approx(1.0 / 3)
    assert robust_loss(margins[:1], batch=8).item() == pytest.approx(1.0 / 8)
    assert robust_loss(margins[:0], batch=8).item() == 0


def test_the_labels_column_and_a_certified_sample_have_finite_zero_gradients():
    upper = torch.tensor([[1.0, -2.0], [-1.0, -3.0]], requires_grad=True)
    margins = upper.new_full((2, 3), -INF).scatter(1, torch.tensor([[1, 2], [0, 2]]), upper)
    robust_loss(margins).backward()
    assert upper.grad.tolist() == [[0.5, 0.0], [0.0, 0.0]]


def test_a_sample_that_is_not_counted_adds_nothing_not_even_its_nan():
    upper = torch.tensor([[1.0, 2.0], [torch.nan, INF]], requires_grad=True)
    robust_loss(upper, torch.tensor([True, False])).backward()
    assert upper.grad.tolist() == [[0.5, 0.5], [0.0, 0.0]]


def test_nan_bounds_are_not_hidden():
    assert robust_loss(torch.tensor([[torch.nan, 1.0]])).isnan()
