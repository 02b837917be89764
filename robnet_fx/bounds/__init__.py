"""The generator: a perturbed graph and the name of a method to a bounds graph."""

from robnet_fx.bounds.generator import Generator, generate
from robnet_fx.bounds.methods import METHODS, method_named
from robnet_fx.bounds.plan import unsupported

__all__ = ["METHODS", "Generator", "generate", "method_named", "unsupported"]
