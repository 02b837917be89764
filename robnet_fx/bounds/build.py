"""`bound`: from a classifier and a perturbation to a `BoundedModel`, traced, transformed and generated once."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from robnet_fx.bounds.methods import Symbols
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.frontend import trace
from robnet_fx.frontend.outputs import Name
from robnet_fx.images.layout import Layout
from robnet_fx.perturbations.base import Perturbation
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
    symbols: Symbols = 0,
) -> BoundedModel:
    """Compile a classifier and a perturbation into the graphs that bound it.

    model: an nn.Module, or the path of an ONNX file. perturbation: `BiasField` or `WhiteNoise`. method: "ibp", "ssip",
    "rsip-ibp", "rsip-ssip" or "rsip". clip: "relu" (the paper's form), "clamp" or None. mean, std: the
    normalisation between the clip and the network, one number a channel or one for all. example: images in [0, 1], with
    the axes that all images have from then on; an ONNX file brings its own shape, and needs an example only where it is
    flat and its images are not square. output: which tensor is the logits where there are several, as `trace` takes it.
    layout: the axes of images, "nchw", "nhwc" or "nhw" (grey, no channel axis), needed where neither their sizes nor
    the network's layers tell them; the field runs over the spatial ones. flat: the order of a flat network's input,
    "planes" or "pixels". symbols: how many errors of relaxations SSIP keeps of a sample as variables of their own,
    which later layers can cancel: a number, "all" that memory holds, or 0. A module is left as it was found, and
    `net.model` is that very object, but for one in half precision, of which it is a float32 copy. Raises `UsageError`
    (of it `UnsettledLayout`, where a layout must be said) or `UnsupportedError`, the latter listing every node without
    a rule.
    """
    canonical = trace(model, example, output, layout, flat)
    return BoundedModel(canonical, Problem(perturbation, clip, mean, std), method, symbols)


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
    symbols: Symbols = 0,
) -> Tensor:
    """Upper bounds `[B, classes]` of `logit_i - logit_label` over the perturbation, -inf in the label's column."""
    net = bound(model, perturbation, method, clip, mean, std, images[:2], output, layout, flat, symbols)
    return net.margins(images.to(net.center.dtype), labels)
