"""Which number is white: arrays of pixels in any numeric type, as uint8 in 0..255 or float32 in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robnet_fx.images.pixels import batches
from robnet_fx.zoo.dataset import refuse

_CHUNK = 256  # images looked at together: whole numbers are found out without a second array of that size
_DIM = 64  # whole numbers that all stay below a quarter of 0..255 have more likely another full scale


class Span(NamedTuple):
    """The numbers of an array: smallest, largest, and whether all are whole."""

    low: float
    high: float
    whole: bool


def to_pixels(
    name: str | Path, arrays: Mapping[str, np.ndarray], white: float | None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """(pixels, notes): uint8 where the numbers are whole and 255 is white, else float32, numbers divided by the white.

    One scale holds for all arrays. `white` None takes what the numbers settle: floats in 0..1, whole numbers in
    0..255, bool, uint16 as 0..65535. Raises `UsageError` with the range found and a remedy for everything else.
    """
    spans = {key: _span(name, key, array) for key, array in arrays.items()}
    if white is None:
        white, note = _settled(name, arrays, spans)
    else:
        _check_white(name, arrays, spans, white)
        note = f"pixels as v/{white:g}"
    whole = all(span.whole for span in spans.values())
    if white == 255 and whole:
        return {key: array.astype(np.uint8, copy=False) for key, array in arrays.items()}, (note,) if note else ()
    return {key: divided(array, white) for key, array in arrays.items()}, (note,)


def divided(values: np.ndarray, white: float) -> np.ndarray:
    """Numbers in 0..white as float32 in [0, 1]."""
    if white == 1:
        return values.astype(np.float32, copy=False)
    exact = np.float64 if values.dtype.itemsize > 2 else np.float32  # float32 holds every 16-bit number
    return np.divide(values, white, dtype=exact).astype(np.float32, copy=False)


def likely_white(high: float) -> int:
    """A number that images with a largest number `high` may have as white: itself if small, else 255, 1023, 4095."""
    if high <= _DIM:
        return max(1, math.ceil(high))
    return 2 ** max(8, math.ceil(high).bit_length()) - 1


def _span(name: str | Path, key: str, array: np.ndarray) -> Span:
    if array.dtype.kind not in "biuf":
        refuse(name, f"{key} must hold numbers, is {array.dtype}")
    if not array.size:
        refuse(name, f"{key} holds no images")
    low, high, whole = math.inf, -math.inf, True
    for part in batches(len(array), _CHUNK):
        chunk = array[part]
        if array.dtype.kind == "f":
            if not np.isfinite(chunk).all():
                refuse(name, f"{key} holds NaN or infinite numbers")
            whole = whole and bool((np.rint(chunk) == chunk).all())
        low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
    if low < 0:
        refuse(
            name,
            f"{key} runs from {low:.4g} to {high:.4g}; pixels start at 0, black\n"
            f"  remedy  undo what was done to the pixels (x * std + mean) and save them in 0..1 or 0..255; "
            f"--mean and --std put it in front of the network",
        )
    return Span(low, high, whole)


def _settled(name: str | Path, arrays: Mapping[str, np.ndarray], spans: Mapping[str, Span]) -> tuple[float, str]:
    """(white, note) where types and numbers leave no doubt."""
    types = {array.dtype for array in arrays.values()}
    high = max(span.high for span in spans.values())
    if all(kind.kind == "b" for kind in types):
        return 1, "bool, True as white"
    if all(kind.kind == "f" for kind in types) and high <= 1:
        return 1, f"{' and '.join(sorted(map(str, types)))} in 0..1"
    whole = all(span.whole for span in spans.values())
    apart = any(0 < span.high <= 1 for span in spans.values()) and high > 1  # a part in 0..1 beside one in 0..255
    if whole and (high == 0 or _DIM <= high <= 255) and not apart and not any(kind.kind == "b" for kind in types):
        return 255, "" if types == {np.dtype(np.uint8)} else f"{' and '.join(sorted(map(str, types)))} as v/255"
    if types == {np.dtype(np.uint16)} and high > 255:
        dim = f", none above {high:g} (--white N if white is less)" if high < 65536 / 4 else ""
        return 65535, f"uint16 as v/65535{dim}"
    found = ", ".join(
        f"{key} is {arrays[key].dtype} from {span.low:.4g} to {span.high:.4g}" for key, span in spans.items()
    )
    refuse(
        name,
        f"which number is white? {found}\n"
        f"  remedy  --white N takes every pixel as v/N: --white {likely_white(high)}, if that is white\n"
        f"          (without it pixels are floats in 0..1, whole numbers that make use of 0..255, or uint16)",
    )


def _check_white(name: str | Path, arrays: Mapping[str, np.ndarray], spans: Mapping[str, Span], white: float) -> None:
    floats = all(array.dtype.kind == "f" for array in arrays.values())
    if white > 1 and floats and all(span.high <= 1 for span in spans.values()):
        refuse(name, f"--white {white:g} does not apply: the pixels are floats in 0..1 already")
    for key, span in spans.items():
        if span.high > white:
            remedy = f"--white {likely_white(span.high)}, if that is white"
            refuse(name, f"{key} goes up to {span.high:g}, beyond --white {white:g}\n  remedy  {remedy}")
