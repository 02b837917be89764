"""Which epoch's weights are kept: the figures of a validation set, and how two epochs compare by them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.verify.verdict import classify, verdicts

Pair = tuple[Tensor, Tensor]


def validate(net: BoundedModel, validation: Pair | None, robust: bool, batch: int, at_once: int) -> dict[str, float]:
    """Shares of the validation images (images, labels) that are correct and, after a `robust` epoch, certified over the
    box `net` has now, `at_once` images at a time (`batch` without bounds). Nothing without a validation set."""
    if validation is None:
        return {}
    if not robust:
        _, right = classify(net, *validation, batch_size=batch)
        return {"validation_clean": float(right.float().mean())}
    found = verdicts(net, *validation, batch_size=at_once)
    return {
        "validation_clean": float(found.correct.float().mean()),
        "validation_certified": float(found.certified.float().mean()),
    }


def score(figures: dict[str, Any]) -> tuple[float, float]:
    """What is compared of an epoch after which `validate` has bounded images: certified, then correct."""
    return figures["validation_certified"], figures["validation_clean"]
