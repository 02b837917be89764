"""What is done to an image: a specification that users write, and the rules that bound it."""

from robnet_fx.perturbations.base import Box, Perturbation, Transform, TransformRules, check_eps
from robnet_fx.perturbations.bias_field import BiasField
from robnet_fx.perturbations.input_box import InputBox
from robnet_fx.perturbations.white_noise import WhiteNoise

__all__ = ["BiasField", "Box", "InputBox", "Perturbation", "Transform", "TransformRules", "WhiteNoise", "check_eps"]
