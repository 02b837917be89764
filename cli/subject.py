"""A model file and the images it is judged on, opened and checked against each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robnet_fx.bounded import BoundedModel, bound
from robnet_fx.device import choose_device
from robnet_fx.field import BiasField
from robnet_fx.frontend.onnx import OnnxModel, load_onnx
from robnet_fx.images import subset, to_float
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
        model = describe_model(self.path, self.model, field)
        data = f"{self.data.name}: {len(self.data.x_train)} training, {len(self.data.x_test)} test images"
        lines = {"model": model.pop("model"), "data": data, **model}
        if self.mean is not None or self.std is not None:
            lines["input"] = f"(pixels in 0..1 - {_plain(self.mean, 0)}) / {_plain(self.std, 1)}"
        return {**lines, "device": str(self.device)}

    def document(self) -> dict[str, Any]:
        """The same for JSON, as far as a certificate does not say it."""
        names = {"model": str(self.path), "data": self.data.name}
        return {**names, "normalisation": {"mean": self.mean, "std": self.std}}


def open_subject(path: Path, data: str | None, mean: str | None, std: str | None, device: str | None) -> Subject:
    """Open a model, find its data set where none is named, and refuse one that does not fit."""
    place = choose_device(device)
    model = load_onnx(path)
    constants = normalisation(model, mean, std)
    spec = data or data_sets.find(model.input_shape, model.classes, model.metadata)
    channels = model.input_shape[0] if len(model.input_shape) > 1 else None
    dataset = data_sets.load(spec, channels)
    dataset.check_fit(model.input_shape, model.classes)
    return Subject(path, model, dataset, *constants, place)


def describe_model(path: Path, model: OnnxModel, field: BiasField) -> dict[str, str]:
    """The lines of a panel that need no data set: the model, the field and its box."""
    box = field.build(model.input_shape)
    return {
        "model": f"{path}: images {list(model.input_shape)}, {model.classes} classes",
        "field": describe_field(field.order, field.eps),
        "box": describe_box(box.center.tolist(), box.radius.tolist()),
    }


def normalisation(model: OnnxModel, mean: str | None, std: str | None) -> tuple[list[float] | None, list[float] | None]:
    """(mean, std): each as given, else as the model's metadata have it."""
    stored_mean, stored_std = normalisation_of(model.metadata)
    return (
        stored_mean if mean is None else numbers(mean, "--mean"),
        stored_std if std is None else numbers(std, "--std"),
    )


def _plain(values: list[float] | None, default: float) -> str:
    return f"{default:g}" if values is None else ", ".join(f"{value:g}" for value in values)
