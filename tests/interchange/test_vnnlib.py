"""VNN-LIB files of every sort: what is read out of them, and what is refused with its line and reason."""

from __future__ import annotations

import gzip

import pytest
import torch

from robnet_fx import UsageError
from robnet_fx.interchange.vnnlib import read_vnnlib, write_vnnlib

TWO_IN_TWO_OUT = """(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(declare-const Y_1 Real)
"""
BOX = "(assert (>= X_0 -1)) (assert (<= X_0 1)) (assert (>= X_1 0.1)) (assert (<= X_1 2e-1))"


@pytest.fixture
def read(tmp_path):
    """The property in a text that follows the declarations of two inputs and two outputs."""

    def reader(text: str, head: str = TWO_IN_TWO_OUT):
        path = tmp_path / "stated.vnnlib"
        path.write_text(head + text)
        return read_vnnlib(path)

    return reader


def questions(stated):
    """Of each case: lower, upper, and of each group its rows as (factors, offset, strict)."""
    found = []
    for case in stated.cases:
        q, groups = case.question, {}
        for row, offset, group, strict in zip(q.rows[0].tolist(), q.offset[0].tolist(), q.group.tolist(),
                                              q.strict.tolist(), strict=True):  # fmt: skip
            groups.setdefault(group, []).append((row, offset, strict))
        assert list(groups) == list(range(len(groups)))
        found.append((case.lower.tolist(), case.upper.tolist(), list(groups.values())))
    return found


def test_a_classification(read):
    stated = read(f"; a remark\n{BOX}\n(assert (or\n\t(and (>= Y_1 Y_0)) ; the other class\n))")
    assert (stated.inputs, stated.outputs, stated.empty) == (2, 2, 0)
    assert questions(stated) == [([-1, 0.1], [1, 0.2], [[([-1, 1], 0, False)]])]
    (case,) = stated.cases
    assert case.lower.dtype == case.upper.dtype == case.question.rows.dtype == torch.float64
    assert case.question.rows.shape == (1, 1, 2) and case.question.offset.shape == (1, 1)


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("(<= Y_0 3.5)", [([-1, 0], 3.5, False)]),
        ("(>= Y_0 3.5)", [([1, 0], -3.5, False)]),
        ("(< 3.5 Y_0)", [([1, 0], -3.5, True)]),
        ("(> Y_1 Y_0)", [([-1, 1], 0, True)]),
        ("(<= (+ Y_0 (* -2 Y_1) 0.5) (- Y_1))", [([-1, 1], -0.5, False)]),
        ("(>= (- (* 0.5 (+ Y_0 Y_1)) Y_0 1) (* 2 3))", [([-0.5, 0.5], -7, False)]),
        ("(>= (* (- 2) (+ Y_0 1) 3) 0)", [([-6, 0], -6, False)]),
        ("(and (<= Y_0 1) (and (<= Y_1 2)))", [([-1, 0], 1, False), ([0, -1], 2, False)]),
        ("(>= (+ Y_0 0.1) 0.3)", [([1, 0], -0.2, False)]),  # worked out exactly, rounded once
        ("(<= Y_0 Y_0)", [([0, 0], 0, False)]),
    ],
)
def test_conditions_on_outputs(read, condition, rows):
    assert questions(read(f"{BOX}(assert {condition})")) == [([-1, 0.1], [1, 0.2], [rows])]


def test_several_asserts_are_all_met(read):
    """Those of an input narrow it, those of outputs stand in every group; `or` in two of them multiplies."""
    text = f"""{BOX}
    (assert (<= X_0 0.75)) (assert (>= X_0 -3)) (assert (>= 0.5 X_0)) (assert (<= (* 2 X_1) 0.375))
    (assert (<= Y_0 9))
    (assert (or (>= Y_0 1) (>= Y_1 2)))
    (assert (or (<= Y_0 3) (<= Y_1 4)))"""
    common = ([-1, 0], 9, False)
    a, b, c, d = ([1, 0], -1, False), ([0, 1], -2, False), ([-1, 0], 3, False), ([0, -1], 4, False)
    expected = [[common, first, second] for first in (a, b) for second in (c, d)]
    assert questions(read(text)) == [([-1, 0.1], [0.5, 0.1875], expected)]


def test_several_boxes(read):
    """Inputs and outputs mixed in the alternatives, at any depth; alternatives of one box become one case."""
    text = """(assert (>= X_1 0)) (assert (<= X_1 4))
    (assert (or
      (and (>= X_0 0) (<= X_0 1) (>= Y_0 5))
      (and (>= X_0 2) (<= X_0 3) (or (<= Y_0 6) (and (<= X_1 2) (<= Y_1 7))))
      (and (<= X_0 1) (>= X_0 0) (>= Y_1 8) (>= Y_0 Y_1))))"""
    assert questions(read(text)) == [
        ([0, 0], [1, 4], [[([1, 0], -5, False)], [([0, 1], -8, False), ([1, -1], 0, False)]]),
        ([2, 0], [3, 4], [[([-1, 0], 6, False)]]),
        ([2, 0], [3, 2], [[([0, -1], 7, False)]]),
    ]


def test_boxes_apart_from_conditions_on_outputs(read):
    text = """(assert (or (and (<= X_0 1) (>= X_0 0)) (and (<= X_0 3) (>= X_0 2))))
    (assert (<= X_1 0)) (assert (>= X_1 0)) (assert (or (>= Y_0 0) (>= Y_1 0)))"""
    rows = [[([1, 0], 0, False)], [([0, 1], 0, False)]]
    assert questions(read(text)) == [([0, 0], [1, 0], rows), ([2, 0], [3, 0], rows)]


def test_a_property_about_inputs_alone_is_violated_by_each_of_them(read):
    (case,) = read(BOX).cases
    assert case.violated(torch.tensor([0.0, 1.0])) and case.question.rows.tolist() == [[[0, 0]]]


def test_empty_boxes_are_no_cases_but_are_counted(read):
    text = (
        "(assert (>= X_1 0)) (assert (<= X_1 4)) (assert (or (and (>= X_0 0) (<= X_0 1)) (and (>= X_0 1) (< X_0 1))))"
    )
    stated = read(text)
    assert len(stated.cases) == 1 and stated.empty == 1


def test_open_ends(read):
    """Bounds cover them and counterexamples avoid them."""
    (case,) = read("(assert (> X_0 0)) (assert (< X_0 1)) (assert (>= X_1 0.1)) (assert (<= X_1 0.1))").cases
    assert case.open.tolist() == [[True, False], [True, False]]
    assert case.lower.tolist() == [0, 0.1] and case.upper.tolist() == [1, 0.1]
    for dtype in (torch.float32, torch.float64):
        low, high = (case.nearest(torch.full((2,), value, dtype=torch.float64), dtype) for value in (-9, 9))
        assert 0 < low[0] < 1e-40 and 1 - 1e-6 < high[0] < 1
        assert low[1] == high[1] == torch.tensor(0.1, dtype=torch.float64).to(dtype)


def test_the_nearest_numbers_lie_in_the_box(read):
    (case,) = read("(assert (>= X_0 0.1)) (assert (<= X_0 0.3)) (assert (>= X_1 0)) (assert (<= X_1 1))").cases
    for value in (-1.0, 0.1, 0.2, 0.3, 2.0):
        found = case.nearest(torch.full((2,), value, dtype=torch.float64), torch.float32)
        assert found.dtype == torch.float32
        assert bool(((case.lower <= found.double()) & (found.double() <= case.upper)).all())
    inside = torch.tensor([0.25, 0.5], dtype=torch.float64)
    assert torch.equal(case.nearest(inside, torch.float64), inside)


def test_what_violates_a_question(read):
    (case,) = read(f"{BOX}(assert (or (and (>= Y_0 1) (< Y_1 0)) (> Y_1 5)))").cases
    for outputs, violated in [((1, -1), True), ((1, 0), False), ((0.9, -1), False), ((0, 5), False), ((0, 6), True)]:
        assert case.violated(torch.tensor(outputs, dtype=torch.float32)) is violated
    assert not case.violated(torch.tensor([float("nan"), float("nan")]))


def test_white_space_packing_and_declarations_in_any_order(tmp_path):
    text = "(declare-const Y_0 Real)(declare-const X_0\nReal)(assert(and(<= X_0 1.)(>= X_0 -.5)))(assert(>= Y_0 +1E2))"
    path = tmp_path / "stated.vnnlib.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert questions(read_vnnlib(path)) == [([-0.5], [1], [[([1], -100, False)]])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(check-sat)", r"line 5: \(check-sat\): a command is \(declare-const X_0 Real\) or \(assert \.\.\.\)"),
        ("(declare-const X_2 Int)", r"line 5: \(declare-const X_2 Int\): variables are real numbers"),
        ("(declare-const Z_2 Real)", "line 5: .*variables are real numbers"),
        ("(declare-const X_1 Real)", "line 5: X_1 is declared on line 2 already"),
        ("(declare-const X_4 Real)", "line 5: X_4 is declared, and X_2 is not"),
        ("\n(assert (<= X_7 1))", "line 6: X_7 is not declared before it is used"),
        ("(assert (<= X_0 1e))", "line 5: 1e is not declared before it is used, and is no number"),
        ("(assert (<= X_0 1e999))", "line 5: 1e999 is too large"),
        ("(assert (= X_0 1))", r"line 5: \(= X_0 1\): a condition is made of and, or, <=, >=, <, >"),
        ("(assert (not (<= X_0 1)))", "line 5: .*a condition is made of"),
        ("(assert X_0)", "line 5: X_0 is no condition"),
        ("(assert (and))", r"line 5: \(and\) has no conditions"),
        ("(assert (<= X_0 1 2))", "line 5: .*<= compares two terms"),
        ("(assert)", "line 5: .*a command is"),
        ("(assert (<= (* Y_0 Y_1) 1))", r"line 5: \(\* Y_0 Y_1\) is not linear"),
        ("(assert (<= (/ Y_0 2) 1))", r"line 5: \(/ Y_0 2\): a term is"),
        ("(assert (<= Y_0 X_0))", r"line 5: \(<= Y_0 X_0\) ties inputs to outputs"),
        ("(assert (<= X_1 X_0))", r"line 5: \(<= X_1 X_0\) ties inputs to each other"),
        ("(assert (>= Y_0 0))", "line 1: X_0 has no lower bound"),
        ("(assert (or (<= Y_0 0) (>= X_0 0)))", "line 1: X_0 has no lower bound"),
        ("(assert (>= X_0 0)) (assert (>= X_1 0)) (assert (<= X_0 9))", "line 2: X_1 has no upper bound"),
        (BOX + "\n(assert (>= X_0 2))", "line 6: the box is empty: X_0 is at least 2 and at most 1"),
        (BOX + "\n(assert (> X_0 1))", "line 6: the box is empty"),
        ("(assert (<= X_0 1)", "line 5: a bracket is opened and never closed"),
        ("(assert (<= X_0 1)))", r"line 5: '\)' stands outside of all brackets"),
        ("\n\nX_0", "line 7: 'X_0' stands outside of all brackets"),
        ("((assert))", "line 5: .*a command is"),
        ("(assert " + "(and " * 5000 + "(<= X_0 1)" + ")" * 5001, "nested too deeply"),
        (BOX + "(assert (or (<= Y_0 0) (>= Y_0 1)))" * 20, "more than 100000 alternatives"),
        (BOX + "(assert (<= (* 1e300 1e300 Y_0) 1))", "line 5: .*a number that is too large"),
    ],
)
def test_what_cannot_be_read_is_refused_with_line_and_reason(read, text, message):
    with pytest.raises(UsageError, match=f"stated.vnnlib: {message}" if message.startswith("line") else message):
        read(text)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("", "line 1: no input X_0 is declared"),
        ("(declare-const X_0 Real)\n(assert (<= X_0 1))", "line 2: no output Y_0 is declared"),
    ],
)
def test_variables_that_are_missing(read, head, message):
    with pytest.raises(UsageError, match=message):
        read("", head)


def test_files_that_are_none(tmp_path):
    missing, packed, binary = (tmp_path / name for name in ("missing.vnnlib", "half.vnnlib.gz", "net.onnx"))
    packed.write_bytes(gzip.compress(TWO_IN_TWO_OUT.encode())[:-9])
    binary.write_bytes(b"\x08\xff\xfe")
    for path, message in ((missing, "cannot read"), (packed, "truncated or damaged"), (binary, "not a VNN-LIB file")):
        with pytest.raises(UsageError, match=message):
            read_vnnlib(path)


def test_what_is_written_is_read_digit_by_digit(tmp_path):
    lower = torch.randn(7, dtype=torch.float64) * torch.logspace(-30, 30, 7, dtype=torch.float64)
    upper = lower + torch.rand(7, dtype=torch.float64) * lower.abs()
    lower[3] = upper[3] = 1 / 3
    write_vnnlib(tmp_path / "p.vnnlib", lower, upper, 2, 4, ("about an image", "and its field"))
    (case,) = read_vnnlib(tmp_path / "p.vnnlib").cases
    assert torch.equal(case.lower, lower) and torch.equal(case.upper, upper)
    eye = torch.eye(4, dtype=torch.float64)
    assert torch.equal(case.question.rows[0], eye[[0, 1, 3]] - eye[2])
    assert case.question.group.tolist() == [0, 1, 2] and not case.question.strict.any()
    assert (tmp_path / "p.vnnlib").read_text().startswith("; about an image\n; and its field\n(declare-const X_0 Real)")
