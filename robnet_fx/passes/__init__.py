"""Graph passes: each one idea, one file, a condition on the way in and one on the way out."""

from robnet_fx.graphs import ENTRY
from robnet_fx.passes.drop_softmax import drop_softmax
from robnet_fx.passes.insert_clip import insert_clip
from robnet_fx.passes.insert_layout import insert_layout
from robnet_fx.passes.insert_normalisation import NORMALISATION, insert_normalisation
from robnet_fx.passes.insert_perturbation import insert_perturbation
from robnet_fx.passes.simplify import simplify

__all__ = [
    "ENTRY",
    "NORMALISATION",
    "drop_softmax",
    "insert_clip",
    "insert_layout",
    "insert_normalisation",
    "insert_perturbation",
    "simplify",
]
