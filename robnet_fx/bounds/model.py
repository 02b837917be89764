"""`BoundedModel`: a classifier, a perturbation of its images and the graphs that bound it, for any batch of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from robnet_fx.algebra.domains import Interval
from robnet_fx.bounds import generator
from robnet_fx.bounds.dependence import dependents, stands_on, widest
from robnet_fx.bounds.evaluate import (
    Branch,
    branches,
    check_images,
    check_labels,
    check_pre,
    evaluate,
    margin_spec,
    other_classes,
    upper_bounds,
)
from robnet_fx.bounds.methods import Symbols, check_fixed, check_symbols, method_named
from robnet_fx.bounds.plan import Plan, plan
from robnet_fx.bounds.remarks import remarks
from robnet_fx.errors import UsageError
from robnet_fx.frontend.outputs import logits_in
from robnet_fx.graphs import LAYOUT, MODEL, OUTPUT, input_of, output_of, shape_of
from robnet_fx.images.layout import Layout, arrange, channels_first
from robnet_fx.passes import NORMALISATION
from robnet_fx.passes.head import head_of
from robnet_fx.passes.insert_perturbation import transform_of
from robnet_fx.passes.pipeline import clean, perturb
from robnet_fx.perturbations.base import Box, Perturbation, Transform, check_box
from robnet_fx.problem import Problem


class BoundedModel(nn.Module):
    """A classifier with its perturbed graph and its bounds graph, all over the user's own parameters.

    `perturbed` is `(coefficients [B, D], image [B, *S]) -> logits`; `bounds` is `(image, spec [B, K, classes],
    center=None, radius=None) -> (lower, upper) [B, K]`, over the box `[1 or B, D]` or the default one; `clean` is
    `image -> logits` without the perturbation. `classes` is the number of logits, 2 for a module of one; `input_shape`
    is that of an image, `taken` that of the user's module's own input, and `layout` says how one becomes the other.
    `output` is where the logits are in what the module returns (None where that is a tensor), and `head` what they are
    to the logits that are bounded. `remarks` are what a report must say of it all, by topic.
    Graphs are generated when first needed and read the box from buffers, so `set_eps` costs nothing.

    canonical: what `trace` returns; problem: perturbation, clip and normalisation; method: a name in `bounds.METHODS`;
    symbols: how many error symbols SSIP keeps of a sample, or "all".
    `eps` is the strength that `set_eps` set last. Raises `UsageError` and `UnsupportedOpError`.
    """

    def __init__(
        self,
        canonical: fx.GraphModule,
        problem: Problem,
        method: str = "rsip-ssip",
        symbols: Symbols = 0,
    ) -> None:
        super().__init__()
        check_symbols(symbols, method)
        self.problem, self.method, self.symbols = problem, method, symbols
        self.eps = problem.perturbation.eps
        self.head, self.remarks = head_of(canonical), remarks(canonical)
        self.output: str | None = input_of(canonical).meta.get(OUTPUT)
        self.clean = clean(canonical, problem.mean, problem.std)
        self.layout: Layout = input_of(self.clean).meta[LAYOUT]
        self.taken = self.layout.taken
        self.perturbed = perturb(self.clean, problem.perturbation, problem.clip)
        (self.classes,) = shape_of(output_of(self.perturbed))
        self.input_shape = shape_of(input_of(self.perturbed))
        self.add_module("bounds", generator.generate(self.perturbed, method, symbols))

    def by(self, method: str, symbols: Symbols = 0) -> BoundedModel:
        """The same problem by another method, over the same module, graphs and box. Raises `UsageError`."""
        other = type(self).__new__(type(self))
        nn.Module.__init__(other)
        for name, value in vars(self).items():
            if not name.startswith("_"):
                setattr(other, name, value)
        for name, child in self.named_children():
            other.add_module(name, child)
        other.method, other.symbols = method, symbols
        other.add_module("bounds", generator.generate(self.perturbed, method, symbols))
        return other

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
        """The perturbation's module: default box, tensors and rules."""
        return transform_of(self.perturbed)

    @property
    def center(self) -> Tensor:
        """`[D]`: the middle of the coefficients' box."""
        return self.transform.center

    @property
    def radius(self) -> Tensor:
        """`[D]`: the half width of the coefficients' box."""
        return self.transform.radius

    def set_eps(self, eps: float) -> None:
        """Move the box to another eps, a plain number in [0, 1]; 0 collapses it onto the image. Raises `UsageError`."""
        self.transform.set_eps(eps)
        self.eps = float(eps)

    def forward(self, coefficients: Tensor, images: Tensor) -> Tensor:
        """The logits of the perturbed images: physical coefficients `[B, D]`, images `[B, *S]` in [0, 1].
        Nothing is checked."""
        logits: Tensor = self.perturbed(coefficients, images)
        return logits

    def logits(self, images: Tensor) -> Tensor:
        """`[B, classes]`: the unperturbed network in inference form, normalisation included, of images `[B, *S]` in
        [0, 1] and in the net's dtype. Raises `UsageError`."""
        check_images(images, self.input_shape, self.center.dtype)
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

    def margins(self, images: Tensor, labels: Tensor, box: Box | None = None) -> Tensor:
        """Upper bounds `[B, classes]` of `logit_i - logit_label` over a box, -inf in the label's column.

        images `[B, *S]` in [0, 1] and in the net's dtype, labels `[B]` whole numbers,
        box: `center`, `radius` `[1 or B, D]`, one for all samples or one for each; by default the box of `set_eps`.
        Differentiable in the parameters, the images and the box. A sample is certified where every bound is below 0.
        Without gradients many classes are worked in parts, so that memory suffices.
        Raises `UsageError` for images, labels or a box that do not fit.
        """
        upper = torch.cat(list(self.margins_in_parts(images, labels, box)), 1)
        others = other_classes(labels, self.classes)
        return upper.new_full((len(images), self.classes), -torch.inf).scatter(1, others, upper)

    def margins_in_parts(
        self,
        images: Tensor,
        labels: Tensor,
        box: Box | None = None,
        *,
        rows: int | None = None,
        precision: str | None = None,
    ) -> Iterator[Tensor]:
        """The margins of the other classes, `[B, at most rows]` at a time, in order and without the label's column.

        Each part is a graph of its own, from the image to these margins: where it is used up before the next is asked
        for, memory need only hold one. `rows` defaults to all of them with gradients, and to what memory holds without.
        A `precision` (of `machine.precision`) asks for bounds to train on, which may be compiled as well; by default
        nothing is. Raises what `margins` raises, when the first part is asked for.
        """
        images, spec, over = self._asked(images, labels, box)
        yield from upper_bounds(self._upper, images, spec, over, self._widest, rows, precision)

    def branch(self, images: Tensor, labels: Tensor, box: Box, pre: Mapping[str, Interval] | None = None) -> Branch:
        """The margins of the other classes over boxes that may be split, with the form behind each of them.

        images `[B, *S]`, labels `[B]`, box `[1 or B, D]`: B pairs of an image and a box. `pre` is what is known of
        boxes that contain these, as an earlier `Branch` has it (of the same pairs, row for row): the bounds that
        relaxations stand on lie within it, so that a part of a box never knows less than the whole did. Differentiable.
        Raises `UsageError` for what does not fit, and for the methods without a backward pass, "ibp" and "ssip".
        """
        self._check_branches()
        images, spec, over = self._asked(images, labels, box)
        return self._branched(images, spec, over, pre)

    def upper_rows(self, images: Tensor, rows: Tensor, box: Box | None = None) -> Tensor:
        """Upper bounds `[B, K]` of any rows of the logits, `rows [B, K, classes]` in the net's dtype; otherwise as
        `margins`."""
        over = self._over(box, images)
        return torch.cat(
            [*upper_bounds(self._upper, self._channels_last(images), rows, over, self._widest, None, None)], 1
        )

    def branch_rows(self, images: Tensor, rows: Tensor, box: Box) -> Branch:
        """As `branch`, of any rows of the logits, `rows [B, K, classes]` in the net's dtype, which `upper` bounds."""
        self._check_branches()
        return self._branched(self._channels_last(images), rows, self._over(box, images), None)

    def _check_branches(self) -> None:
        """`UsageError` unless the method has the form behind a margin, by which a box is split."""
        if not method_named(self.method).backward:
            raise UsageError(f"method {self.method} has no form of the coefficients to split a box by; use rsip-ssip")

    def _branched(
        self, images: Tensor, spec: Tensor, over: tuple[Tensor, ...], pre: Mapping[str, Interval] | None
    ) -> Branch:
        if pre is not None:
            check_pre(pre, self._stands_on, len(images))
        return branches(self._graph("branch_graph", generator.branch), images, spec, over, pre, self._widest)

    def compile(self, *args: Any, **options: Any) -> None:
        """Have `torch.compile`, with its own options, fuse the bounds of training steps; verdicts run what is printed.

        It is compiled when first used, once with gradients and once without, for any number of images. Raises
        `UsageError` where symbols are "all": these take a layout from the images.
        """
        check_fixed(self.symbols)
        self._upper.compile(*args, dynamic=True, **options)

    def intermediate(self, images: Tensor, box: Box | None = None) -> dict[str, Interval]:
        """Canonical node name -> (lower, upper) of that node's value, for every value a relaxation stands on.

        Each end is `[B, *S]` with the value's own S; `box` as for `margins`. Raises `UsageError`."""
        table: dict[str, Interval] = evaluate(self._intermediate, len(images), images, *self._over(box, images))
        return table

    def probe(self, images: Tensor, box: Box | None = None) -> dict[str, dict[str, Interval]]:
        """Canonical node name -> domain ("ibp", "ssip", "pre") -> (lower, upper), for every node;
        otherwise as `intermediate`."""
        table: dict[str, dict[str, Interval]] = evaluate(self._probe, len(images), images, *self._over(box, images))
        return table

    def _over(self, box: Box | None, images: Tensor) -> tuple[Tensor, ...]:
        """The box as the graphs take it, none for the default one."""
        check_images(images, self.input_shape, self.center.dtype)
        return () if box is None else check_box(box, self.center, len(images))

    def _asked(self, images: Tensor, labels: Tensor, box: Box | None) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """(images, the spec of their margins, box) as the graphs take them, once they are known to fit."""
        over = self._over(box, images)
        check_labels(labels, len(images), self.classes)
        spec = margin_spec(labels, other_classes(labels, self.classes), self.classes).to(images.dtype)
        return self._channels_last(images), spec, over

    def _channels_last(self, images: Tensor) -> Tensor:
        """The images in the memory layout in which convolutions are up to twice as fast, and all follows."""
        last = images.dim() == 4 and self.layout.axes == "nchw"
        return images.contiguous(memory_format=torch.channels_last) if last else images

    def _graph(self, name: str, make: Callable[[Plan], fx.GraphModule]) -> fx.GraphModule:
        """A generated graph, made at first use and moved to wherever the model lives by sharing its sub-modules."""
        if name not in self.__dict__:
            self.__dict__[name] = make(plan(self.perturbed, self.method, self.symbols))
        graph: fx.GraphModule = self.__dict__[name]
        return graph

    @cached_property
    def _widest(self) -> int:
        """Numbers of the largest value that is bounded."""
        return widest(dependents(self.perturbed))

    @cached_property
    def _stands_on(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of the values that relaxations read."""
        return stands_on(dependents(self.perturbed))

    @property
    def _upper(self) -> fx.GraphModule:
        return self._graph("upper_graph", generator.upper)

    @property
    def _intermediate(self) -> fx.GraphModule:
        return self._graph("intermediate_graph", generator.intermediate)

    @property
    def _probe(self) -> fx.GraphModule:
        return self._graph("probe_graph", generator.probe)
