"""The generator: a perturbed graph and the name of a method to a bounds graph."""

from robnet_fx.generate.analysis import unsupported
from robnet_fx.generate.generate import Generator, generate
from robnet_fx.generate.methods import METHODS, method_named

__all__ = ["METHODS", "Generator", "generate", "method_named", "unsupported"]
