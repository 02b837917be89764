"""Answers and counterexamples as the verification competition has them."""

from __future__ import annotations

from pathlib import Path

from robnet_fx.machine.files import write_atomically
from robnet_fx.verify.solve import HOLDS, VIOLATED, Counterexample, Solved

_WORDS = {HOLDS: "unsat", VIOLATED: "sat"}  # whether there is an input that the property forbids


def counterexample(found: Counterexample) -> str:
    """`((X_0 0.5)`, ` (Y_0 1.25))`: a line for each number, which is exactly the one that the file takes or gives."""
    values = [(kind, i, v) for kind, part in zip("XY", found, strict=True) for i, v in enumerate(part.tolist())]
    return "(" + "\n ".join(f"({kind}_{index} {value!r})" for kind, index, value in values) + ")"


def write_results(path: Path, solved: Solved) -> None:
    """Write `unsat`, `sat` and the counterexample, `unknown` or `timeout`. Written whole or not at all."""
    lines = [_WORDS.get(solved.answer, solved.answer)]
    if solved.counterexample is not None:
        lines.append(counterexample(solved.counterexample))
    with write_atomically(path) as file:
        file.write("\n".join([*lines, ""]).encode())
