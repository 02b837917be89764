"""Put the perturbation in front of the network: the graph becomes `(coefficients, image) -> logits`."""

from __future__ import annotations

from torch import fx

from robnet_fx.graphs import ENTRY, NOWHERE, call, input_of, noted, shape_of
from robnet_fx.passes.base import PassError, arrived, graph_pass, inserted, put_behind
from robnet_fx.passes.conditions import CANONICAL, PERTURBED
from robnet_fx.passes.insert_layout import layout_of
from robnet_fx.passes.tail import append_tail
from robnet_fx.perturbations.base import Perturbation, Transform


def transform_of(perturbed: fx.GraphModule) -> Transform:
    """The perturbation that a perturbed graph has: its default box, tensors and rules."""
    transform = perturbed.get_submodule(ENTRY)
    assert isinstance(transform, Transform)
    return transform


@graph_pass(requires=CANONICAL, ensures=PERTURBED)
def insert_perturbation(module: fx.GraphModule, perturbation: Perturbation) -> None:
    """The perturbation's affine entry in front of everything (Definition 7 without building W), and behind it its tail;
    box and basis in the sub-module `ENTRY`."""
    old, graph = input_of(module), module.graph
    layout = layout_of(module)
    if (found := shape_of(arrived(module))) != layout.image:
        raise PassError(f"the perturbation would lie on {list(found)}, and an image is {list(layout.image)}")
    transform = perturbation.build(layout.image).to(dtype=old.meta["dtype"])
    module.add_module(ENTRY, transform)
    value = old.meta["val"]
    with graph.inserting_before(next(iter(graph.nodes))):
        each = value.new_empty((value.shape[0], transform.dimensions))
        coefficients = noted(graph.placeholder("coefficients"), each, NOWHERE, batch=True)
        image = noted(graph.placeholder("image"), value, inserted("image"), batch=True)
    old.replace_all_uses_with(image)
    graph.erase_node(old)
    images = arrived(module)
    with graph.inserting_before(images.next):
        parts = [
            noted(graph.get_attr(f"{ENTRY}.{name}"), value.new_empty(part.shape, dtype=part.dtype), inserted("field"))
            for name, part in ((name, getattr(transform, name)) for name in transform.part_names)
        ]
        args, like = (coefficients, images, *parts), images.meta["val"]
        entry = call(graph, transform.rules.apply, args, place=inserted("field"), name=ENTRY, value=like)
        tail = append_tail(module, entry, transform, type(perturbation).__name__)
    put_behind(images, tail)
