"""One training run as an object: what it does in a step and an epoch, and the state from which it continues."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import Interrupted, RobnetError, UsageError
from robnet_fx.images.pixels import to_float
from robnet_fx.machine import ranks, threads
from robnet_fx.machine.precision import training_precision
from robnet_fx.machine.progress import Progress, Task
from robnet_fx.train import checkpoint as checkpoints
from robnet_fx.train.augment import augment
from robnet_fx.train.figures import over_ranks, read
from robnet_fx.train.gradients import accumulate
from robnet_fx.train.history import History
from robnet_fx.train.interrupt import held_back
from robnet_fx.train.objectives import WITHOUT_BOUNDS, Objective
from robnet_fx.train.recipe import Recipe
from robnet_fx.train.validation import Pair, score, validate

HUGE = 1e7
"""A loss so many times that of guessing, `log(classes)`, is made of bounds that say nothing about the network."""
LOST = 50
"""After so many steps of such a loss in a row, or half an epoch of fewer, training has exploded. Bounds that are huge
at first, but within reach, have come down by then."""


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
        objective: Objective,
        validation: Pair | None,
        checkpoint: Path | None,
    ) -> None:
        self.net, self.recipe, self.objective = net, recipe, objective
        self.validation, self.checkpoint = validation, checkpoint
        self.device = net.center.device
        self.settings = checkpoints.settings(net, images, labels, recipe, objective, validation)
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
        self.sums: dict[str, float] = {}
        self.lost = 0  # steps in a row with a huge loss
        self.active = torch.ones(len(images), dtype=torch.bool, device=self.device)  # when last met
        self.history = History()
        self.best: dict[str, Tensor] | None = None
        self.undo: tuple[dict[str, Tensor], list[Tensor]] | None = None
        self.good: dict[str, Any] = {}  # the state to go back to when training explodes

    def to_the_end(self, progress: Progress) -> History:
        total = self.recipe.epochs * self.steps
        self.good = copy.deepcopy(self.state())
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
            figures = accumulate(
                self.net,
                images[own],
                self.labels[index][own],
                objective=self.objective,
                alpha=self.recipe.alpha,
                robust=setting.phase.robust,
                frozen=self.recipe.frozen_statistics,
                likely=self.active[index][own],
                part=self.recipe.micro_batch,
                rows=self.recipe.micro_rows,
                batch=len(index),
                precision=self.recipe.precision,
            )
        figures = over_ranks(figures, own, len(index), self.parameters)
        if not (setting.phase.robust and self.recipe.frozen_statistics):
            ranks.follow(self.net.model.buffers())  # each rank has seen its own part only
        numbers = read(figures, len(index), self.parameters)
        if not (math.isfinite(numbers.loss) and math.isfinite(numbers.norm)):
            self.roll_back()
            raise RobnetError(self.explain_divergence(numbers.loss, eps, setting.phase.lr))
        huge = numbers.loss > HUGE * math.log(self.net.classes)
        if huge and self.lost + 1 >= min(LOST, max(3, self.steps // 2)):
            raise RobnetError(self.explode(numbers.loss, eps))
        with held_back():
            self.optimiser.step()
            self.step += 1
            self.lost = self.lost + 1 if huge else 0
            self.sums = {name: self.sums.get(name, 0.0) + value for name, value in numbers.sums.items()}
            if setting.phase.robust:
                self.active[index] = figures.active
            self.undo = None
        return {"loss": numbers.loss, "eps": eps, **numbers.shares}

    def end_epoch(self) -> None:
        """Measure, select, and move on to the next epoch, all at once."""
        setting = self.recipe.at(self.epoch, self.steps - 1, self.steps)
        eps = setting.share * self.net.perturbation.eps
        self.net.set_eps(eps)
        figures: dict[str, Any] = {"phase": setting.phase.name, "lr": setting.phase.lr, "eps": eps}
        figures |= {name: total / len(self.images) for name, total in self.sums.items()}
        size, robust = self.recipe.batch_size, setting.phase.robust and self.objective.bounded
        at_once, boxes = self.recipe.micro_batch or size, self.objective.boxes
        figures |= validate(self.net, self.validation, robust, size, at_once, boxes)
        eligible = robust and setting.share == 1 and self.validation is not None
        selected = self.history.selected
        better = eligible and (selected is None or score(figures) >= score(self.history.epochs[selected]))
        best = {k: v.detach().clone() for k, v in self.net.model.state_dict().items()} if better else self.best
        with held_back():
            self.history.epochs.append(figures)
            if better:
                self.history.selected, self.best = self.epoch, best
            self.epoch, self.step, self.sums = self.epoch + 1, 0, {}
            self.loader_state = self.loader.get_state()
        if not self.lost:
            self.good = copy.deepcopy(self.state())

    def explain_divergence(self, total: float, eps: float, lr: float) -> str:
        kept = (
            f"\n  the last good state is in {self.checkpoint}" if self.checkpoint and self.checkpoint.exists() else ""
        )
        return (
            f"training diverged in epoch {self.epoch + 1}, step {self.step + 1}: the loss is {total}"
            f"{'' if not math.isfinite(total) else ' and its gradient is not finite'} (eps {eps:.4g})\n"
            f"  remedy   a learning rate below {lr:g}, a smaller alpha, or a longer ramp{kept}"
        )

    def explode(self, total: float, eps: float) -> str:
        """Go back to the last good state, in memory and on disk, and say what happened."""
        steps, at = self.lost + 1, f"epoch {self.epoch + 1}, step {self.step + 1}"
        with held_back():
            self.restore(self.good)
        ranks.by_leader(self.save)
        where = "before training" if not self.epoch + self.step else f"after epoch {self.epoch}"
        kept = f", and in {self.checkpoint}" if self.checkpoint else ""
        return (
            f"training exploded: for {steps} steps, up to {at}, the loss was more than {HUGE:g} times that of "
            f"guessing, and now it is {total:.2g} (eps {eps:.4g})\n"
            "  reason   the bounds say nothing about the network: lowering them costs accuracy and proves nothing\n"
            f"  remedy   --objective {WITHOUT_BOUNDS}, which needs no bounds; smaller parts of the box, with symbols "
            "(docs/training.md, deep networks); or a smaller eps\n"
            f"  the weights are again those {where}{kept}"
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
            "threads": torch.get_num_threads(),
            "loader": self.loader_state,
            "epoch": self.epoch,
            "step": self.step,
            "sums": self.sums,
            "lost": self.lost,
            "active": self.active,
            "history": self.history.epochs,
            "selected": self.history.selected,
            "best": self.best,
        }

    def load(self, state: dict[str, Any]) -> None:
        assert self.checkpoint is not None
        checkpoints.check_same_run(self.checkpoint, state["settings"], self.settings)
        self.restore(state)

    def restore(self, state: dict[str, Any]) -> None:
        self.net.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        checkpoints.set_random_state(state["random"], self.device)
        threads.restore(state["threads"])
        self.loader_state = state["loader"]
        self.epoch, self.step, self.sums = state["epoch"], state["step"], state["sums"]
        self.lost = state["lost"]
        self.active = state["active"].to(self.device)
        self.history = History(state["history"], state["selected"])
        self.best = state["best"]
