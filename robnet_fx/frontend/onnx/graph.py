"""An ONNX graph as a `torch.fx.GraphModule`: one small module for each node, the file's weights as its parameters.

The graph is walked once, with two sample batches at hand: one of the file's own batch size, one larger. What needs no
image (shape arithmetic, constant chains) is evaluated on the way, so that only the network is left; comparing the two
samples says where the batch is, so that a file exported for one image serves any number. Every parameter remembers
which initialiser it came from: writing the network back is then putting the values where they were.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, fx, nn

from robnet_fx.frontend.onnx.fold import first_line, fold
from robnet_fx.frontend.onnx.operators.convert import NO_FORM, convert, supported
from robnet_fx.frontend.onnx.operators.node import Data, Known, Node, Refused, Stored
from robnet_fx.frontend.onnx.weights import Weights, begins_learning

_ALIASES = {"Identity", "Dropout"}  # in inference the output is the input
_CASTS = {"Cast", "CastLike"}
_SHAPES = {"Shape", "Size", "EyeLike"}  # known whatever the image
_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_FLOATING = "fV"  # numpy's kinds of them: bfloat16 is not its own
_WHOLE = {TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64}  # that hold every pixel level
_WHOLE |= {TensorProto.INT16, TensorProto.INT32, TensorProto.INT64}
_MOVES = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split", "Concat", "Expand"}
_MOVES |= {"DepthToSpace", "SpaceToDepth"}


class GraphReader:
    """Reads one ONNX graph; then `module` is the network, `stored` says where in the file each constant lives.

    Samples and weights are of one floating-point type, that of `base`, whatever types the file computes in: casts
    between these are nothing here. `inexact` then says whether some weight has more digits than this type. With
    `levels`, the file takes whole numbers, which the samples hold.
    """

    def __init__(
        self, model: onnx.ModelProto, base: Tensor, lifted: Tensor, *, dynamic: bool, levels: bool = False
    ) -> None:
        self.proto = model.graph
        self.opsets = {_domain(entry.domain): entry.version for entry in model.opset_import}
        self.imports, self.dynamic, self.batch = list(model.opset_import), dynamic, base.shape[0]
        self.levels = levels
        self.input_shape = tuple(base.shape[1:])
        self.graph, self.root, self.weights = fx.Graph(), nn.Module(), Weights()
        self.refused: list[str] = []
        self.dtype, self.type = base.dtype, np.dtype(str(base.dtype).removeprefix("torch."))
        self.inexact = False
        self.values: dict[str, Known | Data] = {}
        for tensor in self.proto.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            self.values[tensor.name] = Known(array, array, Stored(tensor.name))
        name = next(i.name for i in self.proto.input if i.name not in self.values)
        self.values[name] = Data(base, lifted, self.graph.placeholder("images"), learned=False, levels=levels)

    @property
    def stored(self) -> dict[str, Stored | None]:
        """For each parameter and stored constant of `module`, where it is in the file."""
        return self.weights.stored

    @property
    def uses(self) -> dict[str, tuple[str, int]]:
        """For each of them, the node (by its first output) and the input of that node that it is."""
        return self.weights.uses

    def read(self) -> None:
        """Walk the nodes. What cannot be taken is collected in `refused`, one line for each node."""
        self._walk(self.proto.node)
        output = self.values.get(self.proto.output[0].name)
        if isinstance(output, Data):
            self.graph.output(output.place)
            self.module = fx.GraphModule(self.root, self.graph, "OnnxGraph")
            self.output: Data | None = output
        else:
            self.output = None

    def _walk(self, nodes: Iterable[onnx.NodeProto]) -> None:
        for proto in nodes:
            inputs = [self.values.get(name) if name else None for name in proto.input]
            behind = any(name and value is None for name, value in zip(proto.input, inputs, strict=True))
            domain = _domain(proto.domain)
            try:
                if not behind:
                    self._node(proto, inputs)
                elif proto.op_type not in _ALIASES | _CASTS | _SHAPES and not supported(
                    proto.op_type, domain, self.opsets.get(domain, 1)
                ):
                    raise Refused(NO_FORM)  # behind a refused node little is known, but this is
            except Refused as reason:
                label = proto.name or ", ".join(proto.output)
                kind = f"{domain}.{proto.op_type}" if domain else proto.op_type
                self.refused.append(f"  node    {label} ({kind}): {reason}")

    def _node(self, proto: onnx.NodeProto, inputs: list[Known | Data | None]) -> None:
        data, ours = [value for value in inputs if isinstance(value, Data)], not _domain(proto.domain)
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in proto.attribute):
            self._branch(proto, inputs)
        elif not data or (ours and proto.op_type in _SHAPES):
            self.values.update(fold(proto, inputs, self.imports, self.dynamic))
        elif ours and proto.op_type in _ALIASES and isinstance(inputs[0], Data):
            if proto.op_type == "Dropout" and len(inputs) > 2 and _is_true(inputs[2]):
                raise Refused("dropout exported in training mode; export the model after model.eval()")
            self.values[proto.output[0]] = inputs[0]
        elif ours and proto.op_type in _CASTS:
            self.values[proto.output[0]] = self._cast(proto, inputs)
        else:
            levels = any(value.levels for value in data)
            if levels and not (ours and proto.op_type in _MOVES):
                raise Refused("whole numbers round or wrap in it: before a cast to floating point they may only move")
            used = [self._in_our_type(value) if isinstance(value, Known) else value for value in inputs]
            self._emit(proto, used, any(value.learned for value in data), levels)

    def _branch(self, proto: onnx.NodeProto, inputs: list[Known | Data | None]) -> None:
        """Go on in the branch that shapes and constants choose."""
        condition = inputs[0] if proto.op_type == "If" and inputs else None
        if not isinstance(condition, Known) or not np.array_equal(condition.base, condition.lifted):
            raise Refused("control flow")
        wanted = "then_branch" if _is_true(condition) else "else_branch"
        branch = next(attribute.g for attribute in proto.attribute if attribute.name == wanted)
        for tensor in branch.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            self.values[tensor.name] = Known(array, array)
        self._walk(branch.node)
        for outer, inner in zip(proto.output, branch.output, strict=True):
            if inner.name in self.values:
                self.values[outer] = self.values[inner.name]

    def _cast(self, proto: onnx.NodeProto, inputs: list[Known | Data | None]) -> Known | Data:
        """A cast to floating point changes nothing here, nor does one of whole numbers that holds them all."""
        value, like = inputs[0], inputs[1] if len(inputs) > 1 else None
        if isinstance(like, Data):
            to = TensorProto.UINT8 if like.levels else helper.np_dtype_to_tensor_dtype(self.type)
        elif like is not None:
            to = helper.np_dtype_to_tensor_dtype(like.base.dtype)
        else:
            to = next(attribute.i for attribute in proto.attribute if attribute.name == "to")
        if isinstance(value, Known) and to in _FLOATS:
            return self._in_our_type(value)
        if isinstance(value, Data) and (to in _FLOATS or (value.levels and to in _WHOLE)):
            return replace(value, levels=to not in _FLOATS)
        raise Refused(f"a cast to {TensorProto.DataType.Name(to)}")

    def _in_our_type(self, value: Known) -> Known:
        """A floating-point constant in the type of the samples."""
        if value.base.dtype.kind not in _FLOATING or value.base.dtype == self.type:
            return value
        with np.errstate(over="ignore"):  # what stands for infinity in a wider type
            base = value.base.astype(self.type)
        self.inexact = self.inexact or not np.array_equal(base.astype(value.base.dtype), value.base, equal_nan=True)
        same = value.base is value.lifted
        return Known(base, base if same else value.lifted.astype(self.type), value.stored)

    def _emit(self, proto: onnx.NodeProto, inputs: list[Known | Data | None], learned: bool, levels: bool) -> None:
        """Add the module of a node that needs the image, and a call of it with its data, constants and numbers."""
        domain = _domain(proto.domain)
        node = Node.of(proto, domain, self.opsets.get(domain, 1), self.batch, inputs)
        name = self._module_name(proto)
        try:
            converted = convert(node)
        except Refused:
            raise
        except Exception as error:
            raise Refused(f"attributes or inputs out of the ordinary: {first_line(error)}") from error
        module = _named(converted.module, proto, name)
        slots = self.weights.attach(module, name, node, converted.inputs, learned)
        learned = learned or begins_learning(node, module)
        arguments: list[Data] = []
        for index in converted.inputs:
            value: Any = node.inputs[index]
            if isinstance(value, Known):
                value = getattr(module, slots[index])
                place = self.graph.create_node("get_attr", f"{name}.{slots[index]}")
                value = Data(value, value, place, learned=False)
            elif not isinstance(value, Data):
                value = Data(value, value, value, learned=False)  # a number stands for itself
            arguments.append(value)
        try:
            with torch.no_grad():
                first, second = module(*(v.base for v in arguments)), module(*(v.lifted for v in arguments))
        except Exception as error:
            raise Refused(first_line(error)) from error
        self.root.add_module(name, module)
        place = self.graph.call_module(name, tuple(v.place for v in arguments))
        if isinstance(first, Tensor):
            self.values[proto.output[0]] = Data(first, second, place, learned, levels)
            return
        for i, output in enumerate(proto.output):
            item = self.graph.call_function(operator.getitem, (place, i))
            self.values[output] = Data(first[i], second[i], item, learned, levels)

    def _module_name(self, proto: onnx.NodeProto) -> str:
        name = re.sub(r"\W+", "_", proto.name).strip("_") or f"{proto.op_type.lower()}_{len([*self.root.children()])}"
        name = name if name[0].isalpha() else f"{proto.op_type.lower()}_{name}"
        while hasattr(self.root, name) or hasattr(fx.GraphModule, name) or name in ("training", "graph"):
            name += "_"
        return name


def _named(module: nn.Module, proto: onnx.NodeProto, name: str) -> nn.Module:
    """The module under its operator's name, so that messages about it say which node it is; for ever in eval mode.

    torch.export records for each operation the path and the class of the module it comes from. The path has only the
    letters, digits and underscores of the node's name; where that is not all of it, the class gives it in full.
    """
    full = f"{proto.op_type} {proto.name}" if proto.name not in ("", name) else proto.op_type
    module.__class__ = _class(type(module), proto.op_type, full, proto.name or None)
    return module.eval()


def _class(base: type[nn.Module], kind: str, full: str, name: str | None) -> type[nn.Module]:
    space = {
        "__module__": "onnx",
        "__qualname__": full,
        "onnx_name": name,
        "train": lambda self, mode=True: nn.Module.train(self, False),
        "__reduce__": lambda self: (_instance, (base, kind, full, name), self.__dict__),  # no module has the class
    }
    return type(kind, (base,), space)


def _instance(*of: Any) -> nn.Module:
    """What `pickle` fills with an instance's attributes."""
    made = _class(*of)
    return made.__new__(made)


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _is_true(value: Known | Data | None) -> bool:
    return isinstance(value, Known) and bool(value.base.reshape(-1)[0])
