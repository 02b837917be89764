"""A model file and the images it is judged on, opened and checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from robnet_fx.bounds.model import BoundedModel, remarks
from robnet_fx.cli.options import Opening
from robnet_fx.frontend import trace
from robnet_fx.frontend.onnx.header import Header, read_header
from robnet_fx.frontend.onnx.load import OnnxModel, load_for, load_onnx
from robnet_fx.frontend.onnx.metadata import normalisation_of, numbers
from robnet_fx.frontend.sliding_axes import evidence
from robnet_fx.graphs import LAYOUT, input_of
from robnet_fx.images.layout import CHANNELS_FIRST, Layout, UnsettledLayout, likely
from robnet_fx.images.pixels import subset, to_float
from robnet_fx.machine import ranks
from robnet_fx.machine.device import choose_device
from robnet_fx.opening.layout_by_labels import settle_by_labels, with_channels_first
from robnet_fx.passes.insert_layout import layout_of
from robnet_fx.perturbations.bias_field import BiasField
from robnet_fx.problem import Problem
from robnet_fx.report.console import notes
from robnet_fx.report.panels import describe_box, describe_field
from robnet_fx.report.progress import Bars
from robnet_fx.zoo import data as data_sets
from robnet_fx.zoo.reading import Reading


@dataclass
class Subject:
    """What a command works on: the model, traced once, and its images, channels first.

    `mean`, `std` and `reading` are the given ones, else those of the model's metadata. `told` says how the layout was
    told apart, where labels had to.
    """

    path: Path
    model: OnnxModel
    canonical: fx.GraphModule
    data: data_sets.Dataset
    mean: list[float] | None
    std: list[float] | None
    device: torch.device
    reading: Reading
    told: str

    @property
    def layout(self) -> Layout:
        """How the network takes the images."""
        return layout_of(self.canonical)

    @cached_property
    def remarks(self) -> dict[str, str]:
        """What is said of the network, by subject."""
        return remarks(self.canonical)

    def test_images(self, limit: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """(their numbers in the test set, images, labels) of at most `limit` test images."""
        index = subset(len(self.data.x_test), limit)
        return index, self.data.x_test[index], self.data.y_test[index]

    def bound(self, field: BiasField, method: str, clip: str | None) -> BoundedModel:
        """The model compiled with its bounds, on the device."""
        return BoundedModel(self.canonical, Problem(field, clip, self.mean, self.std), method).to(self.device)

    def describe(self, field: BiasField) -> dict[str, str]:
        """The lines of the opening panel, the box of the coefficients among them."""
        model = describe_model(self.path, self.model, self.layout, field, self.remarks, self.told)
        lines = {"model": model.pop("model"), "data": describe_data(self.data), **model}
        if self.mean is not None or self.std is not None:
            lines["input"] = f"(pixels in 0..1 - {_plain(self.mean, 0)}) / {_plain(self.std, 1)}"
        several = f", {ranks.world()} processes" if ranks.world() > 1 else ""
        return {**lines, "device": f"{self.device}{several}"}

    def document(self) -> dict[str, Any]:
        """The same for JSON, as far as a certificate does not say it."""
        names = {"model": str(self.path), "data": self.data.name, "data_notes": list(self.data.notes)}
        normalisation = {"mean": self.mean, "std": self.std}
        return {**names, "layout": self.layout.way, "layout_told": self.told or None, "normalisation": normalisation}


def open_subject(opening: Opening) -> Subject:
    """Open a model, find its data set where none is named, settle its layout, and refuse one that does not fit.

    What the model's metadata say about reading the data set that they name holds unless `opening` says otherwise.
    """
    place = choose_device(opening.device)
    header = read_header(opening.model)
    named = opening.data or header.metadata.get(data_sets.METADATA_KEY)
    if named is not None and header.image.open:  # the images settle the model's sizes
        dataset, reading = _load(named, opening.reading, header, _sizes(header), _classes(header))
        model = load_for(opening.model, dataset.sizes, opening.output, dataset.axes or reading.layout)
    else:
        model = load_onnx(opening.model, output=opening.output)
        image = likely(model.input_shape).image
        spec = named or data_sets.find(image, model.classes, model.metadata)
        dataset, reading = _load(spec, opening.reading, header, image, model.classes)
    dataset.check_fit(model.input_shape, model.classes)
    mean, std = normalisation(model, opening.mean, opening.std)
    example = to_float(dataset.x_train[:2], torch.zeros(()))
    canonical = trace(model, example, layout=dataset.axes or reading.layout, flat=opening.flat)
    told = settle_by_labels(canonical, dataset.x_train, dataset.y_train, mean, std)
    axes, _ = with_channels_first(canonical, mean, std)
    if dataset.axes is None:
        dataset = dataset.channels_first(axes)
    return Subject(opening.model, model, canonical, dataset, mean, std, place, reading, told)


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


@dataclass
class Lone:
    """A model without images: `assumed` where nothing but the sizes of its input tells what these are like."""

    model: OnnxModel
    canonical: fx.GraphModule
    assumed: bool

    @property
    def layout(self) -> Layout:
        """How the network takes its images, or likely does."""
        return layout_of(self.canonical)

    @property
    def note(self) -> str:
        """What a panel says of an assumption."""
        return "an assumption, which the images of a data set would settle" if self.assumed else ""

    def describe(self, path: Path) -> dict[str, str]:
        """The lines of the opening panel."""
        return describe_file(path, self.model, self.layout, remarks(self.canonical), self.note)


def open_alone(opening: Opening) -> Lone:
    """Open a model whose images are not needed: its layout is the likely one where nothing settles it."""
    model = load_onnx(opening.model, output=opening.output)
    canonical = trace(model, layout=opening.reading.layout, flat=opening.flat)
    meta = input_of(canonical).meta
    layout, unsettled = meta[LAYOUT], isinstance(meta[LAYOUT], UnsettledLayout)
    if isinstance(layout, UnsettledLayout):
        meta[LAYOUT] = layout.layouts[0]
    square = len(layout_of(canonical).image) > len(model.input_shape) and not evidence(canonical).slides
    return Lone(model, canonical, unsettled or square)


def describe_data(data: data_sets.Dataset) -> str:
    """The line about the data set: how many images, and how they were read."""
    words = {"train": "training", "val": "validation", "test": "test"}
    counts = ", ".join(f"{len(labels)} {words[part]}" for part, (_, labels) in data.parts.items())
    return "; ".join([f"{data.name}: {counts} images", *data.notes])


def describe_model(
    path: Path, model: OnnxModel, layout: Layout, field: BiasField, remarks: Mapping[str, str], note: str = ""
) -> dict[str, str]:
    """The lines of a panel that need no data set: those of the file, the field and its box."""
    box = field.build(layout.image)
    return {
        **describe_file(path, model, layout, remarks, note),
        "field": describe_field(field.order, field.eps),
        "box": describe_box(box.center.tolist(), box.radius.tolist()),
    }


def describe_file(
    path: Path, model: OnnxModel, layout: Layout, remarks: Mapping[str, str], note: str = ""
) -> dict[str, str]:
    """The model's own lines: its layout, where that is not channels first or there is a `note` on it, and what must be
    said of its graph."""
    lines = {"model": f"{path}: images {list(layout.image)}, {model.classes} classes"}
    if layout.way != CHANNELS_FIRST or note:
        way = f"{layout.way}: the network takes {list(model.input_shape)}"
        lines["layout"] = "; ".join(filter(None, (way, note)))
    return {**lines, **remarks}


def normalisation(model: OnnxModel, mean: str | None, std: str | None) -> tuple[list[float] | None, list[float] | None]:
    """(mean, std): each as given, else as the model's metadata have it."""
    stored_mean, stored_std = normalisation_of(model.metadata)
    return (
        stored_mean if mean is None else numbers(mean, "--mean"),
        stored_std if std is None else numbers(std, "--std"),
    )


def _plain(values: list[float] | None, default: float) -> str:
    return f"{default:g}" if values is None else ", ".join(f"{value:g}" for value in values)
