"""The losses that training can minimise, by name, one file each."""

from dataclasses import fields
from typing import Any

from robnet_fx.errors import UsageError
from robnet_fx.perturbations.base import Transform
from robnet_fx.train.objectives.base import Batch, Found, Objective, Outcome, Wanted
from robnet_fx.train.objectives.equation_6 import EQUATION_6, Equation6, robust_loss
from robnet_fx.train.objectives.expressive import CC, MTL, Exp
from robnet_fx.train.objectives.small_boxes import SmallBoxes
from robnet_fx.train.objectives.stable import Stable

OBJECTIVES: dict[str, type[Objective]] = {
    "equation-6": Equation6,
    "small-boxes": SmallBoxes,
    "mtl": MTL,
    "cc": CC,
    "exp": Exp,
    "stable": Stable,
}


WITHOUT_BOUNDS = "stable"
"""What is left to train on where bounds say nothing about a network."""


def objective_named(said: str) -> Objective:
    """The objective of a name, `small-boxes`, with other parameters than its defaults where some follow,
    `small-boxes:cuts=4,tau=0.5`. Raises `UsageError` for a name or a parameter that there is not."""
    name, _, parameters = said.partition(":")
    if name not in OBJECTIVES:
        raise UsageError(f"unknown objective {name!r}; known: {', '.join(OBJECTIVES)}")
    kind = OBJECTIVES[name]
    types: dict[str, Any] = {field.name: type(field.default) for field in fields(kind)}  # type: ignore[arg-type]
    given: dict[str, Any] = {}
    for part in filter(None, parameters.split(",")):
        key, _, value = part.partition("=")
        if key not in types:
            raise UsageError(f"objective {name} has no parameter {key!r}; it has: {', '.join(types) or 'none'}")
        try:
            given[key] = types[key](value)
        except ValueError:
            raise UsageError(f"objective {name}: {key} is no {types[key].__name__}: {value!r}") from None
    return kind(**given)


def default_objective(transform: Transform) -> str:
    """What `robustify` trains on where nothing is said: "cc:cuts=8", which left ten points more of DM-Small's images
    right and eleven more certified than the paper's loss (docs/training.md). Where the coefficients are too many for
    SSIP, as of noise, it is "equation-6", the paper's: a cut of one among thousands makes no smaller box."""
    return "cc:cuts=8" if transform.fits_ssip else "equation-6"


__all__ = [
    "CC",
    "EQUATION_6",
    "MTL",
    "OBJECTIVES",
    "WITHOUT_BOUNDS",
    "Batch",
    "Equation6",
    "Exp",
    "Found",
    "Objective",
    "Outcome",
    "SmallBoxes",
    "Stable",
    "Wanted",
    "default_objective",
    "objective_named",
    "robust_loss",
]
