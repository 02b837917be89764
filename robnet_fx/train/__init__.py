"""Certified training (Algorithm 1, equations 6 and 7) over any bounds graph."""

from robnet_fx.train.loop import train
from robnet_fx.train.loss import robust_loss
from robnet_fx.train.recipe import Phase, Recipe
from robnet_fx.train.run import History

__all__ = ["History", "Phase", "Recipe", "robust_loss", "train"]
