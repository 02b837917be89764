"""Properties of networks as VNN-LIB files, as the verification competition has them: read and written.

A file declares inputs `X_i` and outputs `Y_j`, numbered in row-major order, and asserts conditions under which its
network is wrong: the property holds where no input meets them all. Read are linear conditions on outputs and bounds of
single inputs, under `and` and `or` in any depth; the whole becomes boxes, each with a question about the outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from robnet_fx.errors import UsageError
from robnet_fx.interchange.linear import Alternatives, Condition, alternatives, product
from robnet_fx.interchange.s_expressions import Group, Unreadable, Word, read
from robnet_fx.machine.files import read_unpacked, write_atomically
from robnet_fx.verify.property import Case, Property
from robnet_fx.verify.question import Question

_VARIABLE = re.compile(r"([XY])_(0|[1-9]\d*)")
_LOWER, _UPPER = 0, 1


def read_vnnlib(path: Path | str) -> Property:
    """The property in a .vnnlib file, packed by gzip or not.

    Raises `UsageError` for a file that cannot be read, with the line and the reason: what is no VNN-LIB, unknown
    commands and variables, terms that are not linear, conditions that tie inputs to each other or to outputs, inputs
    without a lower or an upper bound, and boxes that are all empty.
    """
    path = Path(path)
    data = read_unpacked(path)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a VNN-LIB file: it is no text") from error
    try:
        return _Reader(read(text)).property
    except Unreadable as error:
        raise UsageError(f"{path}: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: conditions are nested too deeply") from error


class _Reader:
    def __init__(self, commands: Sequence[Group]) -> None:
        self._declared: dict[str, int] = {}  # line of each variable
        asserted: list[Alternatives] = []
        for command in commands:
            if command.head == "declare-const":
                self._declare(command)
            elif command.head == "assert" and len(command.items) == 2:
                asserted.append(alternatives(command.items[1], self._declared))
            else:
                raise Unreadable(command.line, f"{command}: a command is (declare-const X_0 Real) or (assert ...)")
        self._last = commands[-1].line if commands else 1
        self._inputs, self._outputs = self._counted("X"), self._counted("Y")
        common = [condition for part in asserted if len(part) == 1 for condition in part[0]]
        several = product([part for part in asserted if len(part) > 1], self._last)
        self.property = self._assembled(common, several)

    def _declare(self, command: Group) -> None:
        words = [item.text if isinstance(item, Word) else "" for item in command.items[1:]]
        if len(words) != 2 or words[1] != "Real" or not _VARIABLE.fullmatch(words[0]):
            raise Unreadable(command.line, f"{command}: variables are real numbers X_0, X_1, ... and Y_0, Y_1, ...")
        if words[0] in self._declared:
            raise Unreadable(command.line, f"{words[0]} is declared on line {self._declared[words[0]]} already")
        self._declared[words[0]] = command.line

    def _counted(self, kind: str) -> int:
        numbers = sorted(int(name[2:]) for name in self._declared if name[0] == kind)
        if not numbers:
            raise Unreadable(self._last, f"no {'input' if kind == 'X' else 'output'} {kind}_0 is declared")
        if numbers[-1] != len(numbers) - 1:
            missing = next(i for i, number in enumerate(numbers) if i != number)
            raise Unreadable(
                self._declared[f"{kind}_{numbers[-1]}"],
                f"{kind}_{numbers[-1]} is declared, and {kind}_{missing} is not",
            )
        return len(numbers)

    def _assembled(self, common: Sequence[Condition], several: Alternatives) -> Property:
        """Alternatives of one and the same box become one case."""
        whole, rows = _Bounds(self._inputs), [c for c in common if not _of_input(c)]
        whole.narrow(c for c in common if _of_input(c))
        found: dict[bytes, tuple[_Bounds, list[list[Condition]]]] = {}
        empty: dict[bytes, Unreadable] = {}
        for alternative in several:
            box = whole.copy()
            box.narrow(c for c in alternative if _of_input(c))
            self._check_bounded(box)
            if (reason := box.empty()) is not None:
                empty[box.key] = reason
                continue
            _, groups = found.setdefault(box.key, (box, []))
            groups.append([*rows, *(c for c in alternative if not _of_input(c))])
        if not found:
            raise next(iter(empty.values()))
        cases = tuple(box.case(self._question(groups)) for box, groups in found.values())
        return Property(self._inputs, self._outputs, cases, len(empty))

    def _check_bounded(self, box: _Bounds) -> None:
        for side, name in ((_LOWER, "a lower"), (_UPPER, "an upper")):
            missing = box.ends[side].isinf().nonzero()
            if len(missing):
                variable = f"X_{int(missing[0])}"
                raise Unreadable(self._declared[variable], f"{variable} has no {name.split()[1]} bound, as inputs must")

    def _question(self, groups: Sequence[Sequence[Condition]]) -> Question:
        """Groups without conditions are met by any outputs."""
        filled: list[tuple[int, Condition | None]] = []
        for number, group in enumerate(groups):
            filled += [(number, condition) for condition in group] or [(number, None)]
        rows = torch.zeros(1, len(filled), self._outputs, dtype=torch.float64)
        offset = torch.zeros(1, len(filled), dtype=torch.float64)
        for k, (_, condition) in enumerate(filled):
            if condition is not None:
                for name, factor in condition.terms.items():
                    rows[0, k, int(name[2:])] = _float(factor, condition)
                offset[0, k] = _float(condition.constant, condition)
        strict = torch.tensor([condition is not None and condition.strict for _, condition in filled])
        return Question(rows, offset, torch.tensor([number for number, _ in filled]), strict)


class _Bounds:
    """The box of an alternative in the making, with the condition behind each end."""

    def __init__(self, count: int) -> None:
        self.ends = torch.tensor([[-torch.inf], [torch.inf]], dtype=torch.float64).repeat(1, count)
        self.open = torch.zeros(2, count, dtype=torch.bool)
        self.told: dict[tuple[int, int], Condition] = {}

    def copy(self) -> _Bounds:
        made = _Bounds(0)
        made.ends, made.open, made.told = self.ends.clone(), self.open.clone(), dict(self.told)
        return made

    def narrow(self, conditions: Iterable[Condition]) -> None:
        """By bounds of single inputs: of several the tightest counts."""
        ends, opened = self.ends.tolist(), self.open.tolist()
        for condition in conditions:
            ((name, factor),) = condition.terms.items()
            side, index = (_LOWER if factor > 0 else _UPPER), int(name[2:])
            value = _float(-condition.constant / factor, condition)
            old = ends[side][index]
            if value != old and (value > old) == (side == _LOWER):
                ends[side][index], opened[side][index] = value, condition.strict
                self.told[side, index] = condition
            elif value == old:
                opened[side][index] = opened[side][index] or condition.strict
        self.ends, self.open = torch.tensor(ends, dtype=torch.float64), torch.tensor(opened)

    def empty(self) -> Unreadable | None:
        """Why no input is in it."""
        lower, upper = self.ends
        nothing = ((lower > upper) | ((lower == upper) & self.open.any(0))).nonzero()
        if not len(nothing):
            return None
        index = int(nothing[0])
        line = max(self.told[side, index].text.line for side in (_LOWER, _UPPER))
        return Unreadable(
            line, f"the box is empty: X_{index} is at least {lower[index]:g} and at most {upper[index]:g}"
        )

    @property
    def key(self) -> bytes:
        return self.ends.numpy().tobytes() + self.open.numpy().tobytes()

    def case(self, question: Question) -> Case:
        return Case(self.ends[_LOWER], self.ends[_UPPER], self.open, question)


def _of_input(condition: Condition) -> bool:
    """Whether a condition bounds an input; else it is one on outputs. Raises `Unreadable` for one that is neither."""
    kinds = [name[0] for name in condition.terms]
    if kinds == ["X"]:
        return True
    if "X" not in kinds:
        return False
    what = "ties inputs to outputs" if "Y" in kinds else "ties inputs to each other, and inputs lie in a box"
    raise Unreadable(condition.text.line, f"{condition.text} {what}")


def _float(value: Fraction, condition: Condition) -> float:
    try:
        return float(value)
    except OverflowError:
        raise Unreadable(condition.text.line, f"{condition.text} has a number that is too large") from None


def write_vnnlib(
    path: Path | str, lower: Tensor, upper: Tensor, label: int, classes: int, remarks: Sequence[str] = ()
) -> None:
    """Write that a network of `classes` outputs keeps to one class on a box: the file asks for an input between
    `lower` and `upper` `[n]` where another output is at least that of the label.

    Every number has all its digits. `remarks` are comments at the top. Written whole or not at all.
    """
    lines = [f"; {remark}" for remark in remarks]
    lines += [f"(declare-const X_{i} Real)" for i in range(len(lower))]
    lines += [f"(declare-const Y_{j} Real)" for j in range(classes)]
    for i, (low, high) in enumerate(zip(lower.double().tolist(), upper.double().tolist(), strict=True)):
        lines += [f"(assert (>= X_{i} {low!r}))", f"(assert (<= X_{i} {high!r}))"]
    others = [f"  (and (>= Y_{j} Y_{label}))" for j in range(classes) if j != label]
    lines += ["(assert (or", *others, "))"]
    with write_atomically(path) as file:
        file.write("\n".join([*lines, ""]).encode())
