"""The first stage of every command: a model traced once, and its images, agreed on how these lie."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from robnet_fx.bounds.methods import Symbols
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.bounds.remarks import remarks
from robnet_fx.frontend import trace
from robnet_fx.frontend.onnx.load import OnnxModel, load_for
from robnet_fx.frontend.outputs import Name
from robnet_fx.frontend.unwrap import to_full_precision, unwrap
from robnet_fx.images.layout import Layout, axes_of, channels_first
from robnet_fx.images.pixels import to_float
from robnet_fx.images.sets import Data
from robnet_fx.machine.device import choose_device
from robnet_fx.opening.layout_by_labels import settle_by_labels, with_channels_first
from robnet_fx.passes.insert_layout import layout_of
from robnet_fx.perturbations.base import Perturbation
from robnet_fx.problem import Constants, Problem, numbers_of


@dataclass(frozen=True)
class Opened:
    """A model and a data set that belong together.

    `model` is the module as it was read, `canonical` its graph, which takes images channels first; those of `data` have
    the `axes`. `told` says how the layout was settled where the accuracy had to tell. `output` names the logits of a
    module that returns several tensors (a file's are settled when it is read).
    """

    model: nn.Module
    canonical: fx.GraphModule
    data: Data
    axes: str
    mean: Constants
    std: Constants
    device: torch.device
    told: str = ""
    output: Name = None

    @property
    def path(self) -> Path | None:
        """The file that the model came from."""
        return self.model.path if isinstance(self.model, OnnxModel) else None

    @property
    def name(self) -> str:
        """The model's path as it was given, or its class."""
        return str(self.path or type(self.model).__name__)

    @property
    def asked(self) -> str | None:
        """The output of a file that was chosen by name."""
        return self.model.asked if isinstance(self.model, OnnxModel) else None

    @property
    def layout(self) -> Layout:
        """How the network takes images that lie channels first."""
        return layout_of(self.canonical)

    @cached_property
    def remarks(self) -> dict[str, str]:
        """What is said of the network, by topic."""
        return remarks(self.canonical)

    @property
    def example(self) -> Tensor:
        """Two training images, float `[2, C, *spatial]` in [0, 1]."""
        return channels_first(to_float(self.data.x_train[:2], torch.zeros(())), self.axes)

    def problem(self, perturbation: Perturbation, clip: str | None = "relu") -> Problem:
        """The perturbation and the clip in front of this model's normalisation."""
        return Problem(perturbation, clip, self.mean, self.std)

    def bound(self, problem: Problem, method: str, symbols: Symbols = 0) -> BoundedModel:
        """The model compiled with its bounds, on the device."""
        return BoundedModel(self.canonical, problem, method, symbols).to(self.device)

    def bound_for_training(self, problem: Problem, method: str, symbols: Symbols = 0) -> BoundedModel:
        """The same to train: of a file in float64 a float32 copy, which is judged in the digits that the file has."""
        if isinstance(self.model, OnnxModel) and any(p.dtype == torch.float64 for p in self.model.parameters()):
            return self.bound_another(copy.deepcopy(self.model).float(), problem, method, symbols)
        return self.bound(problem, method, symbols)

    def bound_another(self, model: nn.Module, problem: Problem, method: str, symbols: Symbols = 0) -> BoundedModel:
        """Another model that takes the same images in the same layout."""
        canonical = trace(model, self.example, None if isinstance(model, OnnxModel) else self.output, self.layout)
        return BoundedModel(canonical, problem, method, symbols).to(self.device)

    def document(self) -> dict[str, Any]:
        """What a record says of model and data."""
        return {
            "model": self.name,
            "data": self.data.name,
            "data_notes": list(getattr(self.data, "notes", ())),
            "layout": self.layout.way,
            "layout_told": self.told or None,
            "normalisation": {"mean": numbers_of(self.mean), "std": numbers_of(self.std)},
        }


def open_model(
    model: nn.Module | Path | str,
    data: Data,
    *,
    mean: Constants = None,
    std: Constants = None,
    layout: str | Layout | None = None,
    flat: str | None = None,
    output: Name = None,
    device: str | torch.device | None = None,
) -> Opened:
    """Trace a module, or an ONNX file, for the images of `data`, and settle how they lie and how the model takes them.

    A module in half precision is copied in float32. `mean`, `std` stand between images and network; `layout` (by
    default what `data.axes` says, where it says something) and `flat` are the axes of the images and the order of a
    flat network's input, `output` names the logits where there are several tensors, all as `bound` takes them.
    Raises `UsageError` (of it `UnsettledLayout`, where a layout must be said) and `UnsupportedError`.
    """
    place = choose_device(None if device is None else str(device))
    example = to_float(data.x_train[:2], torch.zeros(()))
    layout = layout or getattr(data, "axes", None)
    if isinstance(model, nn.Module):
        source = to_full_precision(unwrap(model))
    else:
        asked = None if output is None else str(output)
        source, output = load_for(Path(model), tuple(example.shape[1:]), asked, axes_of(layout)), None
    canonical = trace(source, example, output, layout, flat)
    told = settle_by_labels(canonical, data.x_train, data.y_train, mean, std)
    axes, _ = with_channels_first(canonical, mean, std)
    return Opened(source, canonical, data, axes, mean, std, place, told, output)
