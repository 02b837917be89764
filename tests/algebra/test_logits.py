import torch

from robnet_fx.algebra.logits import correct, worst_margin


def test_ties_are_wrong():
    logits = torch.tensor([[2.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    assert correct(logits, torch.tensor([0, 0, 0, 2])).tolist() == [True, False, False, False]


def test_nan_is_wrong_wherever_it_stands():
    logits = torch.tensor([[torch.nan, 1.0], [1.0, torch.nan]])
    assert correct(logits, torch.tensor([0, 0])).tolist() == [False, False]


def test_worst_margin_is_the_best_rival():
    logits = torch.tensor([[1.0, 4.0, 2.0]])
    assert worst_margin(logits, torch.tensor([1])).tolist() == [-2.0]
    assert worst_margin(logits, torch.tensor([0])).tolist() == [3.0]
