# ruff: noqa: T201
"""Mutation testing of the bound rules: every sign flipped, every lower and upper swapped, one at a time.

    python tests/mutation.py [--jobs 2] [--only relu.py] [--sample N] [--list]

Each mutant is one edit of the syntax tree of a file under test, run against the tests that should notice, in a copy
of the repository in a temporary folder. The exit status is 0 when every mutant is killed or stands in `EQUIVALENT`
with the reason why no test can tell it from the original. Mutants run in forked children: torch is imported once.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import copy
import itertools
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 120  # seconds of processor time a mutant may take: an endless loop is noticed, a busy machine is not

# File under test -> the tests that should notice, in stages: the next stage runs only where the one before passed.
_FIELD = "tests/perturbations/test_field.py"
_AFFINE = "tests/rules/test_affine.py"
_CURVED = "tests/rules/test_curved.py"
_REFUSALS = "tests/rules/test_registry.py"
_MOVES = ["tests/rules/test_moves.py", "-k", "refused or contraction"]
_ELEMENTWISE = "tests/rules/test_elementwise.py"
_GRAPHS = "tests/rules/test_soundness.py"
_WINDOWS = "tests/frontend/batch_axis/test_windows.py"
_MERGED = "tests/frontend/batch_axis/test_merged.py"
_SOFTMAX = "tests/rules/test_softmax.py"
_LOGSUMEXP = "tests/rules/test_logsumexp.py"
_SYMBOLS = "tests/bounds/test_symbols.py"
_SLOPES = "tests/rules/test_slopes.py"


def _curves(cases: str) -> list[list[str]]:
    """The tests of some curved functions, the quickest first; all of them would take longer than a mutant may."""
    quick, slow = "handful or unstable or two_lines or slope_is", "any_interval or gradients or lines_enclose"
    stages = (f"({quick})", f"not dtype1 and not ({quick} or {slow})", f"not dtype1 and ({slow})")
    return [[_CURVED, "-k", f"({cases}) and {stage}"] for stage in stages]


SUITES: dict[str, list[list[str]]] = {
    "algebra/depthwise.py": [["tests/algebra/test_depthwise.py"]],
    "algebra/convolution.py": [["tests/algebra/test_convolution.py"]],
    "algebra/room.py": [["tests/algebra/test_room.py"]],
    "algebra/domains.py": [["tests/algebra/test_domains.py"]],
    "algebra/corners.py": [["tests/bounds/test_corners.py", "-k", "corner or course"]],
    "algebra/makeup.py": [["tests/algebra/test_makeup.py"]],
    "algebra/mixture.py": [["tests/algebra/test_mixture.py"]],
    "algebra/symbols.py": [[f"tests/algebra/test_{name}.py"] for name in ("put", "symbols", "exchange")] + [[_SYMBOLS]],
    "bounds/emit.py": [["tests/bounds/test_golden.py"], [_SYMBOLS]],
    "perturbations/bias_field.py": [
        ["tests/perturbations/test_field.py", "-k", word] for word in ("exact", "box or monomials", "")
    ],
    "frontend/batch_axis/operations.py": [[_WINDOWS, "-k", "refused"], [_MERGED], [_WINDOWS]],
    "frontend/batch_axis/channels.py": [*([_WINDOWS, "-k", word] for word in ("refused", "windows_is")), [_MERGED]],
    "frontend/batch_axis/contractions.py": [[_MERGED, "-k", "put_back"], [_WINDOWS, "-k", "products or refused"]],
    "frontend/batch_axis/walk.py": [[_WINDOWS, "-k", "refused"], [_MERGED], [_WINDOWS]],
    "frontend/batch_axis/moves.py": [[_WINDOWS, "-k", "refused"], [_MERGED], [_WINDOWS]],
    "frontend/batch_axis/stand_in.py": [[_WINDOWS, "-k", "refused"], [_MERGED], [_WINDOWS]],
    "bounds/rows.py": [["tests/bounds/test_bounds.py", "-k", "rsip"]],
    "algebra/kernels.py": [["tests/algebra/test_kernels.py"]],
    "perturbations/white_noise.py": [[_FIELD, "-k", "white_noise_are or ramp"], [_FIELD]],
    "rules/affine.py": [[_AFFINE]],
    "rules/arithmetic.py": [[_AFFINE, "-k", "add or sub or neg or mul or div"], [_REFUSALS]],
    "rules/refusals.py": [_MOVES, [_REFUSALS], [_GRAPHS, "-k", "pixel"]],
    "rules/clamp.py": [[file, "-k", "clamp or hardtanh or relu6"] for file in (_ELEMENTWISE, _SLOPES)],
    "rules/conv.py": [[_AFFINE, "-k", "conv"]],
    "rules/curved.py": [
        [_CURVED, "-k", "pole or infinite or too_far or small or number or crests or leave or rounded"],
        [_CURVED, "-k", "handful or unstable or two_lines or slope_is"],
        *_curves("gelu and not tanh or sin or 2.5 or reciprocal or hardsigmoid or atanh"),
        [_SLOPES, "-k", "gelu and not tanh or sin or reciprocal or hardsigmoid"],
    ],
    "rules/einsum.py": [[_AFFINE, "-k", "einsum or tensordot"], _MOVES],
    "rules/elementwise.py": [[_ELEMENTWISE], [_SLOPES, "-k", "shows or relu"]],
    "rules/exponential.py": [*_curves("exp or log or elu and not gelu or softplus"), [_SLOPES, "-k", "softplus"]],
    "rules/extremes.py": [["tests/rules/test_extremes.py", "-k", "interval or shares"]],
    "rules/gelu.py": _curves("gelu"),
    "rules/hyperbolic.py": _curves("sinh or cosh or atanh"),
    "rules/leaky.py": [
        [_ELEMENTWISE, "-k", "leaky or prelu or abs"],
        [_CURVED, "-k", "prelu"],
        [_SLOPES, "-k", "leaky or prelu or abs"],
    ],
    "rules/linear.py": [[_AFFINE, "-k", "linear or mm or matmul"], [_REFUSALS]],
    "rules/logsumexp.py": [[_LOGSUMEXP, "-k", "not gradients"], [_LOGSUMEXP, "-k", "gradients"]],
    "rules/maxpool.py": [["tests/rules/test_maxpool.py"], [_REFUSALS]],
    "rules/moves.py": [_MOVES, [_GRAPHS, "-k", "expand or index"]],
    "rules/norm.py": [[_AFFINE, "-k", "norm"], [_REFUSALS]],
    "rules/pad.py": [[_AFFINE, "-k", "pad"], [_REFUSALS]],
    "rules/periodic.py": [[_CURVED, "-k", "crests or tangent"], *_curves("(sin or cos or tan) and not h]")],
    "rules/pool.py": [[_AFFINE, "-k", "pool or mean or sum"], [_REFUSALS]],
    "rules/power.py": [[_CURVED, "-k", "pole or small or number"], *_curves("pow or sqrt or square or reciprocal")],
    "rules/product.py": [["tests/rules/test_product.py"]],
    "rules/registry.py": [[_REFUSALS, _ELEMENTWISE]],
    "rules/relaxation.py": [
        [_REFUSALS, "-k", "matters"],
        [_ELEMENTWISE],
        [_SLOPES, "-k", "tilts or shows or relu or hardsigmoid"],
        ["tests/test_adding_an_op.py"],
    ],
    "rules/relu.py": [[_ELEMENTWISE, "-k", "relu"], [_SLOPES, "-k", "relu"]],
    "rules/resample.py": [[_AFFINE, "-k", "nearest or linear or cubic or exact"], _MOVES],
    "rules/shape.py": [[_AFFINE, "-k", "reshape or permute or transpose or slice or select or cat"], [_REFUSALS]],
    "rules/sigmoid.py": [
        [_ELEMENTWISE, "-k", "sigmoid or tanh or curves"],
        [_CURVED, "-k", "erf or atan"],
    ],
    "rules/silu.py": _curves("silu or mish or hard"),
    "rules/softmax.py": [
        [_SOFTMAX, "-k", "slopes or carried or wider or above_all or far_off or rounded_by or single or number"],
        [_SOFTMAX, "-k", "band_is or corners or right or axis"],
        [_SOFTMAX, "-k", "leaves_the_band or finite or exact or refused"],
        [_LOGSUMEXP, "-k", "tangents"],
    ],
    "rules/step.py": [
        [_CURVED, "-k", "step"],
        *_curves("sign and not log or floor or ceil or round and not rounded"),
        [_SLOPES, "-k", "[sign] or floor or ceil or [round] or rounding"],
    ],
    "rules/where.py": [[_AFFINE, "-k", "where or masked"], _MOVES],
    "rules/windows.py": [[_AFFINE, "-k", "windows"]],
    "rules/within.py": [
        ["tests/rules/test_within.py", "-k", "not coefficient and not blocks"],
        [_SLOPES, "-k", "within"],
    ],
    "train/figures.py": [["tests/train/test_figures.py"]],
    "train/gradients.py": [["tests/train/test_gradients.py"]],
    "train/objectives/base.py": [["tests/train/objectives/test_base.py"], ["tests/train/test_gradients.py"]],
    "train/objectives/equation_6.py": [["tests/train/objectives/test_equation_6.py"]],
    "verify/ascent.py": [["tests/verify/test_ascent.py"]],
}

_SHAPE = "only its shape and dtype are read"
_DTYPE = "only its dtype is read"
_NO_TURN = "no turn: moved to one end or the other"
_PADDING = "more padding at the far end than any window sees"
_FLAT = "where nothing jumps all of it has one value, and either end is among the points already"
_BRANCH = "without a pole inside, all of it lies in one branch"

# "file name: the expression around the edit -> as the mutant has it" -> why it cannot be told apart.
EQUIVALENT: dict[str, str] = {
    "rows.py: self.rows(units, pre.lower) -> self.rows(units, pre.upper)": _SHAPE,
    "kernels.py: (low + high) * 0 -> (low - high) * 0": "only whether it is a number is read",
    "kernels.py: torch.where(open_, high / 2 / half, (high > 0).to(high.dtype) + nothing) -> "
    "torch.where(open_, high / 2 / half, (high > 0).to(high.dtype) - nothing)": "it is 0 or NaN",
    "kernels.py: high.dtype -> low.dtype": _DTYPE,
    "kernels.py: by_hand(lower) -> by_hand(upper)": "only its device is read",
    "kernels.py: max(1, x.numel()) -> min(1, x.numel())": "any number of parts will do",
    "kernels.py: lambda axis: -strides[axis] -> lambda axis: strides[axis]": "any order will do",
    "clamp.py: pre.lower.dtype -> pre.upper.dtype": _DTYPE,
    "curved.py: torch.where(found, point, -math.inf) -> torch.where(found, point, math.inf)": _NO_TURN,
    "curved.py: torch.where(turn.isnan(), -math.inf, turn) -> torch.where(turn.isnan(), math.inf, turn)": _NO_TURN,
    "curved.py: torch.zeros_like(pre.lower) -> torch.zeros_like(pre.upper)": _SHAPE,
    "exponential.py: torch.zeros_like(pre.lower) -> torch.zeros_like(pre.upper)": _SHAPE,
    "leaky.py: left(pre.lower, *args) -> left(pre.upper, *args)": _SHAPE,
    "leaky.py: torch.where(unstable(pre), 0.0, last) -> torch.where(unstable(pre), 0.0, first)": (
        "either end: both are compared anyhow"
    ),
    "leaky.py: torch.minimum(first, last) -> torch.minimum(first, first)": (
        "the right end is the kink's stand-in, and where there is a kink it lies above it"
    ),
    "logsumexp.py: _from_end(axes, pre.lower) -> _from_end(axes, pre.upper)": _SHAPE,
    "logsumexp.py: level.lower.shape -> level.upper.shape": _SHAPE,
    "maxpool.py: torch.where(beaten, low, others) -> torch.where(beaten, high, others)": (
        "any number will do: nothing reads a beaten rival"
    ),
    "maxpool.py: max(p, (out - 1) * s + span - n - p) -> max(p, (out - 1) * s + span - n + p)": _PADDING,
    "maxpool.py: (out - 1) * s + span - n - p -> (out - 1) * s + span + n - p": _PADDING,
    "maxpool.py: (out - 1) * s -> (out + 1) * s": _PADDING,
    "periodic.py: pre.lower.dtype -> pre.upper.dtype": _DTYPE,
    "periodic.py: pre.lower + pre.upper -> pre.upper + pre.upper": _BRANCH,
    "periodic.py: pre.lower + pre.upper -> pre.lower + pre.lower": _BRANCH,
    "softmax.py: _from_end(axis, pre.lower) -> _from_end(axis, pre.upper)": _SHAPE,
    "relaxation.py: slope.expand_as(pre.lower) -> slope.expand_as(pre.upper)": _SHAPE,
    "step.py: torch.where(leaps, y, first) -> torch.where(leaps, y, last)": _FLAT,
    "step.py: torch.where(leaps, x, pre.lower) -> torch.where(leaps, x, pre.upper)": _FLAT,
    "step.py: torch.zeros_like(first) -> torch.zeros_like(last)": _SHAPE,
    "step.py: torch.ones_like(first) -> torch.ones_like(last)": _SHAPE,
    "step.py: torch.full_like(first, near) -> torch.full_like(last, near)": _SHAPE,
    "windows.py: unfold(end, x.lower) -> unfold(end, x.upper)": _SHAPE,
    "within.py: pre.lower.dtype -> pre.upper.dtype": _DTYPE,
}

_SWAPS = {
    "lower": "upper",
    "low": "high",
    "lowest": "highest",
    "first": "last",
    "minimum": "maximum",
    "amin": "amax",
    "argmin": "argmax",
    "min": "max",
}
SWAPS = {**_SWAPS, **{b: a for a, b in _SWAPS.items()}}
BINARY = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr,
}
COMPARE = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}


@dataclass(frozen=True)
class Mutant:
    """Node `index` of a file's tree (in the order of `ast.walk`) replaced by `new`."""

    file: str
    index: int
    new: ast.AST
    line: int
    before: str
    after: str
    around: str  # the expression around it, before and after

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line}  {self.before}  ->  {self.after}"

    @property
    def key(self) -> str:
        return f"{Path(self.file).name}: {self.around}"

    @property
    def source(self) -> str:
        return _replaced(ast.parse((ROOT / "robnet_fx" / self.file).read_text()), self.index, self.new)


def _replaced(tree: ast.AST, index: int, new: ast.AST) -> str:
    """The code of a tree, which is lost to this, with one node replaced."""
    old = next(itertools.islice(ast.walk(tree), index, None))
    return ast.unparse(ast.fix_missing_locations(_Replace(old, new).visit(tree)))


def edits(node: ast.AST, names: set[str]) -> Iterator[ast.AST]:
    """Every mutation of one node."""
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        yield _changed(node, op=BINARY[type(node.op)]())
    if isinstance(node, ast.AugAssign) and type(node.op) in BINARY:
        yield _changed(node, op=BINARY[type(node.op)]())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield node.operand
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARE:
        yield _changed(node, ops=[COMPARE[type(node.ops[0])]()])
    if isinstance(node, ast.Attribute) and node.attr in SWAPS and isinstance(node.ctx, ast.Load):
        yield _changed(node, attr=SWAPS[node.attr])
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and SWAPS.get(node.id) in names:
        yield _changed(node, id=SWAPS[node.id])
    if isinstance(node, ast.Call):
        yield from _calls(node)


def _calls(node: ast.Call) -> Iterator[ast.AST]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name == "abs" and isinstance(node.func, ast.Attribute) and not node.args:
        yield node.func.value
    elif name == "abs" and len(node.args) == 1:
        yield node.args[0]
    for position, keyword in enumerate(node.keywords):
        if keyword.arg in ("min", "max"):
            keywords = list(node.keywords)
            keywords[position] = ast.keyword(SWAPS[keyword.arg], keyword.value)
            yield _changed(node, keywords=keywords)
    if name == "Interval" and len(node.args) == 2:
        yield _changed(node, args=node.args[::-1])
    if name == "Lines" and len(node.args) == 4:
        yield _changed(node, args=[*node.args[2:], *node.args[:2]])


def _changed(node: ast.AST, **fields: object) -> ast.AST:
    kept = {name: value for name, value in ast.iter_fields(node) if name not in fields}
    return ast.copy_location(type(node)(**kept, **fields), node)


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but annotations, imports, messages of exceptions and default arguments' annotations."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "exc") or isinstance(tree, (ast.Import, ast.ImportFrom)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child
                yield from _code(child)


def mutants_of(file: str) -> list[Mutant]:
    """Every mutant of one file, in the order of the code."""
    tree = ast.parse((ROOT / "robnet_fx" / file).read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {"min", "max"}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    positions = {node: index for index, node in enumerate(ast.walk(tree))}
    parents = {child: parent for parent in positions for child in ast.iter_child_nodes(parent)}
    found = []
    for node in _code(tree):
        for new in edits(node, names):
            outer = parents[node] if isinstance(parents[node], ast.expr) else node
            inside = next(i for i, part in enumerate(ast.walk(outer)) if part is node)
            around = f"{ast.unparse(outer)} -> {_replaced(copy.deepcopy(outer), inside, new)}"
            found.append(Mutant(file, positions[node], new, node.lineno, ast.unparse(node), ast.unparse(new), around))
    return found


class Sandbox:
    """A copy of the package and its tests, where one mutant at a time takes a file's place."""

    def __init__(self, parent: Path, number: int) -> None:
        self.root = parent / f"copy{number}"
        ignored = shutil.ignore_patterns("__pycache__", "*.onnx", "runs", ".*")
        for folder in ("docs", "robnet_fx", "cli", "zoo", "tests"):
            shutil.copytree(ROOT / folder, self.root / folder, symlinks=True, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", self.root)
        compileall.compile_dir(self.root, quiet=2)
        self.changed: Path | None = None
        self.original = ""

    def put(self, mutant: Mutant) -> None:
        self.restore()
        self.changed = self.root / "robnet_fx" / mutant.file
        self.original = self.changed.read_text()
        for compiled in (self.changed.parent / "__pycache__").glob(f"{self.changed.stem}.*.pyc"):
            compiled.unlink()
        self.changed.write_text(mutant.source)

    def restore(self) -> None:
        if self.changed is not None:
            self.changed.write_text(self.original)
            self.changed = None

    def start(self, file: str) -> int:
        """Run the stages for `file` in a child; its pid. Exit status 0 means that nothing was noticed."""
        pid = os.fork()
        if pid:
            return pid
        status = 70
        try:
            status = _run_stages(self.root, SUITES[file])
        finally:
            os._exit(status)


def _run_stages(root: Path, stages: list[list[str]]) -> int:
    import pytest
    import torch

    signal.setitimer(signal.ITIMER_PROF, TIMEOUT)
    silent = os.open(os.environ.get("ROBNET_FX_MUTATION_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    os.chdir(root)
    sys.dont_write_bytecode = True
    sys.path[:] = [
        str(root),
        *(entry for entry in sys.path if Path(entry or ".").resolve() not in (ROOT, ROOT / "tests")),
    ]

    class Seeded:
        """What tests/conftest.py does, without its imports."""

        def pytest_runtest_setup(self) -> None:
            torch.manual_seed(0)

    options = ["-x", "-q", "--tb=line", "--noconftest", "--assert=plain", "-p", "no:cacheprovider"]
    for stage in stages:
        status = int(pytest.main([*options, *stage], plugins=[Seeded()]))
        if status:
            return status
    return 0


def preload() -> None:
    """What every child needs and no mutant touches."""
    import hypothesis  # noqa: F401
    import onnx2torch  # noqa: F401
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)


def run(mutants: list[Mutant], jobs: int) -> list[Mutant]:
    """The mutants that no test noticed."""
    preload()
    survivors: list[Mutant] = []
    with tempfile.TemporaryDirectory() as folder:
        free = [Sandbox(Path(folder), number) for number in range(jobs)]
        for file in sorted({mutant.file for mutant in mutants}):
            started = time.monotonic()
            _, status = os.waitpid(free[0].start(file), 0)
            if status:
                raise SystemExit(f"the tests for {file} do not pass without a mutant (status {status})")
            print(f"{file}: unchanged, {time.monotonic() - started:.1f} s", flush=True)
        queue, running = list(mutants), {}
        while queue or running:
            while queue and free:
                place, mutant = free.pop(), queue.pop(0)
                place.put(mutant)
                running[place.start(mutant.file)] = place, mutant, time.monotonic()
            pid, status = os.wait()
            place, mutant, started = running.pop(pid)
            place.restore()
            free.append(place)
            verdict = "killed"
            if status == 0:
                verdict = "equivalent" if mutant.key in EQUIVALENT else "SURVIVED"
                survivors.append(mutant)
            elif os.waitstatus_to_exitcode(status) not in (1, 2, 4, -signal.SIGPROF):
                verdict = f"killed (status {os.waitstatus_to_exitcode(status)})"
            print(f"{verdict:10} {time.monotonic() - started:5.1f} s  {mutant.name}", flush=True)
    return survivors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="a regular expression on 'file:line  before  ->  after'")
    parser.add_argument("--sample", type=int, default=0, help="every so many mutants only")
    parser.add_argument("--list", action="store_true", help="list the mutants and stop")
    options = parser.parse_args()
    mutants = [mutant for file in SUITES for mutant in mutants_of(file)]
    unknown = set(EQUIVALENT) - {mutant.key for mutant in mutants}
    if unknown:
        print(f"in EQUIVALENT but no mutant any more: {sorted(unknown)}")
        return 1
    mutants = [mutant for mutant in mutants if re.search(options.only, mutant.name)]
    mutants = mutants[:: max(1, options.sample)]
    if options.list:
        print("\n".join(mutant.name for mutant in mutants))
        return 0
    started = time.monotonic()
    survivors = run(mutants, options.jobs)
    alive = [mutant for mutant in survivors if mutant.key not in EQUIVALENT]
    print(
        f"{len(mutants)} mutants, {len(mutants) - len(survivors)} killed, {len(survivors) - len(alive)} equivalent, "
        f"{len(alive)} survived; {time.monotonic() - started:.0f} s"
    )
    for mutant in alive:
        print(f"SURVIVED {mutant.name}")
    return 1 if alive else 0


if __name__ == "__main__":
    raise SystemExit(main())
