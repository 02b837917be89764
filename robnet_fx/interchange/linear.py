"""Conditions of a VNN-LIB file: comparisons of linear terms, exactly as written, and unions of intersections."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

from robnet_fx.interchange.s_expressions import Expression, Group, Unreadable, Word

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MOST = 100_000  # alternatives of a property: more come from a product that nobody means

COMPARISONS = {"<=": (1, False), ">=": (-1, False), "<": (1, True), ">": (-1, True)}
"""Of each the sign by which `right - left` is at least 0, and whether it is strict."""


class Condition(NamedTuple):
    """`sum of terms[name] * name + constant >= 0`, or `> 0` where it is strict; `text` is how the file has it."""

    terms: Mapping[str, Fraction]
    constant: Fraction
    strict: bool
    text: Group


Alternatives = list[list[Condition]]
"""One of them must be met with all its conditions."""


def alternatives(expression: Expression, declared: Mapping[str, int]) -> Alternatives:
    """A condition in disjunctive normal form, of variables that are `declared`. Raises `Unreadable`."""
    if isinstance(expression, Word):
        raise Unreadable(expression.line, f"{expression} is no condition")
    if expression.head in COMPARISONS:
        return [[_comparison(expression, declared)]]
    if expression.head not in ("and", "or"):
        raise Unreadable(
            expression.line, f"{expression}: a condition is made of and, or, {', '.join(COMPARISONS)}, and nothing else"
        )
    parts = [alternatives(part, declared) for part in expression.items[1:]]
    if not parts:
        raise Unreadable(expression.line, f"{expression} has no conditions in it")
    if expression.head == "or":
        return [choice for part in parts for choice in part]
    return product(parts, expression.line)


def product(parts: Iterable[Alternatives], line: int) -> Alternatives:
    """Alternatives of which each part is met."""
    listed = list(parts)
    if math.prod(map(len, listed)) > _MOST:
        raise Unreadable(line, f"these conditions have more than {_MOST} alternatives")
    common = [condition for part in listed if len(part) == 1 for condition in part[0]]
    several = [part for part in listed if len(part) > 1]
    return [[*common, *itertools.chain(*choice)] for choice in itertools.product(*several)]


def _comparison(expression: Group, declared: Mapping[str, int]) -> Condition:
    if len(expression.items) != 3:
        raise Unreadable(expression.line, f"{expression}: {expression.head} compares two terms")
    left, right = (_linear(item, declared) for item in expression.items[1:])
    sign, strict = COMPARISONS[expression.head]
    terms, constant = _added([right, left], [Fraction(sign), Fraction(-sign)])
    return Condition(terms, constant, strict, expression)


_Linear = tuple[dict[str, Fraction], Fraction]


def _added(parts: list[_Linear], factors: list[Fraction]) -> _Linear:
    terms: dict[str, Fraction] = {}
    for (own, _), factor in zip(parts, factors, strict=True):
        for name, value in own.items():
            terms[name] = terms.get(name, Fraction(0)) + factor * value
    constant = sum((factor * own for (_, own), factor in zip(parts, factors, strict=True)), Fraction(0))
    return {name: value for name, value in terms.items() if value}, constant


def _linear(expression: Expression, declared: Mapping[str, int]) -> _Linear:
    if isinstance(expression, Word):
        if _NUMBER.fullmatch(expression.text):
            return {}, _number(expression)
        if expression.text not in declared:
            raise Unreadable(expression.line, f"{expression} is not declared before it is used, and is no number")
        return {expression.text: Fraction(1)}, Fraction(0)
    if expression.head not in ("+", "-", "*") or len(expression.items) < 2:
        raise Unreadable(expression.line, f"{expression}: a term is a variable, a number, or made of them by + - *")
    parts = [_linear(item, declared) for item in expression.items[1:]]
    one = Fraction(1)
    if expression.head == "+":
        return _added(parts, [one] * len(parts))
    if expression.head == "-":
        return _added(parts, [-one] if len(parts) == 1 else [one, *[-one] * (len(parts) - 1)])
    varying = [part for part in parts if part[0]]
    if len(varying) > 1:
        raise Unreadable(expression.line, f"{expression} is not linear: it multiplies variables by each other")
    factor = math.prod((constant for terms, constant in parts if not terms), start=one)
    return _added([varying[0] if varying else ({}, one)], [factor])


def _number(word: Word) -> Fraction:
    """Exactly what is written; but for what a float64 does not hold."""
    rounded = float(word.text)
    if math.isinf(rounded):
        raise Unreadable(word.line, f"{word} is too large")
    return Fraction(word.text) if abs(rounded) > 1e-300 else Fraction(rounded)
