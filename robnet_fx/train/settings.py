"""How a network is trained, as one value: the settings of `robustify` beside model, data and problem."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robnet_fx.bounds.methods import check_symbols
from robnet_fx.errors import UsageError
from robnet_fx.train.objectives import objective_named
from robnet_fx.train.recipe import Recipe


@dataclass(frozen=True)
class Training:
    """Settings of certified training; the schedule is the paper's, the loss what verdicts that split gain most from.

    epochs: the paper's schedule in that many robust epochs (`Recipe.short`, beginning at the learning rate `lr`), None
    in full. pretrain: as many epochs on the standard loss first, for a model that is not trained yet. method: the
    bounds trained on; None is "rsip-ssip", or "rsip-ibp" where the coefficients are too many for SSIP. symbols: how
    many errors of relaxations SSIP keeps of an image, as `bound` does, but a number (docs/training.md). objective: the
    robust loss, by its name in `train.objectives`: "equation-6" is the paper's, None what `default_objective` says, for
    fields "cc:cuts=8" (docs/training.md); alpha: its weight. batch_size: images a step. augment: mirror and shift the
    training images. memory: bytes that a step may take, all that is free if None: what needs more, by the estimate of
    `robnet_fx.bounds.memory`, is bounded in parts. precision: that of training steps (`machine.precision`). compiled:
    `torch.compile` fuses their bounds. limit, test_limit: cut the training and the test set to a fixed random choice.
    seed: of everything random. Raises `UsageError` for values out of range, and for what an objective without bounds
    has no use for.
    """

    epochs: int | None = None
    pretrain: bool = False
    method: str | None = None
    symbols: int = 0
    objective: str | None = None
    alpha: float = 1.0
    lr: float = 5e-4
    batch_size: int = 128
    augment: bool = False
    memory: int | None = None
    precision: str = "tf32"
    compiled: bool = False
    limit: int | None = None
    test_limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what a recipe or the methods refuse, before any work."""
        check_symbols(self.symbols, self.method or "rsip-ssip")
        if not isinstance(self.symbols, int):  # "all"
            raise UsageError(
                'symbols must be a number in training, not "all": a step keeps all it computes for its gradient, and '
                "how many errors there are changes from step to step, so that nobody could say what fits into memory"
            )
        if self.objective is not None and not objective_named(self.objective).bounded:
            for said, name in ((self.symbols, "symbols"), (self.compiled, "compiled")):
                if said:
                    raise UsageError(f"{name}: training on {self.objective} has no bounds that it could be about")
        self.recipe()

    def recipe(self) -> Recipe:
        """The schedule, as long as nothing has to be bounded in parts."""
        common: dict[str, Any] = {
            "batch_size": self.batch_size,
            "alpha": self.alpha,
            "seed": self.seed,
            "augment": self.augment,
            "precision": self.precision,
        }
        if self.epochs is None:
            return Recipe.paper(pretrain=self.pretrain, **common)
        return Recipe.short(self.epochs, pretrain=self.pretrain, lr=self.lr, **common)
