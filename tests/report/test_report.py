"""What a person sees."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest
from rich.console import Console

from robnet_fx import BiasField, InputBox, WhiteNoise
from robnet_fx.report.panels import describe_box, describe_method, describe_perturbation
from robnet_fx.report.progress import Bars
from robnet_fx.report.tables import accuracies, curve, largest


def shown(*items):
    console = Console(file=io.StringIO(), width=100)
    for item in items:
        console.print(item)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("perturbation", "text"),
    [
        (BiasField(0, 0.1), "D = 1: constant term in [0.9000, 1.1000]"),
        (BiasField(1, 0.15), "D = 4: constant term in [0.8500, 1.1500], the other 3 in ±0.01"),
        (
            BiasField(1, 0.3, [(0.9, 1.1), (-0.2, 0.2), (0, 0.5), (-0.2, 0.2)]),
            "D = 4: constant term in [0.9000, 1.1000], the other 3 in [0.0000, 0.5000] or ±0.2",
        ),
        (BiasField(0, 0.15, False, True), "D = 1: additive constant term in [-0.1500, 0.1500]"),
        (
            BiasField(1, 0.15, additive=True),
            "D = 8: constant term in [0.8500, 1.1500], the other 3 in ±0.01; "
            "additive constant term in [-0.1500, 0.1500], the other 3 in ±0.01",
        ),
        (WhiteNoise(0.02), "D = 16: all in ±0.02"),
        (InputBox([0.0] * 16, [1.0, 3.0] + [0.0] * 14), "D = 2: all in ±0.5 or ±1.5"),
    ],
)
def test_the_box_in_words(perturbation, text):
    assert describe_box(perturbation.build((1, 4, 4))) == text


@dataclass(frozen=True)
class Gamma:
    """A perturbation that the panel has never heard of."""

    eps: float
    base: float = 2.0
    inverse: bool = True
    log: bool = False


@pytest.mark.parametrize(
    ("perturbation", "line"),
    [
        (BiasField(3, 40 / 255), {"field": "order 3, multiplicative, eps 40/255 = 0.1569"}),
        (BiasField(1, 0.1, additive=True), {"field": "order 1, multiplicative, additive, eps 25.5/255 = 0.1"}),
        (BiasField(0, 0.2, False, [(-0.1, 0.2)]), {"field": "order 0, additive box, eps 51/255 = 0.2"}),
        (InputBox([0.0], [1.0]), {"box": "lower box, upper box, eps 255/255 = 1"}),
        (WhiteNoise(2 / 255), {"noise": "eps 2/255 = 0.007843"}),
        (Gamma(0.2), {"gamma": "base 2.0, inverse, eps 51/255 = 0.2"}),
    ],
)
def test_any_perturbation_in_words(perturbation, line):
    assert describe_perturbation(perturbation) == line


def test_the_method_in_words():
    assert describe_method("rsip-ssip", "relu", None, 16) == "rsip-ssip, clip relu"
    assert describe_method("rsip-ibp", None, "rsip-ibp", 3072) == "rsip-ibp, clip none"
    said = describe_method("rsip-ibp", "clamp", None, 3072)
    assert said == "rsip-ibp (D = 3072 is too many for rsip-ssip), clip clamp"
    assert describe_method("rsip-ssip", "relu", None, 16, 256) == "rsip-ssip, 256 symbols, clip relu"
    assert describe_method("rsip", "relu", "rsip", 16, "all") == "rsip, all symbols, clip relu"


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
    with bars.task("splitting", 0) as nothing:
        nothing.advance(0, certified=1.0)
    text = console.file.getvalue()
    for part in ("training", "4/4", "loss 0.500", "epoch 1/2", "certifying", "attacking"):
        assert part in text
    assert "splitting" not in text


def test_a_bar_closes_when_the_work_fails():
    bars = Bars(Console(file=io.StringIO()))
    with pytest.raises(KeyboardInterrupt), bars.task("training", 2):
        raise KeyboardInterrupt
    with bars.task("training", 2) as task:
        task.advance()


def test_a_curve_has_a_line_for_each_eps():
    shares = {"clean": 0.9, "attacked": 0.5, "certified": 0.25, "one_box": 0.125, "unknown": 0.25}
    lines = shown(curve("title", {"5": shares, "40": shares | {"certified": 0.5, "unknown": 0.0}})).splitlines()
    assert [line.split() for line in lines if "%" in line] == [
        ["5", "90.0%", "50.0%", "25.0%", "12.5%", "25.0%"],
        ["40", "90.0%", "50.0%", "50.0%", "12.5%", "0.0%"],
    ]


def test_quantiles_of_what_images_can_take():
    """Nothing proved is 0, nothing falsified is beyond what was looked at."""
    ends = [(None, 1 / 255), (10 / 255, 11 / 255), (20 / 255, 30 / 255), (30 / 255, None), (40 / 255, None)]
    lines = {
        line.split()[0]: line.split()[1:]
        for line in shown(largest("t", ends, 40 / 255)).splitlines()[3:]
        if line.strip()
    }
    assert lines["weakest"] == ["0", "1"] and lines["median"] == ["20", "30"]
    assert lines["90"] == ["%", "40", "over", "40"]
