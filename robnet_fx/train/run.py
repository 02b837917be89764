"""One training run as an object: what it does in a step and an epoch, and the state from which it continues."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import Interrupted, RobnetError, UsageError
from robnet_fx.images.pixels import to_float
from robnet_fx.machine import ranks
from robnet_fx.machine.files import sha256_of_tensors
from robnet_fx.machine.precision import training_precision
from robnet_fx.machine.progress import Progress, Task
from robnet_fx.train import checkpoint as checkpoints
from robnet_fx.train.augment import augment
from robnet_fx.train.interrupt import held_back
from robnet_fx.train.loss import Losses, accumulate
from robnet_fx.train.recipe import MACHINE_ONLY, Recipe
from robnet_fx.verify.verdict import classify, verdicts

Pair = tuple[Tensor, Tensor]


@dataclass
class History:
    """What happened: figures of every epoch, and the epoch (from 0) whose weights were kept.

    `epochs[i]` holds phase, lr, eps at the epoch's end, the mean `standard` and `robust` loss, the shares `clean` and
    `certified` of the training images as met, and `validation_clean`, `validation_certified` where there is a
    validation set. `selected` is None if nothing was selected: the weights are the last ones.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    selected: int | None = None


class Run:
    """A training run: everything `state` names is what continuing it takes, on any number of ranks.

    All ranks draw the same batches and hold the same state; each works its own part of a batch.
    """

    def __init__(
        self,
        net: BoundedModel,
        images: Tensor,
        labels: Tensor,
        recipe: Recipe,
        validation: Pair | None,
        checkpoint: Path | None,
    ) -> None:
        self.net, self.recipe, self.validation, self.checkpoint = net, recipe, validation, checkpoint
        self.device = net.center.device
        self.settings = _settings(net, images, labels, recipe, validation)
        self.images, self.labels = images.to(self.device), labels.to(self.device, torch.int64)
        self.parameters = [p for p in net.model.parameters() if p.requires_grad]
        if not self.parameters:
            raise UsageError("the model has no parameters to train")
        ranks.follow([*net.model.parameters(), *net.model.buffers()])
        self.optimiser = torch.optim.Adam(self.parameters)
        self.steps = math.ceil(len(images) / recipe.batch_size)
        self.loader = torch.Generator().manual_seed(recipe.seed)
        self.loader_state = self.loader.get_state()  # at the start of the epoch: the order of the images follows
        self.epoch = self.step = 0
        self.sums = [0.0] * 4
        self.active = torch.ones(len(images), dtype=torch.bool, device=self.device)  # when last met
        self.history = History()
        self.best: dict[str, Tensor] | None = None
        self.undo: tuple[dict[str, Tensor], list[Tensor]] | None = None

    def to_the_end(self, progress: Progress) -> History:
        total = self.recipe.epochs * self.steps
        with progress.task("training", total) as task:
            try:
                task.advance(self.epoch * self.steps + self.step)
                while self.epoch < self.recipe.epochs:
                    self.one_epoch(task)
                    ranks.by_leader(self.save)
            except KeyboardInterrupt:
                self.roll_back()
                if ranks.leader():  # who asks no other rank, which may be gone: what it holds is enough
                    self.save()
                where = f"stopped in epoch {self.epoch + 1} of {self.recipe.epochs}"
                kept = f"; {self.checkpoint} continues the run" if self.checkpoint else ""
                raise Interrupted(where + kept, self.checkpoint) from None
        if self.best is not None:
            self.net.model.load_state_dict(self.best)
        return self.history

    def one_epoch(self, task: Task) -> None:
        self.loader.set_state(self.loader_state)
        order = torch.randperm(len(self.images), generator=self.loader).to(self.device)
        parts = order.tensor_split(self.steps)  # nearly equal: no last batch of one image
        while self.step < self.steps:
            figures = self.one_step(parts[self.step])
            task.advance(1, epoch=f"{self.epoch + 1}/{self.recipe.epochs}", **figures)
        self.end_epoch()

    def one_step(self, index: Tensor) -> dict[str, float]:
        setting = self.recipe.at(self.epoch, self.step, self.steps)
        eps = setting.share * self.net.perturbation.eps
        self.net.set_eps(eps)
        for group in self.optimiser.param_groups:
            group["lr"] = setting.phase.lr
        self.undo = checkpoints.random_state(self.device), [b.clone() for b in self.net.model.buffers()]
        images = to_float(self.images[index], self.parameters[0])
        if self.recipe.augment:
            images = augment(images)
        self.optimiser.zero_grad(set_to_none=True)
        own = ranks.part(len(index))
        number = (self.recipe.seed * self.recipe.epochs + self.epoch) * self.steps + self.step
        with ranks.own_random_numbers(number, self.device), training_precision(self.recipe.precision):
            losses = accumulate(
                self.net,
                images[own],
                self.labels[index][own],
                alpha=self.recipe.alpha,
                robust=setting.phase.robust,
                frozen=self.recipe.frozen_statistics,
                likely=self.active[index][own],
                part=self.recipe.micro_batch,
                rows=self.recipe.micro_rows,
                batch=len(index),
                precision=self.recipe.precision,
            )
        losses = self.summed(losses, own, len(index))
        if not (setting.phase.robust and self.recipe.frozen_statistics):
            ranks.follow(self.net.model.buffers())  # each rank has seen its own part only
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        figures = losses.standard, losses.robust, losses.correct, losses.certified, norm
        standard, robust, correct, certified, size = torch.stack([f.to(norm.dtype) for f in figures]).tolist()
        total = standard + self.recipe.alpha * robust
        if not (math.isfinite(total) and math.isfinite(size)):
            self.roll_back()
            raise RobnetError(self.explain_divergence(total, eps, setting.phase.lr))
        with held_back():
            self.optimiser.step()
            self.step += 1
            count = len(index)
            step_sums = (standard * count, robust * count, correct, certified)
            self.sums = [a + b for a, b in zip(self.sums, step_sums, strict=True)]
            if setting.phase.robust:
                self.active[index] = losses.active
            self.undo = None
        return {"loss": total, "eps": eps, "clean": correct / count, "certified": certified / count}

    def summed(self, losses: Losses, own: slice, count: int) -> Losses:
        """The whole batch's losses and gradients, from those of every rank's own part of its `count` samples.

        DistributedDataParallel would do so within each backward pass, but a step has several, one for each part of the
        active samples, and ranks differ in how many. So it is done once, when a rank's gradients are complete.
        """
        active = torch.zeros(count, dtype=torch.bool, device=self.device)
        active[own] = losses.active
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        parts = [losses.standard, losses.robust, losses.correct, losses.certified, active, *gradients]
        standard, robust, correct, certified, active, *gradients = ranks.total(parts)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return Losses(standard, robust, correct, certified, active)

    def end_epoch(self) -> None:
        """Measure, select, and move on to the next epoch, all at once."""
        setting = self.recipe.at(self.epoch, self.steps - 1, self.steps)
        eps = setting.share * self.net.perturbation.eps
        self.net.set_eps(eps)
        means = [total / len(self.images) for total in self.sums]
        figures: dict[str, Any] = {"phase": setting.phase.name, "lr": setting.phase.lr, "eps": eps}
        figures |= zip(("standard", "robust", "clean", "certified"), means, strict=True)
        figures |= self.validate(setting.phase.robust)
        eligible = setting.phase.robust and setting.share == 1 and self.validation is not None
        better = eligible and (self.history.selected is None or _score(figures) >= self.best_score())
        best = {k: v.detach().clone() for k, v in self.net.model.state_dict().items()} if better else self.best
        with held_back():
            self.history.epochs.append(figures)
            if better:
                self.history.selected, self.best = self.epoch, best
            self.epoch, self.step, self.sums = self.epoch + 1, 0, [0.0] * 4
            self.loader_state = self.loader.get_state()

    def validate(self, robust: bool) -> dict[str, float]:
        if self.validation is None:
            return {}
        images, labels = self.validation
        if not robust:
            _, right = classify(self.net, images, labels, batch_size=self.recipe.batch_size)
            return {"validation_clean": float(right.float().mean())}
        at_once = self.recipe.micro_batch or self.recipe.batch_size
        found = verdicts(self.net, images, labels, batch_size=at_once)
        return {
            "validation_clean": float(found.correct.float().mean()),
            "validation_certified": float(found.certified.float().mean()),
        }

    def best_score(self) -> tuple[float, float]:
        assert self.history.selected is not None
        return _score(self.history.epochs[self.history.selected])

    def explain_divergence(self, total: float, eps: float, lr: float) -> str:
        kept = (
            f"\n  the last good state is in {self.checkpoint}" if self.checkpoint and self.checkpoint.exists() else ""
        )
        return (
            f"training diverged in epoch {self.epoch + 1}, step {self.step + 1}: the loss is {total}"
            f"{'' if not math.isfinite(total) else ' and its gradient is not finite'} (eps {eps:.4g})\n"
            f"  remedy   a learning rate below {lr:g}, a smaller alpha, or a longer ramp{kept}"
        )

    def roll_back(self) -> None:
        """Undo what a step that did not reach its update left behind: random numbers drawn, statistics overwritten."""
        if self.undo is None:
            return
        random, buffers = self.undo
        checkpoints.set_random_state(random, self.device)
        for buffer, value in zip(self.net.model.buffers(), buffers, strict=True):
            buffer.copy_(value)
        self.undo = None

    def save(self) -> None:
        if self.checkpoint is not None:
            checkpoints.save(self.checkpoint, self.state())

    def state(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "model": self.net.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "random": checkpoints.random_state(self.device),
            "loader": self.loader_state,
            "epoch": self.epoch,
            "step": self.step,
            "sums": self.sums,
            "active": self.active,
            "history": self.history.epochs,
            "selected": self.history.selected,
            "best": self.best,
        }

    def load(self, state: dict[str, Any]) -> None:
        assert self.checkpoint is not None
        checkpoints.check_same_run(self.checkpoint, state["settings"], self.settings)
        self.net.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        checkpoints.set_random_state(state["random"], self.device)
        self.loader_state = state["loader"]
        self.epoch, self.step, self.sums = state["epoch"], state["step"], state["sums"]
        self.active = state["active"].to(self.device)
        self.history = History(state["history"], state["selected"])
        self.best = state["best"]


def _score(figures: dict[str, Any]) -> tuple[float, float]:
    return figures["validation_certified"], figures["validation_clean"]


def _settings(
    net: BoundedModel, images: Tensor, labels: Tensor, recipe: Recipe, validation: Pair | None
) -> dict[str, str]:
    """What must not change between a run and its continuation; how much memory there is may."""
    parts = {"images": images, "labels": labels}
    if validation is not None:
        parts |= {"validation images": validation[0], "validation labels": validation[1]}
    layout = [(name, str(value.dtype), list(value.shape)) for name, value in net.model.state_dict().items()]
    return {
        "method": net.method,
        "clip": str(net.clip),
        "perturbation": repr(net.perturbation),
        "data": sha256_of_tensors(parts),
        "model": hashlib.sha256(repr(layout).encode()).hexdigest(),
        **{f"recipe.{name}": repr(value) for name, value in recipe.to_dict().items() if name not in MACHINE_ONLY},
    }
