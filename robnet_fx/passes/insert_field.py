"""Put the perturbation in front of the network: the graph becomes `(coefficients, image) -> logits`."""

from __future__ import annotations

from torch import fx

from robnet_fx.graphs import shape_of
from robnet_fx.passes.base import PassError, arrived, graph_pass, input_of, is_canonical, is_perturbed, like, put_behind
from robnet_fx.passes.insert_layout import layout_of
from robnet_fx.passes.tail import append_tail
from robnet_fx.perturbations.base import Perturbation

FIELD = "field"  # the sub-module that holds the box, and the node where the coefficients enter


@graph_pass(requires=is_canonical, ensures=is_perturbed)
def insert_field(module: fx.GraphModule, perturbation: Perturbation) -> None:
    """The perturbation's affine entry in front of everything (Definition 7 without building W), and behind it its tail;
    box and basis as `field`."""
    old, graph = input_of(module), module.graph
    layout = layout_of(module)
    if (found := shape_of(arrived(module))) != layout.image:
        raise PassError(f"the field would lie on {list(found)}, and an image is {list(layout.image)}")
    transform = perturbation.build(layout.image).to(dtype=old.meta["dtype"])
    module.add_module(FIELD, transform)
    with graph.inserting_before(next(iter(graph.nodes))):
        coefficients = graph.placeholder("coefficients")
        coefficients.meta = {"shape": (transform.dimensions,), "dtype": old.meta["dtype"]}
        image = like(graph.placeholder("image"), old, "image")
    old.replace_all_uses_with(image)
    graph.erase_node(old)
    images = arrived(module)
    with graph.inserting_before(images.next):
        parts = [graph.get_attr(f"{FIELD}.{name}") for name in transform.part_names]
        args = (coefficients, images, *parts)
        field = like(graph.create_node("call_function", transform.rules.apply, args, name=FIELD), images, "field")
        value = append_tail(module, field, transform, type(perturbation).__name__)
    put_behind(images, value)
