"""Every use of what PyTorch keeps to itself still does what it is used for, and there is none elsewhere."""

from __future__ import annotations

import ast
import inspect
import logging
import warnings
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import exported_program
from torch.overrides import TorchFunctionMode

from robnet_fx.machine import torch_internals as internals

aten = torch.ops.aten
PACKAGE = Path(internals.__file__).parents[1]
SHAPES = logging.getLogger("torch.fx.experimental.symbolic_shapes")
NAMED_TUPLES = {"_replace", "_asdict", "_fields"}
COMPILING = pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # of torch, to itself


def exported(model: nn.Module, example: torch.Tensor) -> torch.export.ExportedProgram:
    free = ({0: torch.export.Dim.DYNAMIC},)
    with internals.without_exports_own_remarks():
        return torch.export.export(model, (example,), dynamic_shapes=free, strict=False).run_decompositions({})


class Fixing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = x.shape[0]
        return x.reshape(int(count), -1).sum(1) if count == 4 else x.flatten(1).sum(1)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


# Operations


def test_the_type_of_operations():
    assert isinstance(aten.add.Tensor, internals.Operator)
    assert not isinstance(aten.add, internals.Operator)
    assert not isinstance(torch.add, internals.Operator)


def test_the_parameters_of_an_operation():
    entries = internals.parameters_of(aten.sum.dim_IntList)
    assert [entry.name for entry in entries] == ["self", "dim", "keepdim", "dtype"]
    assert [entry.default_value for entry in entries][2] is False
    assert not internals.parameters_of(torch.sum)


# Exported graphs


class Written(nn.Module):
    """What it does with the features of an image."""

    def __init__(self, end: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.end = nn.Conv2d(1, 4, 3), end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(nn.functional.silu(self.first(x)).flatten(1))


@pytest.mark.parametrize(
    ("end", "quick"),
    [
        (lambda x: x.softmax(1), True),
        (lambda x: torch.einsum("bi,bj->bij", x, x).chunk(2, 1)[0].narrow(1, 0, 3).flatten(1), True),
        (lambda x: x.split([4, 12], 1)[1] + x.shape[0], True),
        (lambda x: nn.functional.layer_norm(x, [16]).to(torch.float64).unflatten(1, (4, 4)).mT, True),
        (lambda x: nn.functional.selu(nn.functional.glu(x)), False),  # of the table
        (lambda x: x.relu_().add_(1), False),  # in place
    ],
)
def test_a_decomposed_program_is_torchs_own(monkeypatch, end, quick):
    """`glu` is taken apart, and what torch could take apart itself stays whole; most programs need half of the work."""
    free = ({0: torch.export.Dim.DYNAMIC},)
    table = {aten.glu.default: lambda x, dim=-1: torch.mul(*x.chunk(2, dim))}
    with internals.without_exports_own_remarks():
        program = torch.export.export(Written(end), (torch.rand(3, 1, 4, 4),), dynamic_shapes=free, strict=False)
        expected = program.run_decompositions(dict(table))
        every, asked = exported_program._collect_all_valid_cia_ops, []
        monkeypatch.setattr(exported_program, "_collect_all_valid_cia_ops", lambda: asked.append(1) or every())
        patched = exported_program._collect_all_valid_cia_ops
        found = internals.decomposed(program, table)
    assert exported_program._collect_all_valid_cia_ops is patched and bool(asked) is not quick
    assert str(found.graph) == str(expected.graph) and list(table) == [aten.glu.default]


@pytest.mark.parametrize(
    ("category", "message"),
    [
        (FutureWarning, "`isinstance(treespec, LeafSpec)` is deprecated, use `isinstance(treespec, TreeSpec)`"),
        (UserWarning, "The tensor attribute self.seen was assigned during export. Such attributes must be registered"),
    ],
)
def test_exports_remarks_about_itself_are_not_shown(category, message):
    with internals.without_exports_own_remarks():
        warnings.warn(message, category, stacklevel=1)
    with pytest.raises(category), internals.without_exports_own_remarks():
        warnings.warn("The tensor is of the user's", category, stacklevel=1)


def test_what_export_remarks_is_known():
    """Every warning is an error here, so that one with other words would fail."""

    class Assigning(nn.Module):
        def forward(self, x):
            self.seen = x + 1
            return self.seen

    exported(Assigning(), torch.ones(3, 2))


def test_why_an_export_fails():
    for model, fixes in ((Fixing(), True), (Branching(), False)):
        with pytest.raises(Exception) as found:  # noqa: PT011  (torch's own, of several kinds)
            exported(model, torch.ones(4, 2))
        assert internals.fixes_a_size(found.value) is fixes
        assert internals.depends_on_values(found.value) is not fixes


def test_the_line_that_fixes_a_size():
    level, filters = SHAPES.level, list(SHAPES.filters)
    stack = internals.stack_that_fixes_a_size(lambda: exported(Fixing(), torch.ones(4, 2)))
    lines, start = inspect.getsourcelines(Fixing)
    (number,) = (start + i for i, line in enumerate(lines) if "int(count)" in line)
    assert f'{Path(__file__).name}", line {number}, in forward' in stack
    assert internals.__file__ not in stack
    assert (SHAPES.level, SHAPES.filters) == (level, filters)
    assert internals.stack_that_fixes_a_size(lambda: exported(nn.Flatten(), torch.ones(4, 2))) == ""


def test_listening_shows_no_more_of_the_log(caplog):
    internals.stack_that_fixes_a_size(lambda: exported(Fixing(), torch.ones(4, 2)))
    assert not [record for record in caplog.records if record.name == SHAPES.name]


@pytest.mark.filterwarnings("ignore")
def test_the_operations_that_onnx_lacks():
    class Lacking(nn.Module):
        def forward(self, x):
            return torch.special.bessel_j0(x)

    with pytest.raises(Exception) as found:  # noqa: PT011  (torch's own)
        torch.onnx.export(Lacking(), (torch.ones(2, 2),), dynamo=True, verbose=False)
    assert internals.operations_named(found.value) == ["prims.bessel_j0"]
    assert internals.operations_named(ValueError("nothing")) == []


def test_free_sizes_are_compared_as_expressions():
    class Doubled(nn.Module):
        def forward(self, x):
            return torch.cat([x, x])

    program = exported(Doubled(), torch.ones(5, 3))
    x, cat = (next(n for n in program.graph.nodes if n.op == op) for op in ("placeholder", "call_function"))
    batch, twice = (internals.size_expression(n.meta["val"].shape[0]) for n in (x, cat))
    assert twice == 2 * batch
    assert twice.subs(batch, 7) == 14
    assert internals.size_expression(cat.meta["val"].shape[0] * 0 + 3) == 3


def test_numbers_read_off_values():
    class Reading(nn.Module):
        def forward(self, x):
            return x * x.sum().item() + x.shape[0] / 2

    numbers = [n.meta["val"] for n in exported(Reading(), torch.ones(5, 3)).graph.nodes if n.op == "call_function"]
    numbers = [n for n in numbers if isinstance(n, torch.SymFloat)]
    assert {internals.read_off_values(number) for number in numbers} == {False, True}


def test_calls_on_traced_values_leave_the_batch_free():
    program = exported(nn.Flatten(), torch.ones(5, 3, 2))
    value = next(n.meta["val"] for n in program.graph.nodes if n.op == "placeholder")
    made = internals.traced_call(aten.reshape.default, (value, [-1, 6]), {}, value)
    assert internals.size_expression(made.shape[0]) == internals.size_expression(value.shape[0])
    made = internals.traced_call(aten.upsample_nearest2d.vec, (value[:, None], None, [2.0, 2.0]), {}, value)
    assert list(made.shape[1:]) == [1, 6, 4]
    assert not isinstance(internals.size_expression(made.shape[0]), int)


def test_the_layers_around_a_node():
    net = nn.Sequential(nn.Flatten(), nn.Sequential(nn.ReLU()))
    relu = next(n for n in exported(net, torch.ones(5, 3, 2)).graph.nodes if n.target is aten.relu.default)
    found = internals.layers_around(relu)
    assert [path for path, _ in found] == ["", "1", "1.0"]
    assert "ReLU" in str(found[-1][1])
    relu.meta = {}
    assert internals.layers_around(relu) == []


@pytest.mark.parametrize("mode", ["symbolic", "real"])
def test_a_module_as_one_flat_graph(mode):
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), torch.ones(5, 3, 2)
    flat = internals.flattened(net, (x,), {aten.addmm.default: lambda b, x, w: x @ w + b}, mode)
    assert torch.allclose(flat(x), net(x))
    targets = {node.target for node in flat.graph.nodes if node.op == "call_function"}
    assert all(isinstance(t, internals.Operator) or mode == "symbolic" for t in targets)
    assert aten.addmm.default not in targets
    if mode == "symbolic":
        assert torch.allclose(flat(x[:2]), net(x[:2]))


class Repeating(nn.Module):
    """The same twice, beside what differs in an argument alone, or in its type."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.sin(), x.sin(), x.sum(1, keepdim=True) + x, x + x.sum(0), x * 1, x * 1.0, x + 1e-9])


class Writing(nn.Module):
    """The same twice, and another value in between."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        first = x.sin()
        x.add_(1)
        return first + x.sin()


@pytest.mark.parametrize(("net", "sines"), [(Repeating(), 1), (Writing(), 2)])
def test_what_is_repeated_is_computed_once(net, sines):
    x = torch.rand(3, 3, dtype=torch.float64)
    flat = internals.flattened(net, (x,), {}, "real")
    assert torch.equal(flat(x), net(x))
    targets = [node.target for node in flat.graph.nodes]
    assert targets.count(aten.sin.default) == sines
    if sines == 1:
        assert targets.count(aten.sum.dim_IntList) == targets.count(aten.mul.Tensor) == 2


# Modules and tensors


def test_reading_data_is_seen():
    seen = []

    class Watching(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Watching():
        torch.ones(2).data  # noqa: B018
    assert internals.DATA_OF_TENSOR in seen


@COMPILING
def test_the_model_inside_a_compiled_one():
    net = nn.Linear(2, 2)
    assert internals.uncompiled(net) is net
    assert internals.uncompiled(torch.compile(net)) is net


@COMPILING
def test_whether_a_module_is_compiled():
    net = nn.Linear(2, 2)
    assert not internals.is_compiled(net)
    net.compile()
    assert internals.is_compiled(net)


@COMPILING
@pytest.mark.parametrize("free", [True, False])
def test_a_size_that_is_left_free(free):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    function = torch.compile(lambda x: x * 2, backend=backend, dynamic=None if free else False)
    for size in (4, 5, 6):
        x = torch.ones(size, 4)
        if free:
            internals.leave_free(x, 0)
        assert function(x).shape == (size, 4)
    assert len(graphs) == (1 if free else 3)


def test_buffers_that_are_not_saved():
    net = nn.BatchNorm1d(2)
    net.register_buffer("scratch", torch.ones(1), persistent=False)
    assert internals.is_persistent(net, "running_mean")
    assert not internals.is_persistent(net, "scratch")


def test_hooks_are_found_and_forgotten():
    net, calls = nn.Linear(2, 2), []
    net.register_forward_pre_hook(lambda *a: calls.append("before"))
    net.register_forward_hook(lambda *a: calls.append("behind"))
    net.register_full_backward_hook(lambda *a: calls.append("backward"))
    net.register_full_backward_pre_hook(lambda *a: calls.append("backward"))
    internals.forget_backward_hooks(net)
    net(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert calls == ["before", "behind"]
    assert [len(hooks) for hooks in internals.forward_hooks(net)] == [1, 1]
    for hooks in internals.forward_hooks(net):
        hooks.clear()
    net(torch.ones(1, 2))
    assert len(calls) == 2


def test_writing_in_place_is_counted():
    x = torch.ones(2)
    before = internals.times_written(x)
    x + 1
    assert internals.times_written(x) == before
    x[:1] += 1
    assert internals.times_written(x) > before


def test_structures_of_one_kind_are_mapped_together():
    kind = namedtuple("kind", "x y")
    found = internals.mapped(lambda a, b: a + b, [kind(1, 2), {"z": (3,)}], [kind(10, 20), {"z": (30,)}])
    assert found == [kind(11, 22), {"z": (33,)}] and isinstance(found[0], kind)


# Nowhere else


def private_uses(tree: ast.Module, own: set[str]) -> set[str]:
    """Names of others that start with an underscore, and experimental modules; operations (`aten._x`) are none."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            names += [f"{node.module}.{name}" for name in names] if isinstance(node, ast.ImportFrom) else []
            found |= {name for name in names if name.startswith("torch.") and ("._" in name or "experimental" in name)}
        elif isinstance(node, ast.Attribute) and (node.attr.startswith("_") or node.attr == "experimental"):
            of = ast.unparse(node.value)
            if not node.attr.startswith("__") and of not in ("self", "cls", "aten", "torch.ops.aten", "sys"):
                found |= {node.attr} - own - NAMED_TUPLES
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr", "attrgetter"):
            words = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            words = [word for word in words if not word.startswith("__")]
            found |= {word for word in words if word.startswith("_") or "._" in word} - own - NAMED_TUPLES
        elif isinstance(node, ast.Attribute) and node.attr == "expr":
            found.add("expr")
    return found


def test_private_parts_of_torch_are_used_nowhere_else():
    trees = {file: ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py")}
    assert len(trees) > 100
    defined = (ast.FunctionDef, ast.ClassDef)
    own = {n.name for tree in trees.values() for n in ast.walk(tree) if isinstance(n, defined)}
    own |= {
        target.attr
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in ast.walk(node.targets[0] if isinstance(node, ast.Assign) else node.target)
        if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self"
    }
    elsewhere = {}
    for file, tree in trees.items():
        if file != Path(internals.__file__) and (found := private_uses(tree, own)):
            elsewhere[str(file.relative_to(PACKAGE))] = sorted(found)
    assert not elsewhere
    assert len(private_uses(trees[Path(internals.__file__)], own)) > 10
