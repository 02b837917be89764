"""S-expressions with the lines they stand on: how VNN-LIB and SMT-LIB files are written."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKENS = re.compile(r"[()]|[^\s();]+|;.*")
_SHOWN = 80


class Unreadable(Exception):
    """What is wrong with a text, and on which line."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")


@dataclass(frozen=True, slots=True)
class Word:
    """Anything but brackets, space and comments: a name, a number, an operator."""

    text: str
    line: int

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Group:
    """What stands between two brackets; `line` is that of the first."""

    items: tuple[Expression, ...]
    line: int

    @property
    def head(self) -> str:
        """Its first word, empty where it does not begin with one."""
        first = self.items[0] if self.items else None
        return first.text if isinstance(first, Word) else ""

    def __str__(self) -> str:
        """As it is read, on one line, cut where it is long."""
        text = f"({' '.join(map(str, self.items[:20]))}{' ...' * (len(self.items) > 20)})"
        return text if len(text) <= _SHOWN else text[: _SHOWN - 4] + " ..."


Expression = Word | Group


def read(text: str) -> list[Group]:
    """The expressions of a text, in order. Raises `Unreadable` for brackets that do not match and words outside."""
    found: list[Group] = []
    open_items: list[list[Expression]] = []
    lines: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        for token in _TOKENS.findall(line):
            if token.startswith(";"):
                continue
            if token == "(":
                open_items.append([])
                lines.append(number)
            elif not open_items:
                raise Unreadable(number, f"{token!r} stands outside of all brackets")
            elif token != ")":
                open_items[-1].append(Word(token, number))
            else:
                made = Group(tuple(open_items.pop()), lines.pop())
                if open_items:
                    open_items[-1].append(made)
                else:
                    found.append(made)
    if lines:
        raise Unreadable(lines[-1], "a bracket is opened and never closed")
    return found
