"""The passes in order: from the canonical graph to the clean one, and on to the perturbed one."""

from __future__ import annotations

from typing import Any

from torch import fx

from robnet_fx.errors import UsageError
from robnet_fx.frontend.parity import check_lowered
from robnet_fx.graphs import EXAMPLE, MODEL
from robnet_fx.passes import (  # noqa: F401  (they enter lowerings)
    lower_attention,
    lower_einsum,
    lower_exponentials,
    lower_extremes,
    lower_statistics,
)
from robnet_fx.passes.base import input_of
from robnet_fx.passes.drop_softmax import drop_softmax
from robnet_fx.passes.insert_clip import insert_clip
from robnet_fx.passes.insert_field import insert_field
from robnet_fx.passes.insert_layout import insert_layout
from robnet_fx.passes.insert_normalisation import channels_of, insert_normalisation
from robnet_fx.passes.lower import lower
from robnet_fx.passes.simplify import simplify
from robnet_fx.perturbations.base import Perturbation
from robnet_fx.problem import Constants


def clean(canonical: fx.GraphModule, mean: Constants = None, std: Constants = None) -> fx.GraphModule:
    """`image -> logits`: no softmax at the end, composite operations written out; in front the layout that the network
    takes, and the normalisation if it is given. What was written out is compared with what it stands for.

    Raises UsageError for a normalisation in front of a network that takes levels of pixels, and what passes raise.
    """
    if (mean is not None or std is not None) and getattr(canonical.get_submodule(MODEL), "levels", False):
        raise UsageError(
            "the network takes uint8 images and normalises them itself: mean and std would do it twice\n"
            "  remedy  leave out --mean and --std (Python: mean, std)"
        )
    whole = drop_softmax(canonical)
    lowered = lower(whole)
    example = input_of(canonical).meta.get(EXAMPLE)
    if example is not None and _operations(lowered) != _operations(whole):
        check_lowered(whole, lowered, example)
    graph = insert_layout(simplify(lowered), channels_of(mean, std))  # simplified later, once the field is in between
    return graph if mean is None and std is None else insert_normalisation(graph, mean, std)


def _operations(module: fx.GraphModule) -> list[Any]:
    return [node.target for node in module.graph.nodes]


def perturb(clean: fx.GraphModule, perturbation: Perturbation, clip: str | None) -> fx.GraphModule:
    """`(coefficients, image) -> logits`: the clip and then the perturbation in front of the clean graph."""
    return simplify(insert_field(insert_clip(clean, clip), perturbation))
