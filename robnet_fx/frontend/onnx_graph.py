"""An ONNX graph as a `torch.fx.GraphModule`: one small module for each node, the file's weights as its parameters.

The graph is walked once, with two sample batches at hand: one of the file's own batch size, one larger. What needs no
image (shape arithmetic, constant chains) is evaluated on the way, so that only the network is left; comparing the two
samples says where the batch is, so that a file exported for one image serves any number. Every parameter remembers
which initialiser it came from: writing the network back is then putting the values where they were.
"""

from __future__ import annotations

import operator
import re
import warnings
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, fx, nn

from robnet_fx.frontend.onnx_ops import OPS, Data, Function, Known, Node, Refused, Stored

_ALIASES = {"Identity", "Dropout"}  # in inference the output is the input
_SHAPES = {"Shape", "Size"}  # known whatever the image
_MOVES = {"Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}  # each element kept, one place

# What an operator calls its constants, by input. Those of LEARNED operators are trained, except running statistics.
_ROLES = {
    "Conv": ("", "weight", "bias"),
    "ConvTranspose": ("", "weight", "bias"),
    "Gemm": ("weight", "weight", "bias"),
    "MatMul": ("weight", "weight"),
    "BatchNormalization": ("", "weight", "bias", "running_mean", "running_var"),
    "InstanceNormalization": ("", "weight", "bias"),
    "LayerNormalization": ("", "weight", "bias"),
    "GroupNormalization": ("", "weight", "bias"),
    "PRelu": ("", "weight"),
    "Add": ("bias", "bias"),
    "Sub": ("bias", "bias"),
    "Mul": ("weight", "weight"),
}
_AFTER_LEARNED = {"Add", "Sub", "Mul"}  # before the first learned layer these normalise the image: not to be trained
_NO_FORM = "no PyTorch form of this operator"


class OnnxOp(nn.Module):
    """One node: a function of the values computed before it and of its own constants."""

    def __init__(self, function: Function, onnx_name: str) -> None:
        super().__init__()
        self.function, self.onnx_name = function, onnx_name
        self.slots: list[Any] = []  # for each ONNX input: `Data`, the name of a constant, a number, or None

    def forward(self, *data: Tensor) -> Any:
        """The node's output, or a tuple of them; `data` are its inputs that depend on the image, in order."""
        values = iter(data)
        return self.function(*(self._fill(slot, values) for slot in self.slots))

    def _fill(self, slot: Any, values: Any) -> Any:
        return next(values) if slot is Data else getattr(self, slot) if isinstance(slot, str) else slot

    def extra_repr(self) -> str:
        return self.onnx_name


class GraphReader:
    """Reads one ONNX graph; then `module` is the network, `stored` says where in the file each constant lives."""

    def __init__(self, model: onnx.ModelProto, base: Tensor, lifted: Tensor, dynamic: bool) -> None:
        self.proto = model.graph
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        self.imports, self.dynamic, self.batch = list(model.opset_import), dynamic, base.shape[0]
        self.input_shape = tuple(base.shape[1:])
        self.graph = fx.Graph()
        self.modules: dict[str, nn.Module] = {}
        self.tensors: dict[tuple[Any, ...], Tensor] = {}
        self.stored: dict[str, Stored | None] = {}
        self.refused: list[str] = []
        self.values: dict[str, Known | Data] = {}
        for tensor in self.proto.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            self.values[tensor.name] = Known(array, array, Stored(tensor.name))
        name = next(i.name for i in self.proto.input if i.name not in self.values)
        self.values[name] = Data(base, lifted, self.graph.placeholder("images"), learned=False)

    def read(self) -> None:
        """Walk the nodes. What cannot be taken is collected in `refused`, one line for each node."""
        for proto in self.proto.node:
            inputs = [self.values.get(name) if name else None for name in proto.input]
            behind = any(name and value is None for name, value in zip(proto.input, inputs, strict=True))
            try:
                if not behind:
                    self._node(proto, inputs)
                elif _qualified(proto) not in OPS.keys() | _ALIASES | _SHAPES:
                    raise Refused(_NO_FORM)  # behind a refused node little is known, but this is
            except Refused as reason:
                label = proto.name or ", ".join(proto.output)
                self.refused.append(f"  node    {label} ({_qualified(proto)}): {reason}")
        output = self.values.get(self.proto.output[0].name)
        if isinstance(output, Data):
            self.graph.output(output.place)
            self.module = fx.GraphModule(self.modules, self.graph, "OnnxGraph")
            self.output: Data | None = output
        else:
            self.output = None

    def _node(self, proto: onnx.NodeProto, inputs: list[Known | Data | None]) -> None:
        data = [value for value in inputs if isinstance(value, Data)]
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in proto.attribute):
            raise Refused("control flow")
        if not data or (proto.op_type in _SHAPES and proto.domain in ("", "ai.onnx")):
            self._evaluate(proto, inputs)
        elif proto.op_type in _ALIASES and isinstance(inputs[0], Data):
            if proto.op_type == "Dropout" and len(inputs) > 2 and _is_true(inputs[2]):
                raise Refused("dropout exported in training mode; export the model after model.eval()")
            self.values[proto.output[0]] = inputs[0]
        else:
            self._emit(proto, inputs, data)

    # ---- what needs no image ---------------------------------------------------------------------------------------

    def _evaluate(self, proto: onnx.NodeProto, inputs: list[Known | Data | None]) -> None:
        """Compute a node at both sample batch sizes; keep track of a stored constant that is only moved."""
        base = self._run(proto, [None if v is None else np.asarray(v.base) for v in inputs])
        same = not self.dynamic or all(v is None or v.base is v.lifted for v in inputs)
        lifted = base if same else self._run(proto, [None if v is None else np.asarray(v.lifted) for v in inputs])
        stored = None
        if proto.op_type == "Constant":
            stored = Stored(proto.output[0])
        elif proto.op_type in _MOVES and isinstance(inputs[0], Known) and inputs[0].stored:
            stored = self._moved(proto, inputs[0], [None if v is None else np.asarray(v.base) for v in inputs])
        for name, b, c in zip(proto.output, base, lifted, strict=False):
            if name:
                self.values[name] = Known(b, c, stored)

    def _moved(self, proto: onnx.NodeProto, value: Known, arrays: list[np.ndarray | None]) -> Stored | None:
        assert value.stored is not None
        if proto.op_type in ("Identity", "Cast"):  # a cast element is the stored one in another precision
            return value.stored
        if proto.op_type != "Transpose" and value.stored.index is None:
            return value.stored  # another shape, the same order
        start = np.arange(value.base.size) if value.stored.index is None else value.stored.index
        arrays[0] = start.reshape(value.base.shape)
        return Stored(value.stored.name, self._run(proto, arrays)[0])

    def _run(self, proto: onnx.NodeProto, arrays: list[np.ndarray | None]) -> list[np.ndarray]:
        given = {name: array for name, array in zip(proto.input, arrays, strict=True) if array is not None}
        make = onnx.helper
        types = {name: make.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
        inputs = [make.make_tensor_value_info(name, types[name], array.shape) for name, array in given.items()]
        outputs = [onnx.ValueInfoProto(name=name) for name in proto.output if name]
        graph = make.make_graph([proto], "constant", inputs, outputs)
        model = make.make_model(graph, opset_imports=self.imports)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results = ReferenceEvaluator(model).run(None, given)
        except Exception as error:
            raise Refused(f"its constant value cannot be computed: {_first_line(error)}") from error
        return [np.asarray(result) for result in results]

    # ---- what does -------------------------------------------------------------------------------------------------

    def _emit(self, proto: onnx.NodeProto, inputs: list[Known | Data | None], data: list[Data]) -> None:
        builder = OPS.get(_qualified(proto))
        if builder is None:
            raise Refused(_NO_FORM)
        node = Node.of(proto, proto.name, self.opset, self.batch, inputs)
        name = self._module_name(proto)
        try:
            function = builder(node)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise Refused(f"attributes or inputs out of the ordinary: {_first_line(error)}") from error
        module = type(proto.op_type, (OnnxOp,), {"__module__": "onnx"})(function, proto.name)
        learned = any(value.learned for value in data)
        trained = proto.op_type in _ROLES and (learned or proto.op_type not in _AFTER_LEARNED)
        slots: list[Any] = []
        for index, value in enumerate(node.inputs):
            if index in node.immediate or value is None:
                slots.append(node.immediate.get(index))
            elif isinstance(value, Data):
                slots.append(Data)
            else:
                slots.append(self._constant(module, name, proto.op_type, index, value, trained))
        module.slots = slots
        learned = learned or (proto.op_type not in _AFTER_LEARNED and any(True for _ in module.parameters()))
        try:
            with torch.no_grad():
                base, lifted = module(*(v.base for v in data)), module(*(v.lifted for v in data))
        except Exception as error:
            raise Refused(_first_line(error)) from error
        self.modules[name] = module
        place = self.graph.call_module(name, tuple(v.place for v in data))
        if isinstance(base, Tensor):
            self.values[proto.output[0]] = Data(base, lifted, place, learned)
            return
        for i, output in enumerate(proto.output):
            item = self.graph.call_function(operator.getitem, (place, i))
            self.values[output] = Data(base[i], lifted[i], item, learned)

    def _constant(self, module: nn.Module, name: str, op: str, index: int, value: Known, trained: bool) -> str:
        """Register a constant on a node's module, trainable where a training framework would train it."""
        array, roles = _without_batch(value), _ROLES.get(op, ())
        role = roles[index] if index < len(roles) else ""
        slot = role if role and not hasattr(module, role) else f"constant_{index}"
        learn = trained and bool(role) and not role.startswith("running_") and array.dtype.kind == "f"
        learn = learn and (value.stored is not None or op not in _AFTER_LEARNED)  # a computed mask is not a bias
        plain = value.stored is not None and value.stored.index is None
        key = (value.stored.name, array.shape, learn) if value.stored is not None and plain else None
        tensor = self.tensors.get(key) if key else None
        if tensor is None:
            tensor = torch.from_numpy(np.array(array))  # a copy: the file's own values stay as they are
            tensor = nn.Parameter(tensor) if learn else tensor
            if key:
                self.tensors[key] = tensor
        if isinstance(tensor, nn.Parameter):
            module.register_parameter(slot, tensor)
        else:
            module.register_buffer(slot, tensor)
        if isinstance(tensor, nn.Parameter) or value.stored is not None:
            self.stored[f"{name}.{slot}"] = value.stored
        return slot

    def _module_name(self, proto: onnx.NodeProto) -> str:
        name = re.sub(r"\W+", "_", proto.name).strip("_") or f"{proto.op_type.lower()}_{len(self.modules)}"
        name = name if name[0].isalpha() else f"{proto.op_type.lower()}_{name}"
        while name in self.modules or hasattr(fx.GraphModule, name) or name in ("training", "graph"):
            name += "_"
        return name


def _without_batch(value: Known) -> np.ndarray:
    """A constant that has the batch as an axis (a class token repeated) with that axis brought down to 1."""
    base, lifted = value.base, value.lifted
    if base is lifted or np.array_equal(base, lifted, equal_nan=base.dtype.kind == "f"):
        return base
    if base.ndim == lifted.ndim:
        axes = [i for i, (b, c) in enumerate(zip(base.shape, lifted.shape, strict=True)) if b != c]
        if len(axes) == 1:
            first = base.take([0], axis=axes[0])
            if (base == first).all() and (lifted == first).all():
                return first
    raise Refused("a constant that depends on the batch size")


def _qualified(proto: onnx.NodeProto) -> str:
    return proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"


def _is_true(value: Known | Data | None) -> bool:
    return isinstance(value, Known) and bool(value.base.reshape(-1)[0])


def _first_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error).strip().split("\n")[0])[:200] or type(error).__name__
