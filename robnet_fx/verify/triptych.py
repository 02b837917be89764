"""Images to look at beside a certificate: as they are, under the worst field survived, under one that turns them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robnet_fx.algebra.logits import worst_margin
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.images.layout import channels_first
from robnet_fx.images.pixels import to_float
from robnet_fx.machine.precision import full_precision
from robnet_fx.perturbations.base import Box
from robnet_fx.perturbations.bias_field import FieldTransform
from robnet_fx.verify.ascent import RESTARTS, STEPS, climb, starting_points
from robnet_fx.verify.convert import in_dtype
from robnet_fx.verify.pictures import perturbed_images

OF_EACH = 2
"""How many images of each answer are shown."""

_HALVINGS = 7  # of the way to a field that turns an image: to about a hundredth


@dataclass(frozen=True)
class View:
    """An image `[C, *spatial]` in [0, 1] as the network sees it: the class it is taken for and the margin, the largest
    other logit minus the label's. Under a field its coefficients `[D]`, and by name `maps [C or 1, *spatial]` of what
    the field does to each pixel, 0 where that is nothing."""

    image: Tensor
    predicted: int
    margin: float
    coefficients: Tensor | None
    maps: Mapping[str, Tensor]


@dataclass(frozen=True)
class Triptych:
    """An image of a certificate, `sample` its entry there. `survived` is None where no field that it survives is known,
    `falsifying` where none is known that turns it. along: `survived` lies so far on the way from the middle of the box
    to a field that turns the image; None where it is the highest point that an attack on the box met."""

    sample: Mapping[str, Any]
    original: View
    survived: View | None
    falsifying: View | None
    along: float | None


def chosen(samples: Sequence[Mapping[str, Any]]) -> list[int]:
    """The places in a certificate's `samples` of the images to show, at most `OF_EACH` of an answer: the falsified of
    the largest margin, the certified whose margin is nearest to 0, and of the unknown those least proved."""

    def first(answer: str, key: str, sign: int) -> list[int]:
        own = [place for place, sample in enumerate(samples) if sample.get("answer") == answer]
        known = [place for place in own if samples[place].get(key) is not None]
        return sorted(known, key=lambda place: sign * samples[place][key])[:OF_EACH]

    return first("falsified", "margin", -1) + first("certified", "margin", -1) + first("unknown", "proved", 1)


def triptychs(net: BoundedModel, images: Tensor, certificate: Mapping[str, Any]) -> list[Triptych]:
    """The `chosen` images of a certificate over its own box.

    images `[N, *S]` are those of the certificate, in its order. Fields are searched in the dtype of `net`, as an attack
    does, and judged in float64.
    """
    samples = certificate["samples"]
    places = chosen(samples)
    if not places:
        return []
    exact = in_dtype(net, torch.float64)
    ends = (torch.tensor([certificate["box"][end]], dtype=torch.float64) for end in ("center", "radius"))
    box = Box(*(end.to(exact.center.device) for end in ends))
    with full_precision():
        return [
            _triptych(net, exact, to_float(images[place : place + 1], exact.center), samples[place], box)
            for place in places
        ]


def _triptych(net: BoundedModel, exact: BoundedModel, image: Tensor, sample: Mapping[str, Any], box: Box) -> Triptych:
    label = torch.tensor([sample["label"]], device=image.device)
    turned = "coefficients" in sample
    if turned:
        point = torch.tensor([sample["coefficients"]], dtype=torch.float64).to(box.center)
    else:
        starts = starting_points(box.center.shape[1], RESTARTS, 0).to(net.center)
        own = Box(*(end.to(net.center) for end in box))
        t = climb(net, image.to(net.center), label, starts, STEPS, box=own, until_fooled=True)
        point = box.center + box.radius * t.to(box.center)
    share = _survived(exact, image, label, box.center, point)
    survived = None if share is None else box.center + share * (point - box.center)
    return Triptych(
        sample,
        _view(exact, image, label, None),
        None if survived is None else _view(exact, image, label, survived),
        _view(exact, image, label, point) if turned else None,
        share if turned else None,
    )


@torch.no_grad()
def _survived(exact: BoundedModel, image: Tensor, label: Tensor, start: Tensor, end: Tensor) -> float | None:
    """How far from `start [1, D]` to `end` the image keeps its label, by halving; None where it has lost it at once."""

    def holds(share: float) -> bool:
        return bool(worst_margin(exact.perturbed(start + share * (end - start), image), label) < 0)

    if holds(1.0):
        return 1.0
    if not holds(0.0):
        return None
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


@torch.no_grad()
def _view(exact: BoundedModel, image: Tensor, label: Tensor, point: Tensor | None) -> View:
    logits = exact.clean(image) if point is None else exact.perturbed(point, image)
    seen = channels_first(image, exact.layout.axes)
    maps: dict[str, Tensor] = {}
    if point is not None:
        before, seen = seen, perturbed_images(exact, point, image)
        if isinstance(exact.transform, FieldTransform):
            found = exact.transform.deviations(point)
        else:
            found = {"change": (seen - before).mean(1, keepdim=True)}
        maps = {name: each[0].cpu() for name, each in found.items()}
    margin = float(worst_margin(logits, label))
    coefficients = None if point is None else point[0].cpu()
    return View(seen[0].cpu(), int(logits.argmax(1)), margin, coefficients, maps)
