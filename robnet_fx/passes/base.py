"""What a graph pass is: a function on graphs with a named precondition and postcondition, linted on the way out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec

from torch import fx

from robnet_fx.graphs import copy_graph, derive

P = ParamSpec("P")
Condition = Callable[[fx.GraphModule], bool]
Rewrite = Callable[Concatenate[fx.GraphModule, P], None]
Pass = Callable[Concatenate[fx.GraphModule, P], fx.GraphModule]


class PassError(AssertionError):
    """A pass met, or left, a graph it should not have: a bug in robnet-fx, not in the model."""


def graph_pass(requires: Condition, ensures: Condition) -> Callable[[Rewrite[P]], Pass[P]]:
    """Turn an in-place rewrite into a pass: it gets a copy that shares the sub-modules, and both conditions hold."""

    def wrap(rewrite: Rewrite[P]) -> Pass[P]:
        @functools.wraps(rewrite)
        def run(module: fx.GraphModule, *args: P.args, **kwargs: P.kwargs) -> fx.GraphModule:
            _check(requires, module, rewrite.__name__, "precondition")
            copy = derive(module, copy_graph(module), type(module).__name__)
            rewrite(copy, *args, **kwargs)
            copy.graph.lint()
            copy.recompile()
            _check(ensures, copy, rewrite.__name__, "postcondition")
            return copy

        return run

    return wrap


def _check(condition: Condition, module: fx.GraphModule, name: str, kind: str) -> None:
    if not condition(module):
        raise PassError(f"{kind} of pass {name} does not hold: {(condition.__doc__ or condition.__name__).strip()}")


def placeholders(module: fx.GraphModule) -> list[str]:
    """The names of the graph's inputs, in order."""
    return [str(node.target) for node in module.graph.nodes if node.op == "placeholder"]


def is_canonical(module: fx.GraphModule) -> bool:
    """The graph has one image placeholder."""
    return placeholders(module) in (["x"], ["image"])


def is_perturbed(module: fx.GraphModule) -> bool:
    """The graph takes coefficients and an image."""
    return placeholders(module) == ["coefficients", "image"]


def input_of(module: fx.GraphModule) -> fx.Node:
    """The image placeholder."""
    return [node for node in module.graph.nodes if node.op == "placeholder"][-1]


ARRIVED = "channels_first"  # the node that makes of a user's images what the passes work on


def arrived(module: fx.GraphModule) -> fx.Node:
    """The images `[B, C, *spatial]`: the placeholder itself, or what moves the axes of the user's arrays."""
    image = input_of(module)
    return next((user for user in image.users if user.name == ARRIVED), image)


def like(node: fx.Node, model: fx.Node, note: str) -> fx.Node:
    """Give an inserted node the shape and dtype of `model` and a word on where it comes from."""
    node.meta = {key: model.meta[key] for key in ("shape", "dtype") if key in model.meta}
    node.meta["layer"] = (note, "robnet_fx")
    return node


def put_behind(image: fx.Node, value: fx.Node) -> None:
    """What read `image` reads `value` instead, but for the nodes just inserted, which lie before `value`."""
    image.replace_all_uses_with(value, delete_user_cb=lambda user: user > value)
