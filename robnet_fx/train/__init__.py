"""Certified training (Algorithm 1, equations 6 and 7) over any bounds graph."""

from robnet_fx.train.history import History
from robnet_fx.train.loop import train
from robnet_fx.train.objectives import Equation6, Objective, objective_named, robust_loss
from robnet_fx.train.recipe import Phase, Recipe

__all__ = ["Equation6", "History", "Objective", "Phase", "Recipe", "objective_named", "robust_loss", "train"]
