"""A model file and the images it is judged on, opened and checked against each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robnet_fx import ranks
from robnet_fx.bounded import BoundedModel, bound
from robnet_fx.device import choose_device
from robnet_fx.field import BiasField
from robnet_fx.frontend.onnx import OnnxModel, load_onnx
from robnet_fx.images import subset, to_float
from robnet_fx.layout import CHANNELS_FIRST, Shape, image_shape, layout
from robnet_fx.metadata import normalisation_of, numbers
from robnet_fx.report.console import notes
from robnet_fx.report.panels import describe_box, describe_field
from robnet_fx.report.progress import Bars
from robnet_fx.zoo import data as data_sets
from robnet_fx.zoo.reading import AS_STORED, Reading


@dataclass
class Subject:
    """What a command works on. `mean`, `std` and `reading` are the given ones, else those of the model's metadata."""

    path: Path
    model: OnnxModel
    data: data_sets.Dataset
    mean: list[float] | None
    std: list[float] | None
    device: torch.device
    reading: Reading

    @cached_property
    def example(self) -> Tensor:
        """Two images in [0, 1]."""
        return to_float(self.data.x_train[:2], torch.zeros(()))

    def test_images(self, limit: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """(their numbers in the test set, images, labels) of at most `limit` test images."""
        index = subset(len(self.data.x_test), limit)
        return index, self.data.x_test[index], self.data.y_test[index]

    def bound(self, field: BiasField, method: str, clip: str | None) -> BoundedModel:
        """The model compiled with its bounds, on the device."""
        net = bound(self.model, field, method, clip, self.mean, self.std, example=self.example)
        return net.to(self.device)

    def describe(self, field: BiasField) -> dict[str, str]:
        """The lines of the opening panel, the box of the coefficients among them."""
        model = describe_model(self.path, self.model, self.data.input_shape, field)
        lines = {"model": model.pop("model"), "data": describe_data(self.data), **model}
        if self.mean is not None or self.std is not None:
            lines["input"] = f"(pixels in 0..1 - {_plain(self.mean, 0)}) / {_plain(self.std, 1)}"
        several = f", {ranks.world()} processes" if ranks.world() > 1 else ""
        return {**lines, "device": f"{self.device}{several}"}

    def document(self) -> dict[str, Any]:
        """The same for JSON, as far as a certificate does not say it."""
        names = {"model": str(self.path), "data": self.data.name, "data_notes": list(self.data.notes)}
        way = layout(self.data.input_shape, self.model.input_shape)
        return {**names, "layout": way, "normalisation": {"mean": self.mean, "std": self.std}}


def open_subject(
    path: Path,
    data: str | None,
    mean: str | None,
    std: str | None,
    device: str | None,
    reading: Reading = AS_STORED,
) -> Subject:
    """Open a model, find its data set where none is named, and refuse one that does not fit.

    What the model's metadata say about reading the data set that they name holds unless `reading` says otherwise.
    """
    place = choose_device(device)
    model = load_onnx(path)
    constants = normalisation(model, mean, std)
    images = image_shape(model.input_shape)
    spec = data or data_sets.find(images, model.classes, model.metadata)
    remembered = model.metadata.get(data_sets.METADATA_KEY)
    if remembered is not None and Path(spec).resolve() == Path(remembered).resolve():
        reading = reading.completed(model.metadata)
    bars = Bars(notes())
    dataset = ranks.leader_first(
        lambda: data_sets.load(spec, reading, shape=images, classes=model.classes, progress=bars)
    )
    if dataset.axes is None:
        dataset = dataset.channels_first(axes_for(dataset.sizes, model.input_shape))
    dataset.check_fit(model.input_shape, model.classes)
    return Subject(path, model, dataset, *constants, place, reading)


def axes_for(sizes: Shape, taken: Shape) -> str:
    """What the sizes of an image are, "nchw", "nhwc" or "nhw", for a network whose input is `taken`."""
    grey = {"nhw": (1, *sizes)} if len(sizes) < 4 else {}
    moved = {"nchw": tuple(sizes), "nhwc": (*sizes[-1:], *sizes[:-1]), **grey}
    exact = [way for way, shape in moved.items() if shape == image_shape(taken)]
    fitting = [way for way, shape in moved.items() if layout(shape, taken) is not None]
    return [*exact, *fitting, "nchw" if len(sizes) > 2 else "nhw"][0]


def describe_data(data: data_sets.Dataset) -> str:
    """The line about the data set: how many images, and how they were read."""
    words = {"train": "training", "val": "validation", "test": "test"}
    counts = ", ".join(f"{len(labels)} {words[part]}" for part, (_, labels) in data.parts.items())
    return "; ".join([f"{data.name}: {counts} images", *data.notes])


def describe_model(path: Path, model: OnnxModel, images: Shape | None, field: BiasField) -> dict[str, str]:
    """The lines of a panel that need no data set: those of the file, the field and its box."""
    box = field.build(images or image_shape(model.input_shape))
    return {
        **describe_file(path, model, images),
        "field": describe_field(field.order, field.eps),
        "box": describe_box(box.center.tolist(), box.radius.tolist()),
    }


def describe_file(path: Path, model: OnnxModel, images: Shape | None = None) -> dict[str, str]:
    """The model's own lines: its layout where that is not channels first, and its softmax where it ends in one.

    Where the shape of the images is not known the likely one is assumed, and the lines say so.
    """
    assumed = "" if images else "; an assumption, which the images of a data set would settle"
    images = images or image_shape(model.input_shape)
    lines = {"model": f"{path}: images {list(images)}, {model.classes} classes"}
    way = layout(images, model.input_shape)
    if way != CHANNELS_FIRST:
        lines["layout"] = f"{way}: the network takes {list(model.input_shape)}{assumed}"
    if model.last_operator in ("Softmax", "LogSoftmax"):
        lines["output"] = f"{model.last_operator}, left out of the bounds: margins are those of the logits before it"
    return lines


def normalisation(model: OnnxModel, mean: str | None, std: str | None) -> tuple[list[float] | None, list[float] | None]:
    """(mean, std): each as given, else as the model's metadata have it."""
    stored_mean, stored_std = normalisation_of(model.metadata)
    return (
        stored_mean if mean is None else numbers(mean, "--mean"),
        stored_std if std is None else numbers(std, "--std"),
    )


def _plain(values: list[float] | None, default: float) -> str:
    return f"{default:g}" if values is None else ", ".join(f"{value:g}" for value in values)
