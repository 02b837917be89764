"""The exact tests of guessing and of which is better, against all the ways that things can fall."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from robnet_fx.opening.chance import LEVEL, best_by_guessing, by_guessing, by_luck


def dealt(predicted: list[int], labels: list[int]) -> float:
    """The probability itself, by dealing out the answers in every order."""
    right = sum(map(int.__eq__, predicted, labels))
    orders = list(itertools.permutations(predicted))
    return sum(sum(map(int.__eq__, order, labels)) >= right for order in orders) / len(orders)


@pytest.mark.parametrize(
    ("predicted", "labels"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1]),
        ([0, 1, 1, 0], [0, 0, 1, 1]),
        ([0, 0, 0, 0, 0], [0, 1, 0, 0, 1]),
        ([0, 1, 2, 0, 1, 2, 0], [0, 1, 2, 0, 1, 2, 1]),
        ([3, 2, 1, 0], [0, 1, 2, 3]),
        ([0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1]),
        ([5, 5, 7], [0, 1, 2]),
    ],
)
def test_it_is_never_below_the_probability_itself(predicted, labels):
    bound, true = by_guessing(torch.tensor(predicted), torch.tensor(labels)), dealt(predicted, labels)
    assert true - 1e-12 <= bound <= 1
    if predicted == labels:
        assert bound == pytest.approx(true)


def uneven(rare: int, count: int) -> Tensor:
    return (torch.arange(count) < rare).long()


def test_it_has_power_whatever_the_balance_and_says_where_it_has_none():
    labels = torch.arange(1000)
    seldom = labels.clone()
    seldom[50:] = torch.randint(0, 1000, (950,))
    assert by_guessing(seldom, labels) < LEVEL  # 5 % of a thousand classes
    for labels in (uneven(10, 1000), uneven(5, 100), torch.arange(40) % 4):
        assert best_by_guessing(labels) < LEVEL
    for labels in (torch.zeros(500).long(), torch.tensor([0, 1, 0, 1]), uneven(1, 500), torch.tensor([3])):
        assert best_by_guessing(labels) >= LEVEL


def test_always_the_same_answer_is_a_guess_however_frequent():
    assert by_guessing(torch.zeros(1000).long(), uneven(10, 1000)) == 1


def test_guesses_are_seldom_taken_for_knowledge():
    taken = [by_guessing(torch.randint(0, 3, (60,)), torch.randint(0, 3, (60,))) < 0.05 for _ in range(200)]
    assert sum(taken) <= 20
    assert any(
        by_guessing(torch.arange(60) % 3, (torch.arange(60) + (torch.rand(60) < 0.3)) % 3) < 0.05 for _ in range(3)
    )


def test_which_is_better_is_a_sign_test():
    a, b = torch.tensor([True] * 12 + [False] * 2), torch.tensor([False] * 10 + [True] * 4)
    assert by_luck(a, b) == pytest.approx(sum(math.comb(12, k) for k in (10, 11, 12)) / 2**12)
    assert by_luck(a, a) == 1
    assert by_luck(b, a) > 0.9
