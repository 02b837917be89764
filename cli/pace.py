"""The number of threads for a command's work, settled by a small piece of it beforehand (`machine.threads`)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx

from robnet_fx.bounds.methods import method_named
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.graphs import input_of
from robnet_fx.images.pixels import to_float
from robnet_fx.machine import threads
from robnet_fx.report.console import notes, say

_BOUNDED, _RUN = 8, 64  # images: a second of work at most, but for the deepest networks


def settle_by_bounds(net: BoundedModel, images: Tensor, labels: Tensor) -> None:
    """By the margins of a few images, of one where SSIP keeps symbols; bounds row by row take too long for that, and a
    run of the network stands in."""
    if method_named(net.method).by_rows:
        settle_by_network(net.clean, images, net.center.device)
        return
    count = 1 if net.symbols else _BOUNDED
    few, wanted = to_float(images[:count], net.center), labels[:count].to(net.center.device)
    with torch.no_grad():
        _settle(lambda: net.margins(few, wanted), few.device)


def settle_by_network(graph: fx.GraphModule, images: Tensor, device: torch.device) -> None:
    """By a run of a graph `image -> logits` and its gradient in the images, as an attack or a training step has it."""
    like = torch.zeros((), dtype=input_of(graph).meta["dtype"], device=device)
    few = to_float(images[:_RUN], like).requires_grad_()
    graph = graph.to(device)
    _settle(lambda: torch.autograd.grad(graph(few).sum(), few), device)


def _settle(step: Callable[[], object], device: torch.device) -> None:
    choice = threads.choose(step, device)
    if choice.note:
        say(notes(), choice.note)
