"""Algorithm 1: Adam over a recipe's phases, with checkpoints from which a run continues bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UsageError
from robnet_fx.images.pixels import check
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.train import checkpoint as checkpoints
from robnet_fx.train.history import History
from robnet_fx.train.objectives import EQUATION_6, Objective
from robnet_fx.train.recipe import Recipe
from robnet_fx.train.run import Run


def train(
    net: BoundedModel,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    objective: Objective = EQUATION_6,
    validation: tuple[Tensor, Tensor] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
    device: torch.device | str | None = None,
) -> History:
    """Train the user's module `net.model` in place for the box of `net.perturbation`, by equation 7: cross entropy and,
    in robust phases, `recipe.alpha` times the loss of `objective`: equation 6 if not given, for this is Algorithm 1.

    images `[N, C, *spatial]` uint8 or float in [0, 1], labels `[N]` int64. With `validation` (images, labels; never
    the test set) the weights kept are those of the epoch at the full eps with the most certified validation images,
    most correct ones among equals, the later one among those; without it, the last. `checkpoint` is written after each
    epoch and on Ctrl-C, which raises `Interrupted`; with `resume` the run in it continues, and ends with exactly the
    weights it would have had. Raises `UsageError` for data that does not fit or a checkpoint of another run, and
    `RobnetError` when the loss stops being a finite number, or stays out of all proportion (`run.HUGE`, `run.LOST`):
    weights and checkpoint are the last good ones.

    On several ranks (`machine.ranks`) all call this alike and each works its own part of a batch. A net without batch
    norm and dropout gets the weights that one process gives it, up to rounding, but for an objective that draws random
    points, as "stable" does. Any number of ranks can resume; the same number does so bit for bit.
    """
    if resume and checkpoint is None:
        raise UsageError("to resume, say which checkpoint")
    for pair in ((images, labels), *([validation] if validation else [])):
        check(*pair, net.classes)
    if device is not None:
        net.to(device)
    was_training = net.model.training
    try:
        with _repeatable(net.center.device):
            torch.manual_seed(recipe.seed)
            run = Run(net, images, labels, recipe, objective, validation, checkpoint)
            if resume and checkpoint is not None:
                run.load(checkpoints.load(checkpoint))
            return run.to_the_end(progress)
    finally:
        net.model.train(was_training)
        net.set_eps(net.perturbation.eps)


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """The caller's random numbers and number of threads are put back at the end; cuDNN repeats itself meanwhile."""
    cudnn = torch.backends.cudnn
    before, threads = (cudnn.deterministic, cudnn.benchmark), torch.get_num_threads()
    cudnn.deterministic, cudnn.benchmark = True, False
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
