"""What is asked of logits: a union of intersections of half-spaces."""

from __future__ import annotations

import pytest
import torch

from robnet_fx.algebra.logits import worst_margin
from robnet_fx.verify.question import Question, classification

ROWS = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
GROUPS = torch.tensor([0, 1, 0, 2, 1])


def asked(strict: bool = False) -> Question:
    offset = torch.linspace(-1, 1, 15, dtype=torch.float64).view(3, 5)
    return Question(ROWS, offset, GROUPS, torch.full((5,), strict))


def by_hand(question: Question, logits: torch.Tensor) -> list[bool]:
    """The definition, number by number."""
    found = []
    for rows, offset, y in zip(question.rows.tolist(), question.offset.tolist(), logits.tolist(), strict=True):
        values = [sum(r * v for r, v in zip(row, y, strict=True)) + o for row, o in zip(rows, offset, strict=True)]
        met = dict.fromkeys(question.group.tolist(), True)
        for value, group, strict in zip(values, question.group.tolist(), question.strict.tolist(), strict=True):
            met[group] &= value > 0 if strict else value >= 0
        found.append(any(met.values()))
    return found


@pytest.mark.parametrize("strict", [False, True])
def test_met_is_some_group_with_all_of_its_rows(strict):
    question, seen = asked(strict), set()
    for seed in range(40):
        logits = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        values = question.values(logits)
        met = question.met(values)
        assert met.tolist() == by_hand(question, logits) == (question.worst(values) >= 0).tolist()
        seen |= set(met.tolist())
    assert seen == {False, True}


def test_the_border_is_met_unless_it_is_strict():
    rows = torch.tensor([[[1.0, -1.0], [-1.0, 1.0]]])
    at_border = torch.ones(1, 2)
    for strict, met in (([False, False], True), ([True, False], False), ([False, True], False)):
        question = Question(rows, torch.zeros(1, 2), torch.zeros(2, dtype=torch.long), torch.tensor(strict))
        assert question.met(question.values(at_border)).tolist() == [met]
        assert float(question.worst(question.values(at_border))) == 0  # a proof must leave it out all the same


def test_not_a_number_is_neither_met_nor_excluded():
    question = asked()
    values = question.values(torch.zeros(3, 4, dtype=torch.float64)) - 10
    values[1, 2] = torch.nan
    assert question.worst(values).isnan().tolist() == [False, True, False]
    assert not question.met(values).any()


def test_classification_is_the_worst_margin():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    question = classification(labels, 4, torch.float32)
    torch.testing.assert_close(question.worst(question.values(logits)), worst_margin(logits, labels))
    some = torch.tensor([4, 1])
    part = question[some]
    torch.testing.assert_close(part.worst(part.values(logits[some])), worst_margin(logits[some], labels[some]))
    assert question.to(torch.zeros(1, dtype=torch.float64)).rows.dtype == torch.float64
