"""The passes in order: from the canonical graph to the clean one, and on to the perturbed one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from torch import fx

from robnet_fx.errors import UsageError
from robnet_fx.frontend.parity import check_lowered
from robnet_fx.graphs import EXAMPLE, MODEL, input_of
from robnet_fx.passes import (  # noqa: F401  (they enter lowerings)
    lower_attention,
    lower_einsum,
    lower_exponentials,
    lower_extremes,
    lower_statistics,
)
from robnet_fx.passes.base import check
from robnet_fx.passes.conditions import CLEAN, PERTURBED
from robnet_fx.passes.drop_softmax import drop_softmax
from robnet_fx.passes.insert_clip import insert_clip
from robnet_fx.passes.insert_layout import insert_layout
from robnet_fx.passes.insert_normalisation import channels_of, insert_normalisation
from robnet_fx.passes.insert_perturbation import insert_perturbation
from robnet_fx.passes.lower import lower
from robnet_fx.passes.simplify import simplify
from robnet_fx.perturbations.base import Perturbation
from robnet_fx.problem import Constants

Step = Callable[[fx.GraphModule], fx.GraphModule]
"""A pass with its arguments."""


def to_clean(mean: Constants = None, std: Constants = None) -> tuple[Step, ...]:
    """The passes from the canonical graph to the clean one, in order."""
    return (
        drop_softmax,
        lower_and_compare,
        simplify,
        partial(insert_layout, channels=channels_of(mean, std)),
        partial(insert_normalisation, mean=mean, std=std),
    )


def to_perturbed(perturbation: Perturbation, clip: str | None) -> tuple[Step, ...]:
    """The passes from the clean graph to the perturbed one, in order."""
    return (
        partial(insert_clip, clip=clip),
        partial(insert_perturbation, perturbation=perturbation),
        simplify,  # what the perturbation now lies between
    )


def stages(graph: fx.GraphModule, steps: Iterable[Step]) -> Iterator[fx.GraphModule]:
    """The graph behind each step, one after the other; its `meta["passes"]` says what was run."""
    for step in steps:
        graph = step(graph)
        yield graph


def lower_and_compare(module: fx.GraphModule) -> fx.GraphModule:
    """`lower`; what it wrote out is compared with what it stands for, on the example that the network was traced with.
    Raises `UnsupportedError` where they differ."""
    lowered = lower(module)
    example = input_of(module).meta.get(EXAMPLE)
    if example is not None and _operations(lowered) != _operations(module):
        check_lowered(module, lowered, example)
    return lowered


def _operations(module: fx.GraphModule) -> list[Any]:
    return [node.target for node in module.graph.nodes]


def clean(canonical: fx.GraphModule, mean: Constants = None, std: Constants = None) -> fx.GraphModule:
    """`image -> logits`: no softmax at the end, composite operations written out; in front the layout that the network
    takes, and the normalisation if it is given.

    Raises UsageError for a normalisation in front of a network that takes levels of pixels, and what passes raise.
    """
    if (mean is not None or std is not None) and getattr(canonical.get_submodule(MODEL), "levels", False):
        raise UsageError(
            "the network takes uint8 images and normalises them itself: mean and std would do it twice\n"
            "  remedy  leave out --mean and --std (Python: mean, std)"
        )
    *_, made = stages(canonical, to_clean(mean, std))
    check(CLEAN, made, "the passes leave a graph that is clean")
    return made


def perturb(clean: fx.GraphModule, perturbation: Perturbation, clip: str | None) -> fx.GraphModule:
    """`(coefficients, image) -> logits`: the clip and then the perturbation in front of the clean graph."""
    *_, made = stages(clean, to_perturbed(perturbation, clip))
    check(PERTURBED, made, "the passes leave a graph that is perturbed")
    return made
