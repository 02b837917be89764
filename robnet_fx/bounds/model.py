"""`bound`: trace, transform and generate once; a `BoundedModel` then bounds any batch of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from robnet_fx.algebra.domains import Interval
from robnet_fx.bounds import Generator, method_named
from robnet_fx.bounds.memory import rows_without_gradient
from robnet_fx.bounds.plan import dependent_nodes, widest
from robnet_fx.errors import UsageError
from robnet_fx.frontend import trace
from robnet_fx.frontend.outputs import Name, logits_in
from robnet_fx.graphs import LAYOUT, MODEL, OUTPUT, shape_of
from robnet_fx.images.layout import Layout, arrange, channels_first
from robnet_fx.machine.precision import bounds_precision
from robnet_fx.machine.torch_internals import is_compiled, leave_free
from robnet_fx.passes import FIELD, NORMALISATION
from robnet_fx.passes.base import input_of
from robnet_fx.passes.head import head_of
from robnet_fx.passes.pipeline import clean, perturb
from robnet_fx.perturbations.base import Perturbation, Transform
from robnet_fx.problem import Constants, Problem


def bound(
    model: nn.Module | str | Path,
    perturbation: Perturbation,
    method: str = "rsip-ssip",
    clip: str | None = "relu",
    mean: Constants = None,
    std: Constants = None,
    example: Tensor | None = None,
    output: Name = None,
    layout: str | Layout | None = None,
    flat: str | None = None,
) -> BoundedModel:
    """Compile a classifier and a perturbation into the graphs that bound it.

    model: an nn.Module, or the path of an ONNX file. perturbation: `BiasField` or `WhiteNoise`. method: "ibp", "ssip",
    "rsip-ibp", "rsip-ssip", "rsip-anchored" or "rsip". clip: "relu" (the paper's form), "clamp" or None. mean, std: the
    normalisation between the clip and the network, one number a channel or one for all. example: images in [0, 1], with
    the axes that all images have from then on; an ONNX file brings its own shape, and needs an example only where it is
    flat and its images are not square. output: which tensor is the logits where there are several, as `trace` takes it.
    layout: the axes of images, "nchw", "nhwc" or "nhw" (grey, no channel axis), needed where neither their sizes nor
    the network's layers tell them; the field runs over the spatial ones. flat: the order of a flat network's input,
    "planes" or "pixels". A module is left as it was found, and `net.model` is that very object, but for one in half
    precision, of which it is a float32 copy. Raises `UsageError` (of it `UnsettledLayout`, where a layout must be said)
    or `UnsupportedError`, the latter listing every node without a rule.
    """
    return BoundedModel(trace(model, example, output, layout, flat), Problem(perturbation, clip, mean, std), method)


def margin_bounds(
    model: nn.Module | str | Path,
    images: Tensor,
    labels: Tensor,
    perturbation: Perturbation,
    method: str = "rsip-ssip",
    clip: str | None = "relu",
    mean: Constants = None,
    std: Constants = None,
    output: Name = None,
    layout: str | Layout | None = None,
    flat: str | None = None,
) -> Tensor:
    """Upper bounds `[B, classes]` of `logit_i - logit_label` over the perturbation, -inf in the label's column."""
    net = bound(model, perturbation, method, clip, mean, std, images[:2], output, layout, flat)
    return net.margins(images.to(net.center.dtype), labels)


class BoundedModel(nn.Module):
    """A classifier with its perturbed graph and its bounds graph, all over the user's own parameters.

    `perturbed` is `(coefficients [B, D], image [B, *S]) -> logits`; `bounds` is `(image, spec [B, K, classes]) ->
    (lower, upper) [B, K]`; `clean` is `image -> logits` without the perturbation. `classes` is the number of logits, 2
    for a module of one; `input_shape` is that of an image, `taken` that of the user's module's own input, and `layout`
    says how one becomes the other. `output` is where the logits are in what the module returns (None where that is a
    tensor), and `head` what they are to the logits that are bounded. `remarks` are what a report must say of it all, by
    subject.
    Graphs are generated when first needed and read the box from buffers, so `set_eps` costs nothing.
    """

    def __init__(
        self,
        canonical: fx.GraphModule,
        problem: Problem,
        method: str = "rsip-ssip",
    ) -> None:
        super().__init__()
        method_named(method)
        self.problem, self.method = problem, method
        self.eps = problem.perturbation.eps
        self.head, self.remarks = head_of(canonical), remarks(canonical)
        self.output: str | None = input_of(canonical).meta.get(OUTPUT)
        self.clean = clean(canonical, problem.mean, problem.std)
        self.layout: Layout = input_of(self.clean).meta[LAYOUT]
        self.taken = self.layout.taken
        self.perturbed = perturb(self.clean, problem.perturbation, problem.clip)
        (self.classes,) = _output_shape(self.perturbed)
        self.input_shape = shape_of(_image(self.perturbed))
        self.add_module("bounds", Generator(self.perturbed, method).bounds(two_sided=True))

    @property
    def model(self) -> nn.Module:
        """The user's module, the very object that was given."""
        return self.perturbed.get_submodule(MODEL)

    @property
    def perturbation(self) -> Perturbation:
        """The perturbation as it was written, whatever eps `set_eps` has moved the box to."""
        return self.problem.perturbation

    @property
    def clip(self) -> str | None:
        """The form of the pixel clip."""
        return self.problem.clip

    @property
    def transform(self) -> Transform:
        transform = self.perturbed.get_submodule(FIELD)
        assert isinstance(transform, Transform)
        return transform

    @property
    def center(self) -> Tensor:
        """`[D]`: the middle of the coefficients' box."""
        return self.transform.center

    @property
    def radius(self) -> Tensor:
        """`[D]`: the half width of the coefficients' box."""
        return self.transform.radius

    def set_eps(self, eps: float) -> None:
        """Move the box to another eps, a plain number in [0, 1]; 0 collapses it onto the image."""
        self.transform.set_eps(eps)
        self.eps = float(eps)

    def forward(self, coefficients: Tensor, images: Tensor) -> Tensor:
        """The logits of the perturbed images: physical coefficients `[B, D]`, images `[B, *S]` in [0, 1]."""
        logits: Tensor = self.perturbed(coefficients, images)
        return logits

    def logits(self, images: Tensor) -> Tensor:
        """`[B, classes]`: the unperturbed network in inference form, normalisation included."""
        self._check(images)
        logits: Tensor = self.clean(images)
        return logits

    def normalise(self, images: Tensor) -> Tensor:
        """The images as the user's own module expects them: `(image - mean) / std` where given, in its layout."""
        images = channels_first(images, self.layout.axes)
        if NORMALISATION in dict(self.clean.named_children()):
            images = self.clean.get_submodule(NORMALISATION)(images)
        return arrange(images, self.layout.way, self.taken)

    def arranged(self, images: Tensor) -> Tensor:
        """The images in the layout of the user's own module, `[B, *taken]`, not normalised."""
        return arrange(channels_first(images, self.layout.axes), self.layout.way, self.taken)

    def module_logits(self, images: Tensor) -> Tensor:
        """`[B, classes]`: logits by the user's own module on a copy of the images, in the mode it is in; for training.

        Only in train mode its buffers are its own, as the statistics of a batch norm; in eval mode it gets copies.
        Of a module that ends in a softmax they are the logarithms, which differ from its logits by a constant a sample.
        """
        inputs = self.normalise(images).clone()
        if self.model.training:
            returned = self.model(inputs)
        else:
            buffers = {name: value.clone() for name, value in self.model.named_buffers()}
            returned = torch.func.functional_call(self.model, buffers, (inputs,))
        output, _ = logits_in(returned, self.output)
        return self.head.logits(output)

    def margins(self, images: Tensor, labels: Tensor) -> Tensor:
        """Upper bounds `[B, classes]` of `logit_i - logit_label` over the box, -inf in the label's column.

        Differentiable in the parameters and the images. A sample is certified where every bound is below 0. Without
        gradients many classes are worked in parts, so that memory suffices.
        Raises `UsageError` for images or labels that do not fit.
        """
        upper = torch.cat(list(self.margins_in_parts(images, labels)), 1)
        others = other_classes(labels, self.classes)
        return upper.new_full((len(images), self.classes), -torch.inf).scatter(1, others, upper)

    def margins_in_parts(
        self, images: Tensor, labels: Tensor, *, rows: int | None = None, precision: str | None = None
    ) -> Iterator[Tensor]:
        """The margins of the other classes, `[B, at most rows]` at a time, in order and without the label's column.

        Each part is a graph of its own, from the image to these margins: where it is used up before the next is asked
        for, memory need only hold one. `rows` defaults to all of them with gradients, and to what memory holds without.
        A `precision` (of `machine.precision`) asks for bounds to train on, which may be compiled as well; by default
        nothing is. Raises what `margins` raises, when the first part is asked for.
        """
        self._check(images, labels)
        graph, count = self._graph("upper_graph", _upper), len(images)
        compiled = precision is not None and is_compiled(graph)
        if compiled and count == 1:  # would be compiled as a case of its own
            images, labels = images.repeat(2, *[1] * (images.dim() - 1)), labels.repeat(2)
        spec = margin_spec(labels, other_classes(labels, self.classes), self.classes).to(images.dtype)
        # Convolutions are up to twice as fast so, and every value follows the image.
        if images.dim() == 4 and self.layout.axes == "nchw":
            images = images.contiguous(memory_format=torch.channels_last)
        margins = spec.shape[1]
        rows = rows or margins
        if not torch.is_grad_enabled():
            rows = min(rows, rows_without_gradient(self._widest, len(images)))
        for part in spec.tensor_split(math.ceil(margins / rows), 1):
            if compiled:  # else axes that happen to be equally long would be taken for one and the same
                for value, axis in ((images, 0), (part, 0), (part, 1)):
                    leave_free(value, axis)
            with bounds_precision(precision or "float32", images.device):
                upper = graph(images, part) if precision else graph.forward(images, part)  # forward is never compiled
            yield upper[:count].to(images.dtype, copy=compiled)  # CUDA graphs put their next result in the same place

    def compile(self, *args: Any, **options: Any) -> None:
        """Have `torch.compile`, with its own options, fuse the bounds of training steps; verdicts run what is printed.

        It is compiled when first used, once with gradients and once without, for any number of images.
        """
        self._graph("upper_graph", _upper).compile(*args, dynamic=True, **options)

    def intermediate(self, images: Tensor) -> dict[str, Interval]:
        """Canonical node name -> (lower, upper) of that node's value, for every value a relaxation stands on."""
        self._check(images)
        table: dict[str, Interval] = self._intermediate(images)
        return table

    def probe(self, images: Tensor) -> dict[str, dict[str, Interval]]:
        """Canonical node name -> domain ("ibp", "ssip", "pre") -> (lower, upper), for every node."""
        self._check(images)
        table: dict[str, dict[str, Interval]] = self._probe(images)
        return table

    def _check(self, images: Tensor, labels: Tensor | None = None) -> None:
        if tuple(images.shape[1:]) != self.input_shape:
            raise UsageError(f"the network takes images {list(self.input_shape)}, not {list(images.shape[1:])}")
        if images.dtype != self.center.dtype:
            raise UsageError(f"the network computes in {self.center.dtype}, and the images are {images.dtype}")
        if labels is None:
            return
        if labels.shape != images.shape[:1] or labels.is_floating_point():
            raise UsageError(f"labels must be {len(images)} whole numbers, not {labels.dtype} {list(labels.shape)}")
        if bool(((labels < 0) | (labels >= self.classes)).any()):
            raise UsageError(f"labels must lie between 0 and {self.classes - 1}")

    def _graph(self, name: str, make: Callable[[Generator], fx.GraphModule]) -> fx.GraphModule:
        """A generated graph, made at first use and moved to wherever the model lives by sharing its sub-modules."""
        if name not in self.__dict__:
            self.__dict__[name] = make(Generator(self.perturbed, self.method))
        graph: fx.GraphModule = self.__dict__[name]
        return graph

    @cached_property
    def _widest(self) -> int:
        """Numbers of the largest value that is bounded."""
        return widest(dependent_nodes(self.perturbed))

    @property
    def _intermediate(self) -> fx.GraphModule:
        return self._graph("intermediate_graph", Generator.intermediate)

    @property
    def _probe(self) -> fx.GraphModule:
        return self._graph("probe_graph", Generator.probe)


def remarks(canonical: fx.GraphModule) -> dict[str, str]:
    """What a report must say of a network beside its name, by subject: its output, and what its file is like."""
    own: dict[str, str] = dict(getattr(canonical.get_submodule(MODEL), "remarks", {}))
    path = input_of(canonical).meta.get(OUTPUT)
    chosen = f"{path} of what the module returns" if path else own.get("output")
    if said := "; ".join(filter(None, (chosen, head_of(canonical).remark))):
        own["output"] = said
    return own


def _upper(generator: Generator) -> fx.GraphModule:
    return generator.bounds(two_sided=False)


def other_classes(labels: Tensor, classes: int) -> Tensor:
    """`[B, classes - 1]`: every class but the label, in order."""
    index = torch.arange(classes - 1, device=labels.device).expand(len(labels), -1)
    return index + (index >= labels.unsqueeze(1))


def margin_spec(labels: Tensor, others: Tensor, classes: int) -> Tensor:
    """`[B, classes - 1, classes]`: the rows `e_i - e_label`, for i in `others`."""
    one_hot = nn.functional.one_hot
    return one_hot(others, classes) - one_hot(labels, classes).unsqueeze(1)


def _image(graph: fx.GraphModule) -> fx.Node:
    return next(node for node in graph.graph.nodes if node.op == "placeholder" and node.target == "image")


def _output_shape(graph: fx.GraphModule) -> tuple[int, ...]:
    output = next(node for node in graph.graph.nodes if node.op == "output")
    return shape_of(output.args[0])
