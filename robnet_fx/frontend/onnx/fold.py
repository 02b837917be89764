"""Computing what needs no image: shape arithmetic, chains of constants, and where in the file a constant came from."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from robnet_fx.frontend.onnx.operators.node import Data, Known, Refused, Stored

_MOVES = {"Identity", "Cast", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}  # each element kept, one place


def fold(
    proto: onnx.NodeProto,
    inputs: Sequence[Known | Data | None],
    imports: Sequence[onnx.OperatorSetIdProto],
    dynamic: bool,
) -> dict[str, Known]:
    """A node's outputs at both sample batch sizes, and what is stored if it only moves that.

    With `dynamic` unset the file fixes its batch size, and its shapes are the same for both samples.
    """
    arrays = [None if value is None else np.asarray(value.base) for value in inputs]
    base = _run(proto, arrays, imports)
    same = not dynamic or all(value is None or value.base is value.lifted for value in inputs)
    others = arrays if same else [None if value is None else np.asarray(value.lifted) for value in inputs]
    lifted = base if same else _run(proto, others, imports)
    stored, first = None, inputs[0] if inputs else None
    if proto.op_type == "Constant":
        stored = Stored(proto.output[0])
    elif proto.op_type in _MOVES and isinstance(first, Known) and first.stored:
        stored = first.stored
        ordered = proto.op_type != "Transpose" and stored.index is None  # perhaps another shape, the same order
        if not ordered and proto.op_type not in ("Identity", "Cast"):
            stored = Stored(stored.name, _run(proto, [first.places(), *arrays[1:]], imports)[0])
    values = zip(proto.output, base, lifted, strict=False)
    return {name: Known(b, c, stored) for name, b, c in values if name}


def _run(
    proto: onnx.NodeProto, arrays: Sequence[np.ndarray | None], imports: Sequence[onnx.OperatorSetIdProto]
) -> list[np.ndarray]:
    given = {name: array for name, array in zip(proto.input, arrays, strict=True) if array is not None}
    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    inputs = [helper.make_tensor_value_info(name, types[name], array.shape) for name, array in given.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in proto.output if name]
    model = helper.make_model(helper.make_graph([proto], "constant", inputs, outputs), opset_imports=list(imports))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = ReferenceEvaluator(model).run(None, given)
    except Exception as error:
        raise Refused(f"its constant value cannot be computed: {first_line(error)}") from error
    return [np.asarray(result) for result in results]


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind."""
    return re.sub(r"\s+", " ", str(error).strip().split("\n")[0])[:200] or type(error).__name__
