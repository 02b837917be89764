"""An ONNX network and a property opened against each other: what is bounded are the file's own inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
from torch import Tensor, fx, nn

from robnet_fx.bounds.remarks import remarks
from robnet_fx.errors import UnsupportedError, UsageError
from robnet_fx.frontend.module import trace_module
from robnet_fx.frontend.onnx.header import Port, header_of, read_proto, with_batch
from robnet_fx.frontend.onnx.load import OnnxModel, load_proto
from robnet_fx.frontend.onnx.runtime import OnnxSession, difference, tolerance
from robnet_fx.frontend.running import undisturbed
from robnet_fx.images.layout import Layout
from robnet_fx.machine.device import choose_device
from robnet_fx.passes.head import head_of
from robnet_fx.passes.insert_layout import layout_of
from robnet_fx.perturbations.input_box import InputBox, around
from robnet_fx.problem import Problem
from robnet_fx.verify.property import Case, Property
from robnet_fx.verify.question import Question
from robnet_fx.verify.solve import Counterexample

_POINTS = 8  # of the property's box, where our form of the network is compared with onnxruntime


@dataclass(frozen=True)
class Instance:
    """A network with a property of it.

    `canonical` is the graph whose outputs the questions of `cases` are about; those of `stated` are about the file's.
    The two differ where the graph has a 0 in front of them, so that one output is not taken for the logit of two
    classes. `original` runs the file itself. Bounds are computed on `device`.
    """

    model: OnnxModel
    original: OnnxSession
    canonical: fx.GraphModule
    stated: Property
    cases: tuple[Case, ...]
    device: torch.device

    @property
    def box(self) -> InputBox:
        """The smallest box around all cases: an input is free that is not the same number everywhere."""
        return _hull(self.stated)

    @property
    def problem(self) -> Problem:
        """What is bounded: inputs as they are, without clip and normalisation."""
        return Problem(self.box, None)

    def confirm(self, number: int, inputs: Tensor) -> Counterexample | None:
        """What the file itself makes of inputs `[n]`, brought into the box of a case as numbers of the file's own type;
        None where its outputs there are not what must not happen."""
        case = self.stated.cases[number]
        given = case.nearest(inputs, self.original.dtype)
        (outputs,) = self.original(given.reshape(1, *self.model.input_shape))
        return Counterexample(given, outputs) if case.violated(outputs) else None

    @property
    def layout(self) -> Layout:
        """Inputs as the file takes them."""
        return layout_of(self.canonical)

    @property
    def remarks(self) -> Mapping[str, str]:
        """What must be said of the network, by topic."""
        return remarks(self.canonical)


def open_instance(model: Path | str, stated: Property, device: str | None = None) -> Instance:
    """Load an ONNX file for a property of it, to be bounded on a device, the GPU if there is one.

    The property's `X_i` are the numbers of the file's input in row-major order, its `Y_j` those of its output, and so
    they stay: a softmax or sigmoid at the end is left out only where every condition compares two outputs, which it
    does not change; neither a normalisation nor an inner output that the file's metadata name is used. Before anything
    is bounded, onnxruntime has given the same outputs at points of the box.
    Raises `UsageError` where the numbers of inputs or outputs differ or the device cannot be used, and
    `UnsupportedError` for networks that cannot be taken.
    """
    path, place = Path(model), choose_device(device)
    proto = read_proto(path)
    loaded = _loaded(path, with_batch(proto), stated.inputs)
    if (count := math.prod(loaded.input_shape)) != stated.inputs:
        raise UsageError(f"{path} has {count} inputs, and the property is about {stated.inputs}")
    points = _points(stated).to(_dtype(loaded)).reshape(-1, *loaded.input_shape)
    with torch.no_grad():
        outputs = loaded(points)
    if outputs.shape[1] != stated.outputs:
        raise UsageError(f"{path} has {outputs.shape[1]} outputs, and the property is about {stated.outputs}")
    original = OnnxSession(proto)
    worst = difference(outputs, original(points))
    if not worst <= tolerance(loaded.part):
        raise UnsupportedError(
            f"{path}: PyTorch and onnxruntime disagree by {worst:.2g} (1 + |output|) at points of the property's box"
        )
    if stated.outputs > 1:
        canonical = _traced(loaded, points)
        if head_of(canonical).function is None or all(_compares(case.question) for case in stated.cases):
            return Instance(loaded, original, canonical, stated, stated.cases, place)
    canonical = _traced(_BehindZero(loaded), points)
    return Instance(loaded, original, canonical, stated, tuple(_behind_zero(case) for case in stated.cases), place)


def _dtype(model: OnnxModel) -> torch.dtype:
    """The floating-point type in which a file computes for us."""
    return next((p.dtype for p in model.state_dict().values() if p.is_floating_point()), torch.float32)


def _loaded(path: Path, proto: onnx.ModelProto, inputs: int) -> OnnxModel:
    if len(proto.graph.output) != 1:
        raise UnsupportedError(f"{path}: a property is about one output, and the file has {len(proto.graph.output)}")
    header, name = header_of(path, proto), proto.graph.output[0].name
    if (batch := header.fixed_batch) not in (None, 1):
        raise UnsupportedError(f"{path} takes {batch} inputs at a time, and a property is about one")
    loaded = load_proto(path, proto, _shape(path, header.image, inputs), name)
    if loaded.output_name != name:
        raise UnsupportedError(f"{path}: the output {name} is no tensor")
    if loaded.levels:
        raise UnsupportedError(f"{path}: the input is whole numbers, and a property is about real ones")
    return loaded


def _shape(path: Path, image: Port, inputs: int) -> tuple[int, ...] | None:
    """The shape of an input that leaves one of its sizes open, as the number of a property's inputs settles it; None
    where none is open."""
    if image.axes is not None and not image.open:
        return None
    sizes = [axis.size for axis in image.axes or ()][1:]
    known = math.prod(size for size in sizes if size is not None)
    if sizes.count(None) != 1 or inputs % known:
        raise UnsupportedError(f"{path}: {inputs} numbers do not settle the sizes that the input {image} leaves open")
    return tuple(inputs // known if size is None else size for size in sizes)


def _traced(module: nn.Module, example: Tensor) -> fx.GraphModule:
    """The canonical graph: inputs in the file's own layout, whatever they are."""
    with undisturbed(module) as guest:
        return trace_module(guest, example[:2])


class _BehindZero(nn.Module):
    """The outputs of a network behind a 0: as many as are no single logit, and nothing at the end that goes."""

    def __init__(self, network: OnnxModel) -> None:
        super().__init__()
        self.network, self.remarks = network, network.remarks

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.pad(self.network(inputs), [1, 0])


def _behind_zero(case: Case) -> Case:
    rows = nn.functional.pad(case.question.rows, [1, 0])
    return replace(case, question=replace(case.question, rows=rows))


def _compares(question: Question) -> bool:
    """Whether every row is a positive multiple of one output less another: what no increasing function changes."""
    rows = question.rows[0]
    two = ((rows != 0).sum(1) == 2) & (rows.sum(1) == 0)
    return bool((two & (question.offset[0] == 0)).all())


def _hull(stated: Property) -> InputBox:
    return InputBox(
        torch.stack([case.lower for case in stated.cases]).amin(0).tolist(),
        torch.stack([case.upper for case in stated.cases]).amax(0).tolist(),
    )


def _points(stated: Property) -> Tensor:
    """`[N, n]` float64 points of the property's boxes: the middle of the first, and random ones."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(_POINTS):
        case = stated.cases[number % len(stated.cases)]
        middle, radius = around(case.lower, case.upper)
        t = torch.rand(len(middle), generator=generator, dtype=torch.float64) * 2 - 1
        found.append(middle + radius * (t if number else 0 * t))
    return torch.stack(found)
