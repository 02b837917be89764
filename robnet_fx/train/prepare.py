"""Before training: the network with the bounds it is trained on, checked, and as much of a batch as memory holds."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from robnet_fx.bounds.memory import of_training
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UsageError
from robnet_fx.images.pixels import check
from robnet_fx.images.sets import Parts
from robnet_fx.machine import ranks
from robnet_fx.machine.memory import available_memory, bytes_text
from robnet_fx.machine.precision import training_precision
from robnet_fx.machine.progress import Progress
from robnet_fx.opening.opened import Opened
from robnet_fx.opening.sanity import check_above_chance, check_weights
from robnet_fx.problem import Problem
from robnet_fx.train.objectives import WITHOUT_BOUNDS, default_objective, objective_named
from robnet_fx.train.prospect import prospect
from robnet_fx.train.recipe import Recipe
from robnet_fx.train.settings import Training

_JUDGED = 1000  # images that say whether the model knows the data at all


def prepare(
    opened: Opened,
    problem: Problem,
    training: Training,
    method: str,
    loss: str | None,
    parts: Parts,
    progress: Progress,
) -> tuple[BoundedModel, Recipe, str]:
    """(the network to train, the recipe that fits into memory, the name of the objective), the same on all ranks.

    The objective is the one called `loss`; where that is None the one that `default_objective` says, or "stable", which
    needs no bounds, where these say nothing about the network (`prospect`). That they do not is remarked upon, unless
    the network is to be trained from the start.

    Raises `UsageError` for weights that are not finite, images or labels that do not fit, a model at chance level
    (unless it is to be trained from the start), too little memory, and a `torch.compile` that does not work.
    """
    net = opened.bound_for_training(problem, method, training.symbols)
    ranks.follow([*net.model.parameters(), *net.model.buffers()])
    check_weights(net)
    name = loss or default_objective(net.transform)
    recipe, objective = training.recipe(), objective_named(name)
    images_at_once, rows_at_once = _at_once(net, training.memory, recipe.batch_size, objective.in_parts, progress)
    recipe = replace(recipe, micro_batch=images_at_once, micro_rows=rows_at_once)
    for images, labels in parts:
        check(images, labels, net.classes)
    if not training.pretrain:
        known, answers = (torch.cat(pair)[:_JUDGED] for pair in zip(parts.validation, parts.train, strict=True))
        for remark in check_above_chance(net, known, answers, opened.data.name):
            progress.remark(remark)
        look = partial(prospect, net, *parts.train, recipe, objective, name)
        if objective.bounded and (told := ranks.by_leader(look)):
            headline, *options = told.splitlines()
            chosen = "" if loss else ", as it is now, for no other was asked for"
            instead = f"  instead  --objective {WITHOUT_BOUNDS}, which needs no bounds{chosen}"
            progress.remark("\n".join([headline, instead, *options]))
            name = loss or WITHOUT_BOUNDS
    if training.compiled and objective_named(name).bounded:
        _compile(net, opened.example, recipe)
    return net, recipe, name


def _at_once(
    net: BoundedModel, memory: int | None, batch: int, in_parts: bool, progress: Progress
) -> tuple[int | None, int | None]:
    """How many images, and margins of one if these may be worked `in_parts`, a training step may bound at once; None
    for all of them."""
    limit = available_memory(net.center.device) if memory is None else memory
    need = partial(of_training, net.perturbed, symbols=net.symbols, method=net.method)
    images = need().fits(limit)
    if images:
        return None if images >= batch else images, None
    if not in_parts:
        size = bytes_text(need().least())
        said = f"one image's margins take some {size}\n  remedy  --objective small-boxes works some of them at a time"
        if memory is not None:
            raise UsageError(f"--memory is too little for a step: {said}")
        progress.remark(f"a step may not fit into memory: {said}")
        return 1, None
    counts = range(1, net.classes)
    rows = bisect_left(counts, True, key=lambda count: not need(count).fits(limit))
    if memory is not None and not rows:
        least = need(1).least()
        raise UsageError(f"--memory is too little for one margin of one image: it takes some {bytes_text(least)}")
    return 1, max(1, rows)


def _compile(net: BoundedModel, example: Tensor, recipe: Recipe) -> None:
    """Compile, and for the gradients of the first step now, where a compiler that does not work loses nobody's time."""
    net.compile()
    images = example.to(net.center)
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    try:
        with training_precision(recipe.precision):
            for some in net.margins_in_parts(images, labels, rows=recipe.micro_rows, precision=recipe.precision):
                some.sum().backward()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = " ".join(str(error).splitlines()[:2])  # which backend, and what is the matter with it
        raise UsageError(f"torch.compile does not work here: {reason}\n  remedy   leave out --compile") from error
    net.model.zero_grad(set_to_none=True)
