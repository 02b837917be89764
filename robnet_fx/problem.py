"""The problem: what a network is bounded, trained and certified against, and what stands in front of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from robnet_fx.errors import UsageError
from robnet_fx.perturbations.base import Perturbation

CLIPS = ("relu", "clamp", None)
Constants = Sequence[float] | float | None


@dataclass(frozen=True)
class Problem:
    """A perturbed image is clipped, normalised and given to the network: `network((clip(T(x; a)) - mean) / std)`.

    perturbation: `BiasField`, `WhiteNoise` or another. clip: the form of the clip to [0, 1], "relu" (the paper's, its
    section 5), "clamp" (one node) or None. mean, std: one number a channel or one for all; None is 0 and 1.
    Raises `UsageError` for an unknown clip.
    """

    perturbation: Perturbation
    clip: str | None = "relu"
    mean: Constants = None
    std: Constants = None

    def __post_init__(self) -> None:
        if self.clip not in CLIPS:
            raise UsageError(f"clip must be one of 'relu', 'clamp' or None, not {self.clip!r}")

    @property
    def normalisation(self) -> dict[str, list[float] | None]:
        """Its "mean" and "std", each as numbers for the channels or for all, None where it is not given."""
        return {"mean": numbers_of(self.mean), "std": numbers_of(self.std)}


def numbers_of(values: Constants) -> list[float] | None:
    """Constants as a list, None where they are not given."""
    return None if values is None else [values] if isinstance(values, (int, float)) else [*values]
