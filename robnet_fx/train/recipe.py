"""The schedule of a training run: which learning rate and which eps at every step."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from robnet_fx.errors import UsageError
from robnet_fx.machine.precision import check_precision

MACHINE_ONLY = ("micro_batch", "micro_rows")  # what depends on the machine, and changes no result


@dataclass(frozen=True)
class Phase:
    """`epochs` with one learning rate; eps moves evenly, step by step, from `start` to `end` times the target.

    A phase that is not `robust` trains on the standard loss alone.
    """

    name: str
    epochs: int
    lr: float
    start: float = 1.0
    end: float = 1.0
    robust: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise UsageError(f"phase {self.name!r}: epochs must be at least 0, not {self.epochs}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"phase {self.name!r}: the learning rate must be above 0, not {self.lr}")
        if not (0 <= self.start <= 1 and 0 <= self.end <= 1):
            raise UsageError(f"phase {self.name!r}: start and end are shares of the target eps, in [0, 1]")


class Setting(NamedTuple):
    """What one step is trained with; `share` is the share of the target eps."""

    phase: Phase
    share: float


@dataclass(frozen=True)
class Recipe:
    """Phases in order, and what holds for all of them. `alpha` weighs the robust loss (equation 7).

    `augment` mirrors and shifts the training images by up to four pixels: right for photographs, wrong for digits.
    `micro_batch`, `micro_rows`: bounds are built for at most that many images and margins at once, for memory's sake;
    the gradients are the same. `precision` of the bounds and of products on a GPU: see `robnet_fx.machine.precision`.
    `frozen_statistics`: robust phases leave the running statistics of batch norm alone (see `train.gradients`).
    """

    phases: tuple[Phase, ...]
    batch_size: int = 128
    alpha: float = 1.0
    seed: int = 0
    augment: bool = False
    micro_batch: int | None = None
    micro_rows: int | None = None
    precision: str = "tf32"
    frozen_statistics: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UsageError("a recipe needs at least one epoch")
        if self.batch_size < 1:
            raise UsageError(f"the batch size must be at least 1, not {self.batch_size}")
        for name in MACHINE_ONLY:
            if (most := getattr(self, name)) is not None and most < 1:
                raise UsageError(f"{name} must be at least 1, not {most}")
        check_precision(self.precision)
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise UsageError(f"alpha must be finite and at least 0, not {self.alpha}")

    @property
    def epochs(self) -> int:
        return sum(phase.epochs for phase in self.phases)

    def at(self, epoch: int, step: int, steps: int) -> Setting:
        """The setting of step `step` (of `steps` in an epoch) of epoch `epoch`, both counted from 0 over the whole run.

        The first step of a phase has exactly its `start`, the last exactly its `end`.
        """
        for phase in self.phases:
            if epoch < phase.epochs:
                done, last = epoch * steps + step, phase.epochs * steps - 1
                share = phase.end if done >= last else phase.start + (phase.end - phase.start) * done / last
                return Setting(phase, share)
            epoch -= phase.epochs
        raise IndexError("epoch beyond the end of the recipe")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for JSON and for comparing two recipes."""
        return asdict(self)

    @classmethod
    def paper(cls, *, pretrain: bool = False, **common: Any) -> Recipe:
        """Section 6 of the paper: 200 robust epochs, after 200 standard ones if `pretrain`.

        The text reads "50 epochs with a learning rate of 5e-5, 25 epochs with 5e-5 and 25 epochs with 5e-6", and then
        lists the rates of robust training as 5e-4, 5e-5, 5e-6: the first is taken to be a slip for 5e-4.
        """
        return cls(_standard(80, 80, 40) * pretrain + _robust(100, 50, 25, 25, lr=5e-4), **common)

    @classmethod
    def short(cls, epochs: int, *, pretrain: bool = False, lr: float = 5e-4, **common: Any) -> Recipe:
        """The paper's schedule with its proportions in `epochs` robust epochs (and as many standard ones before them).

        Half ramps eps up, a quarter stays at `lr` with the full eps, an eighth each follows at a tenth and a hundredth.
        """
        if epochs < 1:
            raise UsageError(f"epochs must be at least 1, not {epochs}")
        standard = _standard(*_shares(epochs, 80, 80, 40)) if pretrain else ()
        return cls(standard + _robust(*_shares(epochs, 100, 50, 25, 25), lr=lr), **common)


def _standard(first: int, second: int, third: int) -> tuple[Phase, ...]:
    counts = zip((first, second, third), (1e-3, 1e-4, 1e-5), strict=True)
    return tuple(Phase(f"standard {lr:g}", n, lr, 0.0, 0.0, robust=False) for n, lr in counts if n)


def _robust(ramp: int, first: int, second: int, third: int, *, lr: float) -> tuple[Phase, ...]:
    counts = zip((first, second, third), (lr, lr / 10, lr / 100), strict=True)
    return (Phase("ramp", ramp, lr, 0.0, 1.0), *(Phase(f"full eps {rate:g}", n, rate) for n, rate in counts if n))


def _shares(epochs: int, *weights: int) -> list[int]:
    """`epochs` split in the ratio of `weights`, at least one for the first."""
    ends = [math.ceil(epochs * sum(weights[: i + 1]) / sum(weights)) for i in range(len(weights))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
