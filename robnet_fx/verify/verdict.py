"""Classifying and proving a set of images batch by batch, in whatever precision the network has now."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robnet_fx.algebra.logits import correct
from robnet_fx.bounds.memory import of_verdicts
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.images.pixels import batches, to_float
from robnet_fx.machine import ranks
from robnet_fx.machine.memory import available_memory
from robnet_fx.machine.precision import full_precision
from robnet_fx.machine.progress import SILENT, Progress


class Verdicts(NamedTuple):
    """One entry a sample, all `[N]` on the CPU.

    `margin` is the largest upper margin of a correct sample, NaN for a wrong one, which is never bounded.
    """

    predicted: Tensor
    correct: Tensor
    certified: Tensor
    margin: Tensor


@torch.no_grad()
def classify(net: BoundedModel, images: Tensor, labels: Tensor, *, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """(predicted class `[N]`, correct `bool [N]`) of unperturbed images, on the CPU. A tie is not correct."""
    predicted, right = ranks.spread(len(images), lambda own: _classify(net, images[own], labels[own], batch_size))
    return predicted, right


def _classify(net: BoundedModel, images: Tensor, labels: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    predicted, right = [], []
    with full_precision():
        for part in batches(len(images), batch_size):
            logits = net.logits(to_float(images[part], net.center))
            predicted.append(logits.argmax(1).cpu())
            right.append(correct(logits, labels[part].to(logits.device)).cpu())
    return torch.cat(predicted), torch.cat(right)


@torch.no_grad()
def verdicts(
    net: BoundedModel, images: Tensor, labels: Tensor, *, batch_size: int | None = None, progress: Progress = SILENT
) -> Verdicts:
    """Classify all images and bound the correct ones over the box that `net` has now.

    images `[N, C, *spatial]` uint8 or float in [0, 1], labels `[N]` int64. A sample is certified if it is correct
    and every upper margin is below 0; a bound that is NaN or infinite proves nothing. Of several ranks each works its
    own part of the images, whose progress it shows, and all get the whole. `batch_size` images are bounded at once; by
    default as many as memory holds, up to 64 on a CPU and 1024 on a GPU.
    """
    if batch_size is None:
        fitting = of_verdicts(net.perturbed, net.symbols, net.method).fits(available_memory(net.center.device))
        batch_size = max(1, min(fitting, 1024 if net.center.is_cuda else 64))
    return Verdicts(
        *ranks.spread(len(images), lambda own: _verdicts(net, images[own], labels[own], batch_size, progress))
    )


def _verdicts(net: BoundedModel, images: Tensor, labels: Tensor, batch_size: int, progress: Progress) -> Verdicts:
    predicted, right = _classify(net, images, labels, batch_size)
    certified = torch.zeros_like(right)
    margin = torch.full(right.shape, torch.nan, dtype=net.center.dtype)
    chosen = right.nonzero().squeeze(1)
    with full_precision(), progress.task("certifying", len(images)) as task:
        task.advance(len(images) - len(chosen))
        for part in batches(len(chosen), batch_size):
            index = chosen[part]
            target = labels[index].to(net.center.device)
            upper = net.margins(to_float(images[index], net.center), target)
            others = torch.ones_like(upper, dtype=torch.bool).scatter(1, target.unsqueeze(1), False)
            worst = upper.masked_fill(~others, -torch.inf).amax(1)
            proved = ((upper < 0) & upper.isfinite() | ~others).all(1)
            certified[index], margin[index] = proved.cpu(), worst.cpu()
            task.advance(len(index), certified=float(certified.float().mean()))
    return Verdicts(predicted, right, certified, margin)
