"""A bias field whose box is written in a JSON file, coefficient by coefficient."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from robnet_fx.errors import UsageError
from robnet_fx.perturbations.bias_field import BiasField

_PARTS = ("multiplicative", "additive")
_FORM = (
    '  remedy  {"order": 1, "multiplicative": [[0.8, 1.2], [-0.1, 0.1], [-0.1, 0.1], [0, 0]]}: one [lower, upper]\n'
    '          pair for each coefficient, the last axis\'s power growing first; "additive" likewise, or instead'
)


def read_box(path: Path) -> BiasField:
    """The field of a file `{"order": 1, "multiplicative": [[lower, upper], ...], "additive": [[lower, upper], ...]}`.

    Numbers are those of the coefficients themselves (1, 0, 0, ... is the unperturbed image for the multiplicative part,
    0, 0, ... for the additive), in row-power-major order; a part that is left out is not there. The strength `eps` of
    the field, by which training's ramp scales the box, is the largest distance of an end from the unperturbed image, 1
    at most. Raises `UsageError` naming the file and what is wrong with it.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # no JSON, or no text at all
        raise UsageError(f"{path} is not a JSON file: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path}: a box is a JSON object, not {type(found).__name__}\n{_FORM}")
    if unknown := sorted(found.keys() - {"order", *_PARTS}):
        raise UsageError(f"{path}: unknown {', '.join(map(repr, unknown))}\n{_FORM}")
    if "order" not in found:
        raise UsageError(f'{path}: the "order" of the field is missing\n{_FORM}')
    parts = {name: _pairs(path, name, found[name]) for name in _PARTS if name in found}
    if not parts:
        raise UsageError(f"{path}: neither a multiplicative nor an additive part\n{_FORM}")
    distances = [
        abs(end - (1.0 if name == "multiplicative" and index == 0 else 0.0))
        for name, pairs in parts.items()
        for index, pair in enumerate(pairs)
        for end in pair
    ]
    if not max(distances):
        raise UsageError(f"{path}: the box holds the unperturbed image alone\n{_FORM}")
    try:
        return BiasField(found["order"], min(1.0, max(distances)), **{name: parts.get(name, False) for name in _PARTS})
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _pairs(path: Path, name: str, given: Any) -> list[tuple[float, float]]:
    if not isinstance(given, list) or not given:
        raise UsageError(f'{path}: "{name}" is a list of [lower, upper] pairs, not {json.dumps(given)[:60]}\n{_FORM}')
    for index, pair in enumerate(given):
        numbers = isinstance(pair, list) and [type(end) in (int, float) for end in pair] == [True, True]
        if not numbers or not -math.inf < pair[0] <= pair[1] < math.inf:
            raise UsageError(f'{path}: "{name}" {index} is no pair of lower <= upper: {json.dumps(pair)[:60]}\n{_FORM}')
    return [(float(lower), float(upper)) for lower, upper in given]
