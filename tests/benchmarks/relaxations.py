"""How tight each relaxation is: the area between its two lines over the least area any two lines could leave.

    python -m tests.benchmarks.relaxations

The least area of an upper line is that under the concave hull's tangent at the middle of the interval, times the width;
so areas are heights at the middle. Intervals have their middle in [-4, 4] and widths from 0.01 to 10.
"""

from __future__ import annotations

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from robnet_fx.domains import Interval
from tests.rules.cases import CURVED, ELEMENTWISE, STEPS, Case
from tests.rules.enclosures import admit, band_of, function, lines_of

WIDTHS = (0.01, 0.1, 1.0, 4.0, 10.0)


def hull_height(case: Case, pre: Interval, points: int = 401) -> Tensor:
    """`[B, 1]`: the height of the convex hull of f over `pre` at the middle: over all pairs of points about it."""
    steps = torch.linspace(0, 1, points, dtype=torch.float64)
    x = pre.lower + (pre.upper - pre.lower) * steps
    values = function(case, x)
    half = points // 2
    left, right = steps[: half + 1].unsqueeze(1), steps[half:].unsqueeze(0)
    weight = torch.where(right > left, (0.5 - left) / (right - left).clamp(min=1e-12), 0.5)
    chords = values[:, : half + 1, None] * (1 - weight) + values[:, None, half:] * weight
    return (chords.flatten(1).amax(1) - chords.flatten(1).amin(1)).unsqueeze(1)


def ratios(case: Case, width: float) -> tuple[Tensor, Tensor]:
    """Of the band (SSIP) and of the lines (RSIP), over intervals of one width."""
    middle = torch.linspace(-4, 4, 33, dtype=torch.float64).unsqueeze(1)
    pairs = admit(case, torch.cat([middle - width / 2, middle + width / 2], 1))
    pre = Interval(pairs[:, :1], pairs[:, 1:])
    best = hull_height(case, pre)
    middle = (pre.lower + pre.upper) / 2
    upper, lower = lines_of(case, pre, 1.0), lines_of(case, pre, -1.0)
    height = (upper[0] - lower[0]) * middle + upper[1] - lower[1]
    curved = best > 1e-9 * (1 + function(case, middle).abs())
    return (2 * band_of(case, pre).error / best)[curved], (height / best)[curved]


def main() -> None:
    """Print one row an operation."""
    table = Table("operation", *(f"{kind} {width:g}" for width in WIDTHS for kind in ("SSIP", "RSIP")))
    for case in (*ELEMENTWISE, *CURVED, *STEPS):
        if len(case.shapes) == 1 and "channels" not in case.name and "tokens" not in case.name:
            cells = [part for width in WIDTHS for part in ratios(case, width)]
            table.add_row(case.name, *(f"{float(part.max()):.2f}" if part.numel() else "exact" for part in cells))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
