"""robnet-fx: certified training against bias fields, as a model compiler on torch.fx."""

from robnet_fx.bounds import generate
from robnet_fx.bounds.model import BoundedModel, bound, margin_bounds
from robnet_fx.errors import Interrupted, RobnetError, UnsupportedError, UnsupportedOpError, UsageError
from robnet_fx.frontend import trace
from robnet_fx.perturbations.bias_field import BiasField
from robnet_fx.perturbations.white_noise import WhiteNoise
from robnet_fx.problem import Problem
from robnet_fx.train.recipe import Phase, Recipe
from robnet_fx.train.robustify import robustify
from robnet_fx.train.settings import Training

__version__ = "0.2.0.dev0"

__all__ = [
    "BiasField",
    "BoundedModel",
    "Interrupted",
    "Phase",
    "Problem",
    "Recipe",
    "RobnetError",
    "Training",
    "UnsupportedError",
    "UnsupportedOpError",
    "UsageError",
    "WhiteNoise",
    "bound",
    "generate",
    "margin_bounds",
    "robustify",
    "trace",
]
