"""What is used of PyTorch although it promises none of it: private names, experimental modules, words of messages.

All of it stands here, one small function a use and each with its reason, so that a new version of torch is tried in one
place: `tests/machine/test_torch_internals.py` has a test for each, and one that finds such a use elsewhere. Names of
operations (`aten._softmax.default`) are no such use: exported graphs have them.
"""

from __future__ import annotations

import contextlib
import logging
import operator
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import detect_fake_mode
from torch._ops import OpOverload
from torch.export import exported_program
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils._pytree import tree_map

# Operations

Operator = OpOverload
"""An ATen operation in one of its overloads, `aten.add.Tensor`: its type has no public name."""


def parameters_of(target: Any) -> Sequence[Any]:
    """The parameters of an ATen operation by its schema, each with a `name` and a `default_value`; none for anything
    else. `inspect.signature` knows no ATen operation."""
    return target._schema.arguments if isinstance(target, OpOverload) else ()


# Exported graphs

_EXPORTS_OWN_REMARKS = (
    (r".isinstance\(treespec, LeafSpec\). is deprecated", FutureWarning),  # it copies specs of its own
    (r"The tensor attributes? .* assigned during export", UserWarning),  # what is assigned is put back
)
_EVERY = "_collect_all_valid_cia_ops"
_SHAPES = logging.getLogger("torch.fx.experimental.symbolic_shapes")
_BETWEEN = (logging.__file__, contextlib.__file__, __file__)  # frames that are neither the model's nor torch's
_OF_VALUES = re.compile(r"data-dependent|GuardOnDataDependent|unbacked|_local_scalar_dense", re.I)


@contextlib.contextmanager
def without_exports_own_remarks() -> Iterator[None]:
    """Inside, torch.export's warnings about itself are not shown; every other warning is."""
    with warnings.catch_warnings():
        for message, category in _EXPORTS_OWN_REMARKS:
            warnings.filterwarnings("ignore", message, category)
        yield


def decomposed(
    program: torch.export.ExportedProgram, table: Mapping[Any, Callable[..., Any]]
) -> torch.export.ExportedProgram:
    """`program.run_decompositions(table)`, in half of the time for most programs.

    PyTorch replaces the kernels of each of some 600 operations that it could take apart itself, so that they stay
    whole: half of a trace. Where no entry of the table applies and nothing is written in place, only the program's own
    operations are run, and the size of a tensor is asked for.
    """
    targets = {
        node.target
        for part in program.graph_module.modules()
        if isinstance(part, fx.GraphModule)
        for node in part.graph.nodes
        if node.op == "call_function" and node.target is not operator.getitem
    }
    plain = all(
        isinstance(target, OpOverload) and target not in table and not target._schema.is_mutable for target in targets
    )
    every = getattr(exported_program, _EVERY, None)
    stays_whole = getattr(exported_program, "_is_preservable_cia_op", None)
    if not plain or every is None or stays_whole is None:
        return program.run_decompositions(dict(table))
    own = {target for target in (*targets, *table, torch.ops.aten.sym_size.int) if stays_whole(target)}
    setattr(exported_program, _EVERY, lambda: own)
    try:
        return program.run_decompositions(dict(table))
    finally:
        setattr(exported_program, _EVERY, every)


def fixes_a_size(error: Exception) -> bool:
    """Whether torch.export failed since a size that was to be free is fixed: it says so in words alone."""
    return "specialized" in str(error)


def depends_on_values(error: Exception) -> bool:
    """Whether torch.export failed since a branch or a size depends on values: several kinds of errors say so."""
    return bool(_OF_VALUES.search(f"{type(error).__name__} {error}"))


def stack_that_fixes_a_size(export: Callable[[], Any]) -> str:
    """Run a failing export again: the stack trace under which torch first replaces a free size by a number, empty where
    it does not. Only its log tells the moment."""
    level, listener = _SHAPES.level, _Listener(_SHAPES.getEffectiveLevel())
    _SHAPES.addFilter(listener)
    _SHAPES.setLevel(logging.INFO)
    try:
        export()
    except Exception:
        return listener.stack
    finally:
        _SHAPES.setLevel(level)
        _SHAPES.removeFilter(listener)
    return ""


class _Listener(logging.Filter):
    """Notes the stack under the first message that a free size became a number, and keeps back the messages that are
    there only because it listens."""

    def __init__(self, usual: int) -> None:
        super().__init__()
        self.usual, self.stack = usual, ""

    def filter(self, record: logging.LogRecord) -> bool:
        if not self.stack and re.match(r"set_replacement \w+ = \d+ ", record.getMessage()):
            frames = traceback.extract_stack()
            start = max(i for i, frame in enumerate(frames) if frame.name == stack_that_fixes_a_size.__name__)
            model = [frame for frame in frames[start:] if frame.filename not in _BETWEEN]
            self.stack = "".join(traceback.format_list(model))
        return record.levelno >= self.usual


def operations_named(error: Exception) -> list[str]:
    """The operations that torch.onnx.export says it has no form for, `aten.name.overload` in order: in words alone."""
    return sorted(set(re.findall(r"OpOverload\(op='([\w.:]+)'", str(error))))


def size_expression(size: torch.SymInt) -> Any:
    """A free size as a sympy expression, or as an int where it is one. A SymInt itself is fixed by being compared."""
    expression = size.node.expr
    return int(expression) if expression.is_Integer else expression


def read_off_values(number: torch.SymInt | torch.SymFloat | torch.SymBool) -> bool:
    """Whether a traced number depends on the values of a tensor, and not on sizes alone."""
    return bool(free_unbacked_symbols(number))


def traced_call(target: Any, args: Any, kwargs: Any, traced: Any) -> Any:
    """What a call gives on the values of an exported graph, `traced` one of them. Only under the mode that made them do
    they belong together, and in C++ some operations would fix the batch size. On tensors of a graph that was not
    exported it is the call itself."""
    mode = detect_fake_mode(traced)
    if mode is None:
        return target(*args, **kwargs)
    with mode, enable_python_dispatcher():
        return target(*args, **kwargs)


def layers_around(node: fx.Node) -> list[tuple[str, Any]]:
    """(path, class or its name) of the modules whose forward made a node of an exported graph, the outermost first.
    Export notes them where the documents do not say, with entries of its own for what is no module."""
    stack = node.meta.get("nn_module_stack") or {}
    return [entry for entry in stack.values() if not entry[0].startswith("_empty")]


def flattened(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    decompositions: Mapping[Any, Callable[..., Any]],
    mode: Literal["symbolic", "real"],
) -> fx.GraphModule:
    """A module as one graph of ATen operations, with free sizes ("symbolic") or those of the inputs ("real"). Its
    parameters are real tensors among traced values, which are refused unless a private flag allows them. What is
    computed several times from the same values, a size above all, is computed once: a third of the graph of attention.
    """
    trace = make_fx(module, decomposition_table=dict(decompositions), tracing_mode=mode, _allow_non_fake_inputs=True)
    made = trace(*inputs)
    calls = [node for node in made.graph.nodes if node.op == "call_function"]
    if not any(isinstance(node.target, OpOverload) and node.target._schema.is_mutable for node in calls):
        first: dict[tuple[Any, str], fx.Node] = {}
        for node in calls:  # the arguments are nodes, by their names, and numbers, by all their digits
            found = first.setdefault((node.target, repr((node.args, node.kwargs))), node)
            if found is not node:
                node.replace_all_uses_with(found)
                made.graph.erase_node(node)
        made.recompile()
    return made


# Modules and tensors

DATA_OF_TENSOR = torch.Tensor.data.__get__  # type: ignore[attr-defined]
"""What a TorchFunctionMode is shown where `tensor.data` is read."""


def uncompiled(model: Any) -> Any:
    """The model inside one that `torch.compile` returned, else the model: there is no public way back."""
    while hasattr(model, "_orig_mod"):
        model = model._orig_mod
    return model


def is_compiled(module: nn.Module) -> bool:
    """Whether `module.compile()` was called: a call then runs what torch.compile made, and differs from `forward`."""
    return module._compiled_call_impl is not None


def leave_free(tensor: Tensor, axis: int) -> None:
    """Have torch.compile take the size of an axis for free, where it would take equal sizes for one and the same. The
    public `mark_dynamic` refuses where a graph needs a fixed size; this one gives way."""
    torch._dynamo.maybe_mark_dynamic(tensor, axis)


def is_persistent(module: nn.Module, buffer: str) -> bool:
    """Whether one of a module's own buffers is part of its state_dict."""
    return buffer not in module._non_persistent_buffers_set


def forward_hooks(module: nn.Module) -> tuple[dict[int, Callable[..., Any]], ...]:
    """The hooks that run before and behind a module's forward, in dictionaries that may be changed. Who registered a
    hook holds the handle that removes it, nobody else."""
    return module._forward_pre_hooks, module._forward_hooks


def forget_backward_hooks(module: nn.Module) -> None:
    """Remove the hooks that would run in a module's backward pass, in place: export refuses them."""
    module._backward_hooks.clear()
    module._backward_pre_hooks.clear()


def times_written(tensor: Tensor) -> int:
    """A number that grows whenever a tensor is written to in place."""
    return tensor._version


# Structures

mapped = tree_map
"""`mapped(function, structure, *others)`: the same structure with what the function makes of its leaves, and of those
of others of its kind. The public `torch.fx.node.map_aggregate` takes one structure."""
