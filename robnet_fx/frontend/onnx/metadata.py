"""What a written ONNX file says about itself, for the commands that read it: the normalisation it was trained with, the
order of a flat input, and which of its tensors are the logits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from robnet_fx.errors import UsageError

MEAN, STD = "robnet_fx.mean", "robnet_fx.std"
"""The keys, with numbers separated by commas, one a channel or one for all."""
FLAT = "robnet_fx.flat"
"""The key of the order in which a flat network takes an image's numbers, "planes" or "pixels"."""
OUTPUT = "robnet_fx.output"
"""The key of the tensor that was chosen to be judged, where somebody chose."""


def normalisation_metadata(mean: Sequence[float] | None, std: Sequence[float] | None) -> dict[str, str]:
    """The entries that remember `mean` and `std`; none for what is None."""
    given = {MEAN: mean, STD: std}
    return {
        key: ",".join(repr(float(value)) for value in values) for key, values in given.items() if values is not None
    }


def normalisation_of(metadata: Mapping[str, str]) -> tuple[list[float] | None, list[float] | None]:
    """(mean, std) as `normalisation_metadata` left them. `UsageError` for entries that are not numbers."""
    mean, std = (None if metadata.get(key) is None else numbers(metadata[key], key) for key in (MEAN, STD))
    return mean, std


def numbers(text: str, name: str) -> list[float]:
    """Finite numbers separated by commas; `UsageError` names what they were for."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(map(math.isfinite, values)):
        raise UsageError(f"{name} takes numbers separated by commas, such as 0.485,0.456,0.406, not {text!r}")
    return values
