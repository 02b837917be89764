"""A model file opened as the options ask for it: with the images it is judged on, or alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from robnet_fx.bounds.memory import of_verdicts
from robnet_fx.bounds.methods import Symbols, default_method, method_named
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.bounds.remarks import remarks
from robnet_fx.cli.options import SYMBOLS, Images, Model
from robnet_fx.errors import UsageError
from robnet_fx.frontend import trace
from robnet_fx.frontend.onnx.header import Header, read_header
from robnet_fx.frontend.onnx.load import OnnxModel, load_for, load_onnx
from robnet_fx.frontend.onnx.metadata import normalisation_of, numbers
from robnet_fx.frontend.sliding_axes import evidence
from robnet_fx.graphs import LAYOUT, input_of
from robnet_fx.images.layout import Layout, UnsettledLayout, likely
from robnet_fx.images.pixels import subset
from robnet_fx.machine import ranks
from robnet_fx.machine.device import choose_device
from robnet_fx.machine.memory import available_memory
from robnet_fx.opening.instance import Instance
from robnet_fx.opening.opened import Opened, open_model
from robnet_fx.passes.insert_layout import layout_of
from robnet_fx.passes.pipeline import clean, perturb
from robnet_fx.perturbations.base import Perturbation
from robnet_fx.problem import Constants, Problem
from robnet_fx.report.console import notes
from robnet_fx.report.panels import describe_box, describe_file, describe_perturbation
from robnet_fx.report.progress import Bars
from robnet_fx.zoo import data as data_sets
from robnet_fx.zoo.reading import Reading

_NAMED = 20  # classes that a panel names


@dataclass(frozen=True)
class Judged:
    """What a command works on: model and images, channels first, with their files.

    `reading` is the given one, completed by the model's metadata.
    """

    opened: Opened
    model: OnnxModel
    data: data_sets.Dataset
    reading: Reading

    def test_images(self, limit: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """(their numbers in the test set, images, labels) of at most `limit` test images."""
        index = subset(len(self.data.x_test), limit)
        return index, self.data.x_test[index], self.data.y_test[index]

    @property
    def canonical(self) -> fx.GraphModule:
        """The graph as it was traced."""
        return self.opened.canonical

    @property
    def device(self) -> torch.device:
        """Where verdicts are computed."""
        return self.opened.device

    @property
    def layout(self) -> Layout:
        """How the network takes the images."""
        return self.opened.layout

    def problem(self, perturbation: Perturbation, clip: str | None) -> Problem:
        """What is in front of the network."""
        return self.opened.problem(perturbation, clip)

    def bound(
        self, perturbation: Perturbation, clip: str | None, asked: str | None = None, symbols: Symbols | None = 0
    ) -> BoundedModel:
        """The model with its bounds by the method that was asked for, else the usual one of such a perturbation, and
        so many symbols, or where that is None the usual number."""
        problem, method = self.problem(perturbation, clip), usual_method(perturbation, self.layout, asked)
        return self.opened.bound(problem, method, usual_symbols(self, problem, method, symbols))

    def describe(self, perturbation: Perturbation | None = None) -> dict[str, str]:
        """The lines of the opening panel, the box of the coefficients among them."""
        opened = self.opened
        own = describe_file(opened.name, self.model.classes, opened.layout, opened.remarks, opened.told)
        lines = {"model": own.pop("model"), "data": describe_data(self.data), **own}
        if perturbation is None:
            return lines | describe_classes(self.data)
        lines |= describe_problem(perturbation, opened.layout)
        if opened.mean is not None or opened.std is not None:
            lines["input"] = f"(pixels in 0..1 - {_plain(opened.mean, 0)}) / {_plain(opened.std, 1)}"
        several = f", {ranks.world()} processes" if ranks.world() > 1 else ""
        return {**lines, "device": f"{opened.device}{several}"}


def open_judged(model: Model, images: Images, *, seed: int = 0, device: str | None = None) -> Judged:
    """Open a model, find its data set where none is named, settle its layout, and refuse one that does not fit.

    What the model's metadata say about reading the data set that they name holds unless the options say otherwise.
    """
    choose_device(device)  # refused before anything is read
    header, reading = read_header(model.model), images.reading(seed)
    remembered = header.metadata.get(data_sets.METADATA_KEY)
    if images.data is None and not data_sets.there(remembered):
        raise UsageError(f"the model is for {remembered!r}, which is not here\n  remedy  --data says where it is now")
    named = images.data or remembered
    if named is not None and header.image.open:  # the images settle the model's sizes
        dataset, reading = _load(named, reading, header, _sizes(header), _classes(header))
        file = load_for(model.model, dataset.sizes, model.output, dataset.axes or reading.layout)
    else:
        file = load_onnx(model.model, output=model.output)
        image = likely(file.input_shape).image
        spec = named or data_sets.find(image, file.classes, file.metadata)
        dataset, reading = _load(spec, reading, header, image, file.classes)
    dataset.check_fit(file.input_shape, file.classes)
    mean, std = normalisation(file, model)
    layout = dataset.axes or reading.layout
    opened = open_model(file, dataset, mean=mean, std=std, layout=layout, flat=model.flat, device=device)
    if dataset.axes is None:
        dataset = dataset.channels_first(opened.axes)
    return Judged(replace(opened, data=dataset, axes="nchw"), file, dataset, reading)


def _load(
    spec: str, reading: Reading, header: Header, shape: tuple[int | None, ...], classes: int | None
) -> tuple[data_sets.Dataset, Reading]:
    remembered = header.metadata.get(data_sets.METADATA_KEY)
    if remembered is not None and Path(spec).resolve() == Path(remembered).resolve():
        reading = reading.completed(header.metadata)
    bars = Bars(notes())
    load = data_sets.load
    return ranks.leader_first(lambda: load(spec, reading, shape=shape, classes=classes, progress=bars)), reading


def _sizes(header: Header) -> tuple[int | None, ...]:
    """The sizes of an image as far as the file has them, channels first."""
    sizes = tuple(axis.size for axis in (header.image.axes or ())[1:])
    return (sizes[-1], *sizes[:-1]) if sizes and sizes[0] is None and sizes[-1] is not None else sizes


def _classes(header: Header) -> int | None:
    """How many classes the only output has, where the file says it."""
    axes = header.outputs[0].axes if len(header.outputs) == 1 else None
    return axes[1].size if axes is not None and len(axes) == 2 else None


@dataclass(frozen=True)
class Lone:
    """A model without images: `assumed` where nothing but the sizes of its input tells what these are like."""

    model: OnnxModel
    canonical: fx.GraphModule
    mean: Constants
    std: Constants
    assumed: bool

    device = torch.device("cpu")
    """Where its bounds are computed."""

    @property
    def layout(self) -> Layout:
        """How the network takes its images, or likely does."""
        return layout_of(self.canonical)

    @property
    def remarks(self) -> Mapping[str, str]:
        """What is said of the network, by topic."""
        return remarks(self.canonical)

    def problem(self, perturbation: Perturbation, clip: str | None) -> Problem:
        """What is in front of the network."""
        return Problem(perturbation, clip, self.mean, self.std)

    def describe(self, perturbation: Perturbation | None = None) -> dict[str, str]:
        """The lines of the opening panel."""
        note = "an assumption, which the images of a data set would settle" if self.assumed else ""
        lines = describe_file(self.model.path, self.model.classes, self.layout, self.remarks, note)
        return lines if perturbation is None else lines | describe_problem(perturbation, self.layout)


def open_alone(model: Model, images: Images) -> Lone:
    """Open a model whose images are not needed: its layout is the likely one where nothing settles it."""
    file = load_onnx(model.model, output=model.output)
    canonical = trace(file, layout=images.reading().layout, flat=model.flat)
    meta = input_of(canonical).meta
    found, unsettled = meta[LAYOUT], isinstance(meta[LAYOUT], UnsettledLayout)
    if isinstance(found, UnsettledLayout):
        meta[LAYOUT] = found.layouts[0]
    square = len(layout_of(canonical).image) > len(file.input_shape) and not evidence(canonical).slides
    return Lone(file, canonical, *normalisation(file, model), unsettled or square)


def open_with_or_without_data(model: Model, images: Images, device: str | None) -> Judged | Lone:
    """The model with its images where a data set is named, else alone."""
    return open_alone(model, images) if images.data is None else open_judged(model, images, device=device)


def usual_method(perturbation: Perturbation, layout: Layout, asked: str | None = None) -> str:
    """The method that was asked for, else the usual one of such a perturbation of such images."""
    if asked is not None:
        return asked
    return default_method(perturbation.build(layout.image))


def usual_symbols(found: Judged | Lone | Instance, problem: Problem, method: str, asked: Symbols | None) -> Symbols:
    """The number of symbols that was asked for, else the usual one, or a part of it that memory holds for one image;
    none where there is no SSIP.

    Raises `UsageError` for symbols where the coefficients are too many for SSIP.
    """
    transform = problem.perturbation.build(found.layout.image)
    if asked and not transform.fits_ssip:
        raise UsageError(
            f"--symbols keeps errors of SSIP, for which D = {transform.dimensions} is too many: leave it out"
        )
    if asked is not None:
        return asked
    if not (method_named(method).symbolic and transform.fits_ssip):
        return 0
    perturbed = perturb(clean(found.canonical, problem.mean, problem.std), problem.perturbation, problem.clip)
    available = available_memory(found.device)
    parts = (SYMBOLS, SYMBOLS // 4, SYMBOLS // 16, SYMBOLS // 64)
    return next((part for part in parts if of_verdicts(perturbed, symbols=part).fits(available)), 0)


def describe_data(data: data_sets.Dataset) -> str:
    """The line about the data set: how many images, and how they were read."""
    words = {"train": "training", "val": "validation", "test": "test"}
    counts = ", ".join(f"{len(labels)} {words[part]}" for part, (_, labels) in data.parts.items())
    return "; ".join([f"{data.name}: {counts} images", *data.notes])


def describe_classes(data: data_sets.Dataset) -> dict[str, str]:
    """The line about the order of the classes, which is that of the network's logits; none where they are numbers."""
    if all(name.isdecimal() for name in data.classes):
        return {}
    some = [f"{number} {name}" for number, name in enumerate(data.classes[:_NAMED])]
    return {"classes": ", ".join([*some, "..."] if len(data.classes) > _NAMED else some)}


def describe_problem(perturbation: Perturbation, layout: Layout) -> dict[str, str]:
    """The lines about a perturbation and its box."""
    return {**describe_perturbation(perturbation), "box": describe_box(perturbation.build(layout.image))}


def normalisation(file: OnnxModel, model: Model) -> tuple[list[float] | None, list[float] | None]:
    """(mean, std): each as given, else as the model's metadata have it."""
    stored_mean, stored_std = normalisation_of(file.metadata)
    return (
        stored_mean if model.mean is None else numbers(model.mean, "--mean"),
        stored_std if model.std is None else numbers(model.std, "--std"),
    )


def _plain(values: Any, default: float) -> str:
    return f"{default:g}" if values is None else ", ".join(f"{value:g}" for value in values)
