"""From an exported program to the canonical graph: one spelling for each operation.

What torch.export leaves open is closed here: lifted parameters become `get_attr` nodes on the user's module, shape
arithmetic becomes literal shapes with -1 for the batch, and copies, splits, tuple results and the many names of a
reshape become the one form that has a rule. What needs neither image nor parameter is computed here, once, and stored.

A canonical graph has one dtype, that of the image it was traced with, and can be moved to another: a cast between
float32 and float64 changes nothing but rounding and goes, and one of a mask follows the graph (`ops.cast`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.export.graph_signature import InputKind

from robnet_fx.algebra.ops import cast
from robnet_fx.errors import UnsupportedError
from robnet_fx.frontend.constants import known_values
from robnet_fx.frontend.places import layer_of, source_line
from robnet_fx.frontend.places import place_of as place_of
from robnet_fx.frontend.rewrites import FIRST_RESULTS, REWRITES
from robnet_fx.graphs import MODEL, argument, prune
from robnet_fx.machine.torch_internals import parameters_of, read_off_values

aten = torch.ops.aten

IDENTITIES = {
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.contiguous.default,
    aten.lift_fresh_copy.default,
    aten.dropout.default,
}
CASTS = {aten._to_copy.default, aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.to.other}
RESHAPES = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
}
SPLITS = {
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.tensor_split.sections,
    aten.tensor_split.indices,
}
POOLS_WITH_INDICES = {
    aten.max_pool2d_with_indices.default: aten.max_pool2d.default,
    aten.max_pool3d_with_indices.default: aten.max_pool3d.default,
}
SPELLINGS = {
    "nothing": {*IDENTITIES, *CASTS},
    "reshape": RESHAPES,
    "slices": SPLITS,
    "selections": {aten.unbind.int},
    "max_pool": set(POOLS_WITH_INDICES),
    "batch_norm": {aten._native_batch_norm_legit_no_training.default},
}
"""The operations that `Canonical` itself spells anew, by what they become."""
_EXACT = (torch.float32, torch.float64)
HALF = (torch.float16, torch.bfloat16)
_COMMUTATIVE = {aten.add.Tensor, aten.mul.Tensor}


class _Env(dict[fx.Node, fx.Node]):
    """Traced node -> canonical node, made at first use where its value is known."""

    def __init__(self, stored: Callable[[fx.Node], fx.Node]) -> None:
        super().__init__()
        self.stored = stored

    def __missing__(self, node: fx.Node) -> fx.Node:
        self[node] = self.stored(node)
        return self[node]


class Canonical:
    """The canonical graph of a decomposed program, in the making: `env` maps traced nodes to canonical ones, `known`
    those that need neither image nor parameter to their values, and `traced` the name of a canonical node to that of
    the traced one of the same value. `constants` are the tensors that the graph reads as `constants.<name>`."""

    def __init__(self, exported: torch.export.ExportedProgram) -> None:
        self.source = exported
        self.graph = fx.Graph()
        self.env = _Env(self._stored)
        self.known = known_values(exported)
        self.constants: dict[str, Tensor] = {}
        self.traced: dict[str, str] = {}
        self.varying: set[fx.Node] = set()
        (image,) = (n for n in exported.graph.nodes if n.name == exported.graph_signature.user_inputs[0])
        self.example: Tensor = image.meta["val"]
        self.batch: Any = self.example.shape[0]
        self.dtype = self.example.dtype if self.example.is_floating_point() else torch.get_default_dtype()

    def run(self) -> fx.Graph:
        inputs = {spec.arg.name: spec for spec in self.source.graph_signature.input_specs}
        for node in self.source.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node, inputs[node.name])
            elif node.op == "output":
                self._output(node)
            elif node.op == "call_function":
                try:
                    self._call(node)
                except UnsupportedError as error:
                    raise UnsupportedError(f"{error}{place_of(node)}") from None
            else:
                raise UnsupportedError(f"{node.op} {node.target} in the traced graph: control flow has no bounds")
        prune(self.graph)
        return self.graph

    def _placeholder(self, node: fx.Node, spec: Any) -> None:
        if spec.kind == InputKind.USER_INPUT:
            image = self.graph.placeholder("x")
            self.varying.add(image)
            self._place(node, image)
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            own = self.graph.get_attr(f"{MODEL}.{spec.target}")
            dtype = node.meta["val"].dtype
            self._place(node, self._cast(own) if dtype in _EXACT and dtype != self.dtype else own)
        elif spec.kind != InputKind.CONSTANT_TENSOR:
            raise UnsupportedError(f"the model takes an input of kind {spec.kind} ({node.name}), which has no bounds")

    def _place(self, node: fx.Node, made: fx.Node) -> None:
        """Record `made` as the canonical form of `node`, with shape, dtype, layer and source line."""
        self.env[node] = made
        self.traced.setdefault(made.name, node.name)
        value = node.meta.get("val")
        if isinstance(value, Tensor) and "val" not in made.meta:
            self._describe(made, value, node)

    def _describe(self, made: fx.Node, value: Tensor, node: fx.Node) -> None:
        if self._has_batch(value) and not self.varies(made):
            value = value.new_empty((1, *value.shape[1:]))  # a constant stands once for all samples
        if value.dtype in _EXACT:
            value = value.to(self.dtype)
        made.meta["val"] = value
        made.meta["dtype"] = value.dtype
        made.meta["shape"] = self._tail(value)
        made.meta["layer"] = layer_of(node)
        made.meta["source"] = source_line(node.meta.get("stack_trace"))

    def varies(self, made: fx.Node) -> bool:
        """Whether a canonical node depends on the image."""
        return made in self.varying

    @staticmethod
    def same_kind(value: Tensor, other: Tensor) -> bool:
        """Whether casting one value to the dtype of another changes no more than its rounding."""
        return value.dtype == other.dtype or (value.dtype in _EXACT and other.dtype in _EXACT)

    def derived(self, node: fx.Node, target: Any, *args: Any) -> fx.Node:
        """A call on the way to what replaces `node`; its shape is worked out on the fake values of the trace."""
        made = self.make(target, args)
        self._describe(made, target(*fx.node.map_arg(args, lambda n: n.meta["val"])), node)
        return made

    def constant(self, node: fx.Node, value: Tensor) -> fx.Node:
        """A constant tensor made for what replaces `node`, kept in the graph's dtype and where the image is."""
        name = node.name
        while name in self.constants:
            name += "_"
        dtype = self.dtype if value.dtype in _EXACT else value.dtype
        self.constants[name] = value = value.to(self.example.device, dtype, copy=True).contiguous()
        made = self.graph.get_attr(f"constants.{name}")
        self._describe(made, self.example.new_empty(value.shape, dtype=value.dtype), node)
        return made

    def make(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> fx.Node:
        """A call named after the operation: conv2d, conv2d_1, ..."""
        name = getattr(target, "__name__", str(target)).split(".")[0].strip("_")
        made = self.graph.create_node("call_function", target, args, kwargs, name=name)
        if any(source in self.varying for source in made.all_input_nodes):
            self.varying.add(made)
        return made

    def _tail(self, value: Tensor) -> tuple[Any, ...]:
        """S for a value whose first axis is the batch, else the whole shape (constants)."""
        shape = tuple(value.shape)
        return shape[1:] if self._has_batch(value) else shape

    def _has_batch(self, value: Tensor) -> bool:
        return value.dim() > 0 and isinstance(value.shape[0], torch.SymInt)

    def _stored(self, node: fx.Node) -> fx.Node:
        """The canonical form of a traced node whose value is known."""
        made = self.constant(node, self.known[node])
        self._place(node, made)
        return made

    def _cast(self, own: fx.Node) -> fx.Node:
        """A value that is independent of the image, in the graph's dtype."""
        like = self.graph.find_nodes(op="get_attr", target="constants.like")
        if not like:
            with self.graph.inserting_before(next(iter(self.graph.nodes), None)):
                like = [self.graph.get_attr("constants.like")]
            self.constants["like"] = torch.empty(0, dtype=self.dtype, device=self.example.device)
            like[0].meta = {"val": self.example.new_empty(0), "dtype": self.dtype, "shape": (0,)}
        return self.make(cast, (own, like[0]))

    def _call(self, node: fx.Node) -> None:
        value, target = node.meta.get("val"), node.target
        if isinstance(value, (torch.SymInt, int, torch.SymBool, bool, torch.SymFloat, float)) or value is None:
            return  # shape arithmetic and its assertions: shapes become literal below
        if node in self.known:
            return  # stored where it is used
        if target is operator.getitem:
            self._getitem(node)
            return
        if target in SPLITS or target in POOLS_WITH_INDICES or target in FIRST_RESULTS or target is aten.unbind.int:
            self.env[node] = self._arg(node.args[0])  # its getitems take what they need
            return
        if target is aten._native_batch_norm_legit_no_training.default:
            x, weight, bias, mean, var, momentum, eps = (self._arg(a) for a in node.args)
            inference = (x, weight, bias, mean, var, False, momentum, eps, False)
            self.env[node] = self.make(aten.batch_norm.default, inference)
            return
        if target in IDENTITIES or (target in CASTS and self.same_kind(value, _value(node.args[0]))):
            self.env[node] = self._arg(node.args[0])
            return
        if target in CASTS:
            source = self._arg(node.args[0])
            if self.varies(source) and value.dtype in HALF:
                raise UnsupportedError(f"{node.name} rounds to {value.dtype}, which has no bounds: run it in float32")
            if value.dtype in _EXACT and not self.varies(source):
                self._place(node, self._cast(source))
                return
        if isinstance(value, Tensor) and any(isinstance(size, torch.SymInt) for size in value.shape[1:]):
            raise UnsupportedError(f"{node.name} has a size besides the batch that is not fixed: {list(value.shape)}")
        if target in RESHAPES:
            self._reshape(node, value)
            return
        if target is aten.slice.Tensor and is_whole(node):
            self.env[node] = self._arg(node.args[0])
            return
        rewritten = REWRITES[target](self, node) if target in REWRITES else None
        if rewritten is not None:
            self._place(node, rewritten)
            return
        args, kwargs = self._following(node, value)
        if target in _COMMUTATIVE and not isinstance(args[0], fx.Node):
            args = (args[1], args[0])
        made = self.make(target, args, kwargs)
        if not self.varies(made) and any(isinstance(n.meta.get("val"), torch.SymInt) for n in node.all_input_nodes):
            raise UnsupportedError(f"{node.name} makes a constant out of the batch size")
        self._place(node, made)

    def _following(self, node: fx.Node, value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call without a device, and without a dtype where that is the graph's own."""
        args, kwargs = list(self._arg(node.args)), self._arg(node.kwargs)
        kwargs.pop("device", None)
        followed = isinstance(value, Tensor) and value.dtype in _EXACT and node.target not in CASTS
        if followed and argument(node, "dtype", None) is not None:
            kwargs.pop("dtype", None)
            args = args[: [entry.name for entry in parameters_of(node.target)].index("dtype")]
            if not _value(node.args[0]).is_floating_point() and not self.varies(args[0]):
                args[0] = self._cast(args[0])
        return tuple(args), kwargs

    def _reshape(self, node: fx.Node, value: Tensor) -> None:
        shape = list(value.shape)
        if self._has_batch(value):
            if not (shape[0] == self.batch):
                raise UnsupportedError(f"{node.name} moves or merges the batch axis: {shape}")
            shape[0] = -1
        self._place(node, self.make(aten.reshape.default, (self._arg(node.args[0]), shape)))

    def _getitem(self, node: fx.Node) -> None:
        producer, index = node.args
        assert isinstance(producer, fx.Node) and isinstance(index, int)
        source, target = self.env[producer], producer.target
        if target is aten._native_batch_norm_legit_no_training.default and index == 0:
            self._place(node, source)
        elif target in POOLS_WITH_INDICES and index == 0:
            args = (source, *self._arg(producer.args[1:]))
            self._place(node, self.make(POOLS_WITH_INDICES[target], args))
        elif target in SPLITS:
            axis = argument(producer, "dim", 0)
            sizes = [part.shape[axis] for part in producer.meta["val"]]
            start = sum(int(size) for size in sizes[:index])
            args = (source, axis, start, start + int(sizes[index]))
            self._place(node, self.make(aten.slice.Tensor, args))
        elif target is aten.unbind.int:
            axis = argument(producer, "dim", 0)
            self._place(node, self.make(aten.select.int, (source, axis, index)))
        elif index == 0 and target in FIRST_RESULTS and (first := FIRST_RESULTS[target](self, producer)) is not None:
            self._place(node, first)
        elif source.target is target and not self.varies(source):
            self._place(node, self.make(operator.getitem, (source, index)))
        else:
            raise UnsupportedError(f"result {index} of {target} is used by {node.name}, and only values have bounds")

    def _output(self, node: fx.Node) -> None:
        results = node.args[0]
        (logits,) = (
            result
            for result, spec in zip(results, self.source.graph_signature.output_specs, strict=True)  # type: ignore[arg-type]
            if spec.kind.name == "USER_OUTPUT"  # and no buffer or input that the model writes to
        )
        value = logits.meta["val"]
        if value.dim() < 1 or value.shape[0] != self.batch or any(size != 1 for size in value.shape[2:]):
            raise UnsupportedError(
                f"a classifier returns logits [B, classes], and this model returns {list(value.shape)}"
            )
        self.graph.output(self.env[logits])

    def _arg(self, arg: Any) -> Any:
        """An argument with nodes replaced by their canonical form and sizes by literals, -1 where the batch was."""
        if isinstance(arg, fx.Node):
            value = arg.meta.get("val")
            if isinstance(value, torch.SymInt):
                if value == self.batch:
                    return -1
                raise UnsupportedError(
                    f"{arg.name} is a size computed from the batch ({value}); only B itself is known"
                )
            if isinstance(value, (torch.SymFloat, torch.SymBool)):
                read = "read off the values of an image" if read_off_values(value) else "computed from the batch"
                raise UnsupportedError(f"{arg.name} is a number {read}, which has no bounds")
            return value if arg not in self.env and isinstance(value, (int, float, bool)) else self.env[arg]
        if isinstance(arg, (list, tuple)):
            return type(arg)(self._arg(a) for a in arg)
        if isinstance(arg, dict):
            return {key: self._arg(a) for key, a in arg.items()}
        return arg


def _value(node: Any) -> Tensor:
    value = node.meta["val"]
    assert isinstance(value, Tensor)
    return value


def is_whole(node: fx.Node) -> bool:
    """A slice that keeps everything."""
    return _value(node.args[0]).shape == _value(node).shape and argument(node, "step", 1) == 1
