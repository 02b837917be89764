"""A model file and the images it is judged on, opened and checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from robnet_fx import ranks
from robnet_fx.bounded import BoundedModel, remarks
from robnet_fx.device import choose_device
from robnet_fx.field import BiasField
from robnet_fx.frontend import trace
from robnet_fx.frontend.onnx import OnnxModel, load_for, load_onnx
from robnet_fx.frontend.onnx_header import read_header
from robnet_fx.images import subset, to_float
from robnet_fx.layout import CHANNELS_FIRST, Shape, image_shape, layout
from robnet_fx.metadata import normalisation_of, numbers
from robnet_fx.report.panels import describe_box, describe_field
from robnet_fx.zoo import data as data_sets


@dataclass
class Subject:
    """What a command works on. `mean` and `std` are the given ones, else those of the model's metadata."""

    path: Path
    model: OnnxModel
    data: data_sets.Dataset
    mean: list[float] | None
    std: list[float] | None
    device: torch.device

    @cached_property
    def example(self) -> Tensor:
        """Two images in [0, 1]."""
        return to_float(self.data.x_train[:2], torch.zeros(()))

    @cached_property
    def canonical(self) -> fx.GraphModule:
        """The model's graph, traced once."""
        return trace(self.model, self.example)

    def test_images(self, limit: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """(their numbers in the test set, images, labels) of at most `limit` test images."""
        index = subset(len(self.data.x_test), limit)
        return index, self.data.x_test[index], self.data.y_test[index]

    def bound(self, field: BiasField, method: str, clip: str | None) -> BoundedModel:
        """The model compiled with its bounds, on the device."""
        return BoundedModel(self.canonical, field, method, clip, self.mean, self.std).to(self.device)

    def describe(self, field: BiasField) -> dict[str, str]:
        """The lines of the opening panel, the box of the coefficients among them."""
        model = describe_model(self.path, self.model, self.data.input_shape, field, remarks(self.canonical))
        data = f"{self.data.name}: {len(self.data.x_train)} training, {len(self.data.x_test)} test images"
        lines = {"model": model.pop("model"), "data": data, **model}
        if self.mean is not None or self.std is not None:
            lines["input"] = f"(pixels in 0..1 - {_plain(self.mean, 0)}) / {_plain(self.std, 1)}"
        several = f", {ranks.world()} processes" if ranks.world() > 1 else ""
        return {**lines, "device": f"{self.device}{several}"}

    def document(self) -> dict[str, Any]:
        """The same for JSON, as far as a certificate does not say it."""
        names = {"model": str(self.path), "data": self.data.name}
        way = layout(self.data.input_shape, self.model.input_shape)
        return {**names, "layout": way, "normalisation": {"mean": self.mean, "std": self.std}}


def open_subject(
    path: Path, data: str | None, mean: str | None, std: str | None, device: str | None, output: str | None = None
) -> Subject:
    """Open a model, find its data set where none is named, and refuse one that does not fit."""
    place = choose_device(device)
    header = read_header(path)
    named = data or header.metadata.get(data_sets.METADATA_KEY)
    if named is not None and header.image.open:  # the images settle the model's sizes
        dataset = ranks.leader_first(lambda: data_sets.load(named, None))
        model = load_for(path, dataset.input_shape, output)
    else:
        model = load_onnx(path, output=output)
        images = image_shape(model.input_shape)
        spec = data or data_sets.find(images, model.classes, model.metadata)
        dataset = ranks.leader_first(lambda: data_sets.load(spec, images[0] if len(images) > 1 else None))
    constants = normalisation(model, mean, std)
    dataset.check_fit(model.input_shape, model.classes)
    return Subject(path, model, dataset, *constants, place)


def describe_model(
    path: Path, model: OnnxModel, images: Shape | None, field: BiasField, remarks: Mapping[str, str]
) -> dict[str, str]:
    """The lines of a panel that need no data set: those of the file, the field and its box."""
    box = field.build(images or image_shape(model.input_shape))
    return {
        **describe_file(path, model, images, remarks),
        "field": describe_field(field.order, field.eps),
        "box": describe_box(box.center.tolist(), box.radius.tolist()),
    }


def describe_file(path: Path, model: OnnxModel, images: Shape | None, remarks: Mapping[str, str]) -> dict[str, str]:
    """The model's own lines: its layout where that is not channels first, and what must be said of its graph.

    Where the shape of the images is not known the likely one is assumed, and the lines say so.
    """
    assumed = "" if images else "; an assumption, which the images of a data set would settle"
    images = images or image_shape(model.input_shape)
    lines = {"model": f"{path}: images {list(images)}, {model.classes} classes"}
    way = layout(images, model.input_shape)
    if way != CHANNELS_FIRST:
        lines["layout"] = f"{way}: the network takes {list(model.input_shape)}{assumed}"
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
