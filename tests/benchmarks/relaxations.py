"""How tight each relaxation is: the area between its two lines over the least area any two lines could leave.

    python -m tests.benchmarks.relaxations --out docs/relaxations.md

The least area of an upper line is that under the concave hull's tangent at the middle of the interval, times the width;
so areas are heights at the middle. Intervals have their middle in [-4, 4] and widths from 0.01 to 10.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robnet_fx.algebra.domains import Interval
from tests.benchmarks.page import parse, publish
from tests.rules.cases import CURVED, ELEMENTWISE, STEPS, Case
from tests.rules.enclosures import admit, band_of, function, lines_of

HEAD = """\
# Relaxations

Made by `python -m tests.benchmarks.relaxations --out docs/relaxations.md`. For each operation and width of its input's
interval: the area between the lines of the rule over the least area that any two lines enclosing the function could
leave, the worst of 33 intervals with their middle in [-4, 4] or moved into the domain. SSIP needs two *parallel* lines,
which costs up to a factor of 2 where a function bends one way, as it does for ReLU. *exact*: the function is straight.

"""
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


def page() -> str:
    """One row an operation."""
    head = ["operation", *(f"{kind} {width:g}" for width in WIDTHS for kind in ("SSIP", "RSIP"))]
    rows = [head, ["---"] * len(head)]
    for case in (*ELEMENTWISE, *CURVED, *STEPS):
        parts = [part for width in WIDTHS for part in ratios(case, width)]
        rows.append([case.name, *(f"{float(part.max()):.2f}" if part.numel() else "exact" for part in parts)])
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    """Print the page, or write it."""
    options = parse(__doc__)
    publish(page(), options.out)


if __name__ == "__main__":
    main()
