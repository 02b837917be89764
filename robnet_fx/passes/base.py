"""What a graph pass is: a function on graphs with conditions that are checked on the way in and on the way out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from torch import fx

from robnet_fx.graphs import PASSES, copied, input_of, placeholders
from robnet_fx.passes.conditions import Condition

__all__ = ["PassError", "graph_pass"]  # the rest serves the passes here

P = ParamSpec("P")
Rewrite = Callable[Concatenate[fx.GraphModule, P], None]
Pass = Callable[Concatenate[fx.GraphModule, P], fx.GraphModule]


class PassError(AssertionError):
    """A pass met, or left, a graph it should not have: a bug in robnet-fx, not in the model."""


def graph_pass(requires: Condition, ensures: Condition) -> Callable[[Rewrite[P]], Pass[P]]:
    """Turn an in-place rewrite into a pass: it gets a copy that shares the sub-modules, and both conditions hold.

    The graph module that it returns remembers in `meta["passes"]` what made it. A pass raises `PassError`, with the
    passes before it, where a condition does not hold.
    """

    def wrap(rewrite: Rewrite[P]) -> Pass[P]:
        @functools.wraps(rewrite)
        def run(module: fx.GraphModule, *args: P.args, **kwargs: P.kwargs) -> fx.GraphModule:
            name = rewrite.__name__
            check(requires, module, f"pass {name} needs a graph that is {requires.name}")
            copy = copied(module)
            rewrite(copy, *args, **kwargs)
            copy.graph.lint()
            copy.recompile()
            check(ensures, copy, f"pass {name} leaves a graph that is {ensures.name}")
            copy.meta[PASSES] = (*module.meta.get(PASSES, ()), name)
            return copy

        return run

    return wrap


def check(condition: Condition, module: fx.GraphModule, what: str) -> None:
    """Raise `PassError` where a condition does not hold; `what` says who asks for it."""
    if fault := condition.fault(module):
        before = ", ".join(module.meta.get(PASSES, ())) or "none"
        raise PassError(f"{what}, and this one is not: {fault}\n  passes  {before}")


def inserted(note: str) -> dict[str, Any]:
    """The place of a node that no layer of the user's made: a word on where it comes from."""
    return {"layer": (note, "robnet_fx"), "source": ""}


def is_perturbed(module: fx.GraphModule) -> bool:
    """Whether a graph takes coefficients and an image, as bounds are generated from."""
    return placeholders(module) == ["coefficients", "image"]


ARRIVED = "channels_first"  # the node that makes of a user's images what the passes work on


def arrived(module: fx.GraphModule) -> fx.Node:
    """The images `[B, C, *spatial]`: the placeholder itself, or what moves the axes of the user's arrays."""
    image = input_of(module)
    return next((user for user in image.users if user.name == ARRIVED), image)


def put_behind(image: fx.Node, value: fx.Node) -> None:
    """What read `image` reads `value` instead, but for the nodes just inserted, which lie before `value`."""
    image.replace_all_uses_with(value, delete_user_cb=lambda user: user > value)
