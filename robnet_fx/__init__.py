"""robnet-fx: certified training against bias fields, as a model compiler on torch.fx.

`__all__` is what is public here; it is loaded when it is first asked for, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from robnet_fx.errors import Interrupted, RobnetError, UnsupportedError, UnsupportedOpError, UsageError
from robnet_fx.version import __version__ as __version__

if TYPE_CHECKING:  # for type checkers and editors, what `_HOMES` says
    from robnet_fx.bounds.build import bound, margin_bounds
    from robnet_fx.bounds.generator import generate
    from robnet_fx.bounds.model import BoundedModel
    from robnet_fx.frontend import trace
    from robnet_fx.machine.allocator import keep_freed_memory
    from robnet_fx.perturbations.base import Box
    from robnet_fx.perturbations.bias_field import BiasField
    from robnet_fx.perturbations.input_box import InputBox
    from robnet_fx.perturbations.white_noise import WhiteNoise
    from robnet_fx.problem import Problem
    from robnet_fx.train.recipe import Phase, Recipe
    from robnet_fx.train.robustify import robustify
    from robnet_fx.train.settings import Training
    from robnet_fx.verify.attack import attack
    from robnet_fx.verify.certificate import certify
    from robnet_fx.verify.search import Limits

__all__ = [
    "BiasField",
    "BoundedModel",
    "Box",
    "InputBox",
    "Interrupted",
    "Limits",
    "Phase",
    "Problem",
    "Recipe",
    "RobnetError",
    "Training",
    "UnsupportedError",
    "UnsupportedOpError",
    "UsageError",
    "WhiteNoise",
    "attack",
    "bound",
    "certify",
    "generate",
    "keep_freed_memory",
    "margin_bounds",
    "robustify",
    "trace",
]

_HOMES = {
    "BiasField": "perturbations.bias_field",
    "BoundedModel": "bounds.model",
    "Box": "perturbations.base",
    "InputBox": "perturbations.input_box",
    "Limits": "verify.search",
    "Phase": "train.recipe",
    "Problem": "problem",
    "Recipe": "train.recipe",
    "Training": "train.settings",
    "WhiteNoise": "perturbations.white_noise",
    "attack": "verify.attack",
    "bound": "bounds.build",
    "certify": "verify.certificate",
    "generate": "bounds.generator",
    "keep_freed_memory": "machine.allocator",
    "margin_bounds": "bounds.build",
    "robustify": "train.robustify",
    "trace": "frontend",
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that is loaded for it; there is no other way to a module that is not imported."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
