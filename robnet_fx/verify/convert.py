"""A model in another precision: verdicts are worked in float64, whatever the network computes in."""

from __future__ import annotations

import copy

import torch

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.frontend.unwrap import bare


def in_dtype(net: BoundedModel, dtype: torch.dtype | None) -> BoundedModel:
    """`net` itself if it computes in `dtype` already (or dtype is None), else a copy that does, its box set anew.

    Of the user's module the copy has the weights alone."""
    if dtype is None or net.center.dtype == dtype:
        return net
    converted = copy.deepcopy(net, {id(net.model): copy.deepcopy(bare(net.model))}).to(dtype)
    converted.set_eps(net.eps)
    return converted
