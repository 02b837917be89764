"""What holds of a graph at each stage, checked on the way into a pass and out of it.

canonical: what the front end makes of a network, `x -> logits`. clean: its output are the logits that are bounded, no
composite operation is left, and in front is what arranges and normalises the user's images. perturbed: it takes
coefficients too. At every stage an operation has one spelling, and a node says what its value is.
"""

from __future__ import annotations

import operator
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from robnet_fx.algebra.ops import Windowed
from robnet_fx.graphs import ENTRY, LAYOUT, MODEL, describe, has_batch, input_of, output_of, placeholders, shape_of
from robnet_fx.images.layout import Layout
from robnet_fx.machine.torch_internals import Operator

Fault = tuple[str, fx.Node | None]
"""What does not hold, and the node where, if there is one."""
Invariant = Callable[[fx.GraphModule], Iterator[Fault]]


@dataclass(frozen=True)
class Condition:
    """Invariants under a name; each yields its faults."""

    name: str
    invariants: tuple[Invariant, ...]

    def fault(self, module: fx.GraphModule) -> str:
        """The first thing that does not hold, with its node; empty where all does."""
        for invariant in self.invariants:
            for text, node in invariant(module):
                return text if node is None else f"{text}\n{describe(node)}"
        return ""

    def and_also(self, *more: Invariant) -> Condition:
        """The same with what a pass adds."""
        return Condition(self.name, (*self.invariants, *more))


def takes(*inputs: str) -> Invariant:
    """The graph's inputs, by name."""

    def inputs_are(module: fx.GraphModule) -> Iterator[Fault]:
        if (found := placeholders(module)) != list(inputs):
            yield f"the inputs are {', '.join(inputs)}, and these are {', '.join(found)}", None

    return inputs_are


def takes_images(module: fx.GraphModule) -> Iterator[Fault]:
    """One input, the images."""
    if (found := placeholders(module)) not in (["x"], ["image"]):
        yield f"the only input is the image, and these are {', '.join(found)}", None


def holds_model(module: fx.GraphModule) -> Iterator[Fault]:
    """The user's own module is a sub-module."""
    if MODEL not in dict(module.named_children()):
        yield f"the user's module is the sub-module {MODEL}, and there is none", None


def holds_entry(module: fx.GraphModule) -> Iterator[Fault]:
    """The box, and the node where the coefficients enter."""
    if ENTRY not in dict(module.named_children()):
        yield f"the box is held by the sub-module {ENTRY}, and there is none", None
    if not any(node.op == "call_function" and node.name == ENTRY for node in module.graph.nodes):
        yield f"the coefficients enter at the node {ENTRY}, and there is none", None


def one_output(module: fx.GraphModule) -> Iterator[Fault]:
    """One node, a value of each sample."""
    (output,) = module.graph.find_nodes(op="output") or (None,)
    value = output.args[0] if output is not None else None
    if not isinstance(value, fx.Node):
        yield "the output is one node", value if isinstance(value, fx.Node) else None
    elif not has_batch(value):
        yield "the output has the batch as its first axis", value


def logits(module: fx.GraphModule) -> Iterator[Fault]:
    """The output is `[B, classes]`, for two classes or more."""
    value = output_of(module)
    if len(shape_of(value)) != 1 or shape_of(value)[0] < 2:
        yield "the output is a logit for each of two classes or more", value


def settled(module: fx.GraphModule) -> Iterator[Fault]:
    """How the user's images lie is known."""
    image = input_of(module)
    if not isinstance(image.meta.get(LAYOUT), Layout):
        yield "the layout of the images is settled", image


def one_spelling(module: fx.GraphModule) -> Iterator[Fault]:
    """Inputs, constants and calls of ATen overloads or our own functions; none writes to what it is given."""
    for node in module.graph.nodes:
        if node.op not in ("placeholder", "get_attr", "call_function", "output"):
            yield f"a graph has inputs, constants and calls of functions, no {node.op}", node
        elif node.op == "call_function":
            target: Any = node.target
            if not isinstance(target, (Operator, types.FunctionType, Windowed)) and target is not operator.getitem:
                yield f"what is called is an ATen overload or a function, not {target}", node
            elif isinstance(target, Operator) and target.__name__.split(".")[0].endswith("_"):
                yield f"no operation writes to its arguments, as {target} does", node


def described(module: fx.GraphModule) -> Iterator[Fault]:
    """Each node says its value's sizes, dtype, layer and source, and they fit; one that depends on an input is a tensor
    with the batch first or not at all (that mixes samples, and is refused by those who ask for bounds)."""
    dependent: set[fx.Node] = set()
    for node in module.graph.nodes:
        if node.op == "output":
            continue
        meta = node.meta
        depends = node.op == "placeholder" or not dependent.isdisjoint(node.all_input_nodes)
        if depends:
            dependent.add(node)
        value = meta.get("val")
        if not isinstance(value, Tensor):
            if depends or value is None:
                yield "what depends on the image is one tensor, and its node says of what sizes and dtype (val)", node
            continue
        if missing := [key for key in ("shape", "dtype", "layer", "source") if key not in meta]:
            yield f"a node says its {', '.join(missing)}", node
            continue
        sizes, shape = tuple(value.shape), tuple(meta["shape"])
        if any(isinstance(size, torch.SymInt) for size in sizes[depends:]):  # a free size is compared with nothing
            yield "the batch is the first axis of what depends on the image, and no axis of another value", node
            continue
        if meta["dtype"] != value.dtype:
            yield f"the dtype that a node says, {meta['dtype']}, is that of its value, {value.dtype}", node
        if shape not in ((sizes[1:], sizes) if depends else (sizes,)):
            yield f"the shape that a node says, {list(shape)}, is that of its value, {list(sizes)}", node
        if node.op == "placeholder" and len(shape) == len(sizes):
            yield "an input has the batch as its first axis", node


_ALWAYS = (holds_model, one_spelling, described, one_output)
ANY = Condition("well formed", _ALWAYS)
CANONICAL = Condition("canonical", (takes_images, *_ALWAYS))
CLEAN = Condition("clean", (takes_images, *_ALWAYS, logits, settled))
PERTURBED = Condition("perturbed", (takes("coefficients", "image"), *_ALWAYS, holds_entry, logits))
