"""Before training: whether the bounds to be lowered say anything about the network, and which would."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robnet_fx.algebra.logits import correct
from robnet_fx.bounds.evaluate import other_classes
from robnet_fx.bounds.memory import of_training
from robnet_fx.bounds.methods import method_named
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.images.pixels import to_float
from robnet_fx.machine.memory import available_memory
from robnet_fx.train.objectives import Batch, Objective, objective_named
from robnet_fx.train.recipe import Recipe

_IMAGES = 5
_LOOKED_AT = 64  # training images, for as many that are right
_EARLY = 1 / 20  # of eps: where the ramp begins, and with it what training has to go by
_BUDGETS = (0, 64, 256)  # symbols that a training step can pay for
_PART = "cc:cuts=8,tau={:g},steps=4"
_SHARES = (1 / 64, 1 / 16, 1 / 4, 1.0)  # of each radius, the tau of a part
_SMALLEST = 1e-4  # of eps
_BISECTIONS = 6


def prospect(
    net: BoundedModel, images: Tensor, labels: Tensor, recipe: Recipe, objective: Objective, said: str
) -> str | None:
    """A remark where bounds carry no information when training starts, None where they do.

    images `[N, C, *spatial]`, labels `[N]`: the training set, of which a few images that are right are bounded, over
    what `objective`, called `said`, bounds of them. *Rise* is how far the upper margins of an image lie above its clean
    ones, a mean over classes; what counts is the median over images. Bounds say something while they rise no more than
    the logits of an image spread. Training starts where eps is small and tightens bounds on its way up, so that it is
    asked at a twentieth of eps: DM-Medium's rise by 1,700 spreads at 40/255 but by a fifth of one at 2/255, and
    training keeps them there; those of a ResNet-20 rise by 1e9 spreads at 1/255, and training never gets at them.
    """
    look = _Look(net, images, labels, recipe)
    eps = net.perturbation.eps
    if not look.found:
        return None
    with torch.no_grad():
        try:
            early = look.rise(objective, eps * _EARLY)
            if early <= look.spread:
                return None
            return _told(look, objective, said, eps, early)
        finally:
            net.set_eps(eps)


def _told(look: _Look, objective: Objective, said: str, eps: float, early: float) -> str:
    """What the bounds are and, as options to type, the cheapest budget that has useful ones of a part of the box, with
    the largest such part, and the largest eps at which they are useful as they are."""
    helps = []
    for symbols in look.budgets():
        useful = [""]
        for tau in _SHARES:
            part = _PART.format(tau)
            rise = look.rise(objective_named(part), eps, symbols)
            if rise > look.spread:
                break
            useful.append(f"--objective {part}" + f" --training-symbols {symbols}" * bool(symbols) + f": {rise:.2g}")
        if useful[-1]:
            helps.append(useful[-1])
            break
    small = _largest(lambda value: look.rise(objective, value) <= look.spread, eps * _SMALLEST, eps * _EARLY)
    if small is not None:
        helps.append(f"--eps {small * 255:.2g}, and all else as it is")
    lines = [
        f"the bounds to train on say nothing: over what {said} bounds at eps {eps * 255:.4g}/255 they lie "
        f"{look.rise(objective, eps):.2g} above the clean margins, at a twentieth of it {early:.2g}, where logits "
        f"spread over {look.spread:.3g} (medians of {look.found} images); lowering them costs accuracy and proves "
        "nothing",
        *(f"{'  tighter  ' if number == 0 else '           '}{each}" for number, each in enumerate(helps)),
    ]
    return "\n".join(lines)


class _Look:
    """A few training images that are right, and how far bounds of them rise."""

    def __init__(self, net: BoundedModel, images: Tensor, labels: Tensor, recipe: Recipe) -> None:
        self.net, self.recipe = net, recipe
        some = to_float(images[:_LOOKED_AT], net.center).to(net.center.device)
        theirs = labels[:_LOOKED_AT].to(net.center.device, torch.int64)
        with torch.no_grad():
            logits = net.logits(some)
        chosen = correct(logits, theirs).nonzero().squeeze(1)[:_IMAGES]
        self.images, self.labels, logits = some[chosen], theirs[chosen], logits[chosen]
        self.found = len(chosen)
        self.spread = float((logits.amax(1) - logits.amin(1)).mean()) if self.found else 0.0
        label = logits.gather(1, self.labels.unsqueeze(1))
        self.clean = logits.gather(1, other_classes(self.labels, net.classes)) - label
        self.nets = {net.symbols: net}

    def rise(self, objective: Objective, eps: float, symbols: int | None = None) -> float:
        """In logits, over what the objective bounds at `eps`; infinite where a bound is not a number."""
        net = self.net if symbols is None else self._with(symbols)
        net.set_eps(eps)
        recipe, everybody = self.recipe, torch.ones_like(self.labels, dtype=torch.bool)
        weights = objective.weights(recipe.alpha)
        batch = Batch(
            net, self.images, self.labels, everybody, everybody, weights, self.found, precision=recipe.precision
        )
        wanted = objective.wanted(batch)
        upper = [torch.cat([*batch.margins(one, wanted.box)], 1) for one in torch.arange(self.found).split(1)]
        rise = (torch.cat(upper) - self.clean).mean(1)
        return float(torch.where(rise.isnan(), torch.inf, rise).median())

    def budgets(self) -> list[int]:
        """The numbers of symbols that the method and the memory take."""
        method, memory = self.net.method, available_memory(self.net.center.device)
        if not method_named(method).symbolic:
            return [0]
        return [s for s in _BUDGETS if of_training(self.net.perturbed, symbols=s, method=method).fits(memory)]

    def _with(self, symbols: int) -> BoundedModel:
        if symbols not in self.nets:
            self.nets[symbols] = self.net.by(self.net.method, symbols)
        return self.nets[symbols]


def _largest(holds: Callable[[float], bool], low: float, high: float) -> float | None:
    """The largest value in between that is known to hold, by bisection of its logarithm; `high` does not, and None if
    `low` does not either."""
    if not holds(low):
        return None
    for _ in range(_BISECTIONS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
