"""What a person sees."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from robnet_fx.report.panels import describe_box, describe_field
from robnet_fx.report.progress import Bars
from robnet_fx.report.tables import accuracies


def shown(*items):
    console = Console(file=io.StringIO(), width=100)
    for item in items:
        console.print(item)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("center", "radius", "text"),
    [
        ([1.0], [0.1], "D = 1: constant term in [0.9000, 1.1000]"),
        ([1.0, 0, 0, 0], [0.15, 0.01, 0.01, 0.01], "D = 4: constant term in [0.8500, 1.1500], the other 3 in ±0.01"),
        (
            [1.0, 0, 0.5],
            [0.1, 0.2, 0.1],
            "D = 3: constant term in [0.9000, 1.1000], the other 2 in [0.4000, 0.6000] or ±0.2",
        ),
    ],
)
def test_the_box_in_words(center, radius, text):
    assert describe_box(center, radius) == text


def test_the_field_in_words():
    assert describe_field(3, 40 / 255) == "order 3, multiplicative, eps 40/255 = 0.1569"


def test_accuracies_leave_out_what_was_not_measured():
    text = shown(accuracies("net", {"share": {"clean": 0.5, "certified": 0.25}}))
    assert "50.0%" in text and "25.0%" in text and "attacked" not in text


def test_bars_show_figures_and_may_be_nested():
    console = Console(file=io.StringIO(), width=120)
    bars = Bars(console)
    with bars.task("training", 4) as outer:
        outer.advance(2, loss=1.25, epoch="1/2")
        with bars.task("certifying", 1) as inner:
            inner.advance()
        outer.advance(2, loss=0.5)
    with bars.task("attacking", 1) as task:
        task.advance()
    text = console.file.getvalue()
    for part in ("training", "4/4", "loss 0.500", "epoch 1/2", "certifying", "attacking"):
        assert part in text


def test_a_bar_closes_when_the_work_fails():
    bars = Bars(Console(file=io.StringIO()))
    with pytest.raises(KeyboardInterrupt), bars.task("training", 2):
        raise KeyboardInterrupt
    with bars.task("training", 2) as task:
        task.advance()
