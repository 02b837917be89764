"""What the bounds of one image over one box cost, by how many error symbols they keep."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from robnet_fx.bounds import generator
from robnet_fx.bounds.memory import of_verdicts
from robnet_fx.bounds.methods import default_method
from robnet_fx.bounds.plan import plan, unsupported
from robnet_fx.frontend.unwrap import bare
from robnet_fx.graphs import MODEL, input_of, output_of, shape_of
from robnet_fx.passes.insert_perturbation import transform_of

BUDGETS = (0, 64, 256, 1024)
"""Numbers of symbols to know the cost of."""

_IMAGES = 4  # in one run of the network
_SHORT = 0.25  # seconds: bounds that are thought to take no longer are run


@dataclass(frozen=True)
class Cost:
    """What the margins of an image take in float64 while all of so many symbols are in use: `memory` in bytes and
    `seconds`, both estimates, but for seconds that were `measured`.

    For D coefficients, N symbols and K margins bounds are taken to last as long as D + N + 2 K runs of the network on
    one of many images, for SSIP runs it for each column and RSIP back and forth for each margin. That is good to a
    factor of about 2 where a run is long; bounds that seem to be short are run.
    """

    symbols: int
    memory: int
    seconds: float
    measured: bool


@torch.no_grad()
def costs(perturbed: fx.GraphModule, device: torch.device, available: int) -> list[Cost]:
    """The cost of each budget by the usual method, of 0 alone where the coefficients are too many for SSIP.

    Random images are run, and bounded where that fits into `available` bytes, over a box so wide that errors are
    everywhere.
    """
    model = perturbed.get_submodule(MODEL)
    graph = deepcopy(perturbed, {id(model): deepcopy(bare(model))}).double().to(device)
    transform, draw = transform_of(graph), torch.Generator().manual_seed(0)
    images = torch.rand(_IMAGES, *shape_of(input_of(graph)), generator=draw, dtype=torch.float64).to(device)
    (classes,) = shape_of(output_of(graph))
    spec = torch.eye(classes, dtype=torch.float64, device=device)[1:].unsqueeze(0)
    box = [end.to(transform.center) for end in transform.box_at(1.0)]
    a_run = _seconds(lambda: graph(transform.center.expand(_IMAGES, -1), images)) / _IMAGES
    bounded, found = not unsupported(graph), []
    for symbols in BUDGETS if transform.fits_ssip else BUDGETS[:1]:
        memory = of_verdicts(graph, symbols=symbols)
        runs = 2 * spec.shape[1] + (transform.dimensions + symbols if transform.fits_ssip else 0)
        seconds = a_run * runs
        measured = bounded and seconds < _SHORT and memory.fits(available) > 0
        if measured:
            upper = generator.upper(plan(graph, default_method(transform), symbols))
            seconds = _seconds(lambda: upper(images[:1], spec, *box))  # noqa: B023
            a_run = max(a_run, seconds / runs)
        found.append(Cost(symbols, memory.image, seconds, measured))
    return found


def _seconds(work: Callable[[], Tensor]) -> float:
    """The shorter of two times that it takes, the result brought to the CPU."""
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        work().cpu()
        taken.append(time.perf_counter() - start)
    return min(taken)
