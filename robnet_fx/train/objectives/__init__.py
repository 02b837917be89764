"""The losses that training can minimise, by name, one file each."""

from robnet_fx.errors import UsageError
from robnet_fx.train.objectives.base import Batch, Found, Objective, Outcome, Wanted
from robnet_fx.train.objectives.equation_6 import EQUATION_6, Equation6, robust_loss

OBJECTIVES: dict[str, type[Objective]] = {
    "equation-6": Equation6,
}


def objective_named(name: str) -> Objective:
    """The objective of that name, with the parameters it has by default; `UsageError` for a name that none has."""
    if name not in OBJECTIVES:
        raise UsageError(f"unknown objective {name!r}; known: {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]()


__all__ = [
    "EQUATION_6",
    "OBJECTIVES",
    "Batch",
    "Equation6",
    "Found",
    "Objective",
    "Outcome",
    "Wanted",
    "objective_named",
    "robust_loss",
]
