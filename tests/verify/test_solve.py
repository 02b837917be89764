"""Cases decided in the time there is: how it is shared, what settles a property, and what is never called violated."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robnet_fx import InputBox, Problem
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.verify import solve as module
from robnet_fx.verify.decision import Decision
from robnet_fx.verify.property import Case
from robnet_fx.verify.question import Question
from robnet_fx.verify.search import Limits
from robnet_fx.verify.solve import Counterexample, solve
from tests.bounds.test_bounds import canonical, dense_net


def case(first: float, rows: int = 1) -> Case:
    """The inputs of `dense_net` about a first number, and a question of so many alternatives."""
    lower = torch.full((5,), -1.0, dtype=torch.float64)
    upper = torch.ones(5, dtype=torch.float64)
    lower[0], upper[0], lower[4] = first, first + 1, 1.0
    weights = torch.ones(1, rows, 3, dtype=torch.float64)
    flags = torch.zeros(rows, dtype=torch.bool)
    question = Question(weights, torch.full((1, rows), first, dtype=torch.float64), torch.arange(rows), flags)
    return Case(lower, upper, torch.zeros(2, 5, dtype=torch.bool), question)


def net(cases) -> BoundedModel:
    lower = torch.stack([c.lower for c in cases]).amin(0)
    upper = torch.stack([c.upper for c in cases]).amax(0)
    return BoundedModel(canonical(dense_net), Problem(InputBox(lower.tolist(), upper.tolist()), None))


class Engine:
    """Stands for `decide`: answers by the first number of the inputs, remembers what it was asked, and takes time."""

    def __init__(self, answers: dict[float, list[str]], clock: list[float], seconds: float = 0.0) -> None:
        self.answers, self.clock, self.seconds, self.asked = answers, clock, seconds, []

    def __call__(self, net, images: Tensor, question: Question, *, limits: Limits, box, progress) -> list[Decision]:
        assert images.dtype == box.radius.dtype == torch.float64 and len(box.radius) == len(images)
        assert not box.center.any() and len(question.rows) == len(question.offset) == len(images)
        firsts = (question.offset[:, 0]).tolist()
        torch.testing.assert_close(images[:, 0, 0] - 0.5, question.offset[:, 0])
        self.asked.append((firsts, limits))
        self.clock[0] += self.seconds
        found = []
        for first, point in zip(firsts, -box.radius / 2, strict=True):
            answer = self.answers[first].pop(0)
            shown = point if answer == "falsified" else None
            found.append(Decision(answer, "tired", 1, 0.0, 0.0, shown, 0.25, (), False))
        return found


@pytest.fixture
def asked(monkeypatch):
    """`asked(answers, limits, ...)`: what `solve` makes of them, and the engine that gave them."""

    def run(answers, limits, *, seconds=0.0, rows=None, confirm=None):
        clock = [0.0]
        engine = Engine({k: [v] if isinstance(v, str) else v for k, v in answers.items()}, clock, seconds)
        monkeypatch.setattr(module, "decide", engine)
        monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
        cases = [case(first, (rows or {}).get(first, 1)) for first in answers]
        confirm = confirm or (lambda number, inputs: Counterexample(inputs, torch.zeros(3)))
        return solve(net(cases), cases, confirm, limits=limits), engine

    return run


def test_one_case_has_all_the_time(asked):
    solved, engine = asked({0.0: "certified"}, Limits(60, 9))
    assert solved.answer == "holds" and engine.asked == [([0.0], Limits(60, 9))]
    assert solved.counterexample is None and solved.reasons == ()


def test_several_cases_are_looked_at_and_then_worked_through(asked):
    """A tenth of the time first; then each open one has its part of what is left."""
    answers = {0.0: ["unknown", "certified"], 1.0: "certified", 2.0: ["unknown", "certified"]}
    solved, engine = asked(answers, Limits(60, None), seconds=6)
    assert solved.answer == "holds" and solved.seconds == 30
    expected = [(0.0, 2), (1.0, 2.7), (2.0, 4.8), (0.0, 21), (2.0, 36)]
    assert [(*firsts, pytest.approx(limits.seconds)) for firsts, limits in engine.asked] == expected


def test_cases_with_little_time_are_decided_together(asked):
    """And without a first look, which would see nothing."""
    solved, engine = asked(dict.fromkeys(map(float, range(100)), "certified"), Limits(60, None), seconds=30)
    assert solved.answer == "holds"
    shares = [(len(firsts), limits.seconds) for firsts, limits in engine.asked]
    assert shares == [(64, 0.6), (36, pytest.approx(30 / 36))]


def test_without_a_clock_there_is_one_look(asked):
    solved, engine = asked({0.0: "unknown", 1.0: "certified"}, Limits(None, 7))
    assert (solved.answer, solved.reasons) == ("unknown", ("case 0: tired, 25.0% of the box proved",))
    assert engine.asked == [([0.0, 1.0], Limits(None, 7))]


def test_cases_with_other_groups_of_conditions_are_asked_apart(asked):
    _, engine = asked(dict.fromkeys((0.0, 1.0, 2.0), "certified"), Limits(None, 7), rows={1.0: 2})
    assert [firsts for firsts, _ in engine.asked] == [[0.0, 2.0], [1.0]]


def test_a_violation_ends_the_search(asked):
    solved, engine = asked({0.0: "unknown", 1.0: "falsified", 2.0: "unknown"}, Limits(60, None), rows={2.0: 3})
    assert solved.answer == "violated" and len(engine.asked) == 2
    assert [d and d.answer for d in solved.decisions] == ["unknown", "falsified", None]
    expected = 0.75 * case(1.0).lower + 0.25 * case(1.0).upper
    torch.testing.assert_close(solved.counterexample.inputs, expected, atol=1e-6, rtol=0)
    document = solved.document()
    assert document["cases"][2] is None and len(document["counterexample"]["inputs"]) == 5


def test_no_time_is_left(asked):
    solved, engine = asked({0.0: ["unknown"], 1.0: ["unknown"]}, Limits(10, None), seconds=10)
    assert solved.answer == "timeout" and len(engine.asked) == 1
    solved, engine = asked({0.0: "certified"}, Limits(-1, None))
    assert (solved.answer, engine.asked, solved.reasons) == ("timeout", [], ("case 0: not begun",))


def test_what_is_not_confirmed_is_tried_nearby_and_else_unknown(asked):
    tried = []

    def never(number, inputs):
        tried.append(inputs)

    solved, _ = asked({0.0: "falsified", 1.0: "certified"}, Limits(None, 7), confirm=never)
    assert solved.answer == "unknown" and solved.counterexample is None
    assert solved.reasons == ("case 0: onnxruntime does not confirm the counterexample found",)
    assert len(tried) > 3 and len({tuple(x.tolist()) for x in tried}) > 3
    for inputs in tried:
        assert bool((inputs >= case(0.0).lower - 1e-6).all()) and bool((inputs <= case(0.0).upper + 1e-6).all())

    def at_last(number, inputs):
        tried.append(inputs)
        return Counterexample(inputs, torch.zeros(3)) if len(tried) >= 3 else None

    tried.clear()
    solved, _ = asked({0.0: "falsified"}, Limits(None, 7), confirm=at_last)
    assert solved.answer == "violated" and len(tried) == 3
