"""Graph passes: each one idea, one file, a precondition and a postcondition."""

from robnet_fx.passes.insert_clip import CLIPS, insert_clip
from robnet_fx.passes.insert_field import FIELD, insert_field
from robnet_fx.passes.insert_normalisation import NORMALISATION, Constants, insert_normalisation
from robnet_fx.passes.simplify import simplify

__all__ = [
    "CLIPS",
    "FIELD",
    "NORMALISATION",
    "Constants",
    "insert_clip",
    "insert_field",
    "insert_normalisation",
    "simplify",
]
