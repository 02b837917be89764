"""From a perturbed graph and the name of a method to a bounds graph, and its evaluation."""

from robnet_fx.bounds.generator import generate
from robnet_fx.bounds.methods import METHODS, method_named
from robnet_fx.bounds.plan import unsupported

__all__ = ["METHODS", "generate", "method_named", "unsupported"]
