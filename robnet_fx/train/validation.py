"""Which epoch's weights are kept: the figures of a validation set, and how two epochs compare by them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.machine import ranks
from robnet_fx.verify.decision import decide
from robnet_fx.verify.question import posed
from robnet_fx.verify.search import Limits
from robnet_fx.verify.verdict import classify, verdicts

Pair = tuple[Tensor, Tensor]


def validate(
    net: BoundedModel, validation: Pair | None, robust: bool, batch: int, at_once: int, boxes: int = 1
) -> dict[str, float]:
    """Shares of the validation images (images, labels) that are correct and, after a `robust` epoch, certified over the
    box `net` has now, in at most some `boxes` parts an image (`Limits`), all in the arithmetic of `net`. Nothing
    without a validation set. One box is bounded for `at_once` images at a time (`batch` without bounds)."""
    if validation is None:
        return {}
    if not robust:
        _, right = classify(net, *validation, batch_size=batch)
        return {"validation_clean": float(right.float().mean())}
    if boxes == 1:
        found = verdicts(net, *validation, batch_size=at_once)
        right, certified = found.correct, found.certified
    else:
        right, certified = _in_parts(net, *validation, Limits(boxes=boxes))
    shares = {"clean": right, "certified": certified}
    return {f"validation_{name}": float(who.float().mean()) for name, who in shares.items()}


def _in_parts(net: BoundedModel, images: Tensor, labels: Tensor, limits: Limits) -> tuple[Tensor, Tensor]:
    """`bool [N]` who is correct, and who is certified within limits that know no clock."""
    _, right = classify(net, images, labels)

    def work(own: list[int]) -> list[int]:
        found = decide(net, *posed(net, images, labels, own), exact=net, limits=limits)
        return [number for number, each in zip(own, found, strict=True) if each.answer == "certified"]

    certified = torch.zeros_like(right)
    certified[ranks.shared(right.nonzero().squeeze(1).tolist(), work)] = True
    return right, certified


def score(figures: dict[str, Any]) -> tuple[float, float]:
    """What is compared of an epoch after which `validate` has bounded images: certified, then correct."""
    return figures["validation_certified"], figures["validation_clean"]
