import pytest
import torch

from robnet_fx.machine import ranks
from robnet_fx.train.figures import Figures, over_ranks, read


def some():
    losses = {"standard": torch.tensor(0.5), "robust": torch.tensor(1.5), "beside": torch.tensor(7.0)}
    weights = {"standard": 1.0, "robust": 2.0, "beside": 0.0}
    counts = {"clean": torch.tensor(4), "certified": torch.tensor(1)}
    return Figures(losses, weights, counts, torch.tensor([True, False]))


def parameters():
    made = [torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)]
    made[0].grad = torch.tensor([3.0, 4.0])
    return made


def test_reading_them():
    numbers = read(some(), 8, parameters())
    assert numbers.loss == 0.5 + 2 * 1.5
    assert numbers.sums == {"standard": 4.0, "robust": 12.0, "beside": 56.0, "clean": 4.0, "certified": 1.0}
    assert numbers.shares == {"clean": 0.5, "certified": 0.125}
    assert numbers.norm == 5.0


def test_a_loss_that_is_no_number_makes_their_sum_none():
    figures = some()
    figures.losses["beside"] = torch.tensor(torch.nan)
    assert read(figures, 8, parameters()).loss != read(figures, 8, parameters()).loss


def test_one_process_has_them_already():
    weights = parameters()
    figures = over_ranks(some(), slice(0, 2), 2, weights)
    assert (figures.losses, figures.counts, figures.weights) == (some().losses, some().counts, some().weights)
    assert figures.active.tolist() == [True, False]
    assert [p.grad.tolist() for p in weights] == [[3.0, 4.0], [0.0]]


def test_ranks_add_up(monkeypatch):
    """A second rank with the same figures: they are summed, and each rank's samples lie in its own part."""
    message = []

    def total(tensors):
        message.extend(tensors)
        return [2 * tensor if tensor.dtype != torch.bool else tensor for tensor in tensors]

    monkeypatch.setattr(ranks, "total", total)
    weights = parameters()
    figures = over_ranks(some(), slice(1, 3), 4, weights)
    assert {name: float(value) for name, value in figures.losses.items()} == pytest.approx(
        {"standard": 1, "robust": 3, "beside": 14}
    )
    assert {name: int(value) for name, value in figures.counts.items()} == {"clean": 8, "certified": 2}
    assert figures.active.tolist() == [False, True, False, False]
    assert [p.grad.tolist() for p in weights] == [[6.0, 8.0], [0.0]]
    assert len(message) == 3 + 2 + 1 + 2
