"""docs/adding-an-op.md is followed word for word: its code runs, its rule holds, and stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from robnet_fx.rules import registry, rule_for

PAGE = Path(__file__).parents[1] / "docs" / "adding-an-op.md"


def test_the_page_adds_a_sound_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_TABLE", dict(registry._TABLE))
    rule, trial = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(rule.splitlines()) < 40
    names: dict[str, object] = {"__name__": "a page"}  # no module has that name
    exec(compile(rule, str(PAGE), "exec"), names)
    assert rule_for(torch.ops.aten.sinc.default) is not None
    exec(compile(trial, str(PAGE), "exec"), names)


def test_the_harness_finds_a_broken_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_TABLE", dict(registry._TABLE))
    rule, trial = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {"__name__": "a page"}  # no module has that name
    exec(compile(rule.replace("(0.0, 1.43", "(1.43"), str(PAGE), "exec"), names)  # forgets the top of the lobe
    with pytest.raises(AssertionError, match="UNSOUND"):
        exec(compile(trial, str(PAGE), "exec"), names)
