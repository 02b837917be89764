"""Put the perturbation in front of the network: the graph becomes `(coefficients, image) -> logits`."""

from __future__ import annotations

from torch import fx

from robnet_fx.graphs import shape_of
from robnet_fx.passes.base import graph_pass, input_of, is_canonical, is_perturbed, like
from robnet_fx.perturbation import Perturbation

FIELD = "field"  # the sub-module that holds the box, and the node where the coefficients enter


@graph_pass(requires=is_canonical, ensures=is_perturbed)
def insert_field(module: fx.GraphModule, perturbation: Perturbation) -> None:
    """The perturbation's `apply` in front of everything (Definition 7 without building W); box and basis as `field`."""
    old = input_of(module)
    graph = module.graph
    transform = perturbation.build(shape_of(old)).to(dtype=old.meta["dtype"])
    module.add_module(FIELD, transform)
    with graph.inserting_before(next(iter(graph.nodes))):
        coefficients = graph.placeholder("coefficients")
        image = like(graph.placeholder("image"), old, "image")
        coefficients.meta = {"shape": (transform.dimensions,), "dtype": old.meta["dtype"]}
        parts = [graph.get_attr(f"{FIELD}.{name}") for name in transform.part_names]
        args = (coefficients, image, *parts)
        field = like(graph.create_node("call_function", transform.rules.apply, args, name=FIELD), old, "field")
    old.replace_all_uses_with(field)
    graph.erase_node(old)
