"""Refusals that keep the batch axis out of an operation: samples must not mix, nor change places."""

from __future__ import annotations

from typing import Any

from torch import fx

from robnet_fx.rules.registry import Refusal


def rank_of(bounded: list[fx.Node]) -> int:
    """The rank of the first bounded input, the batch included."""
    return len(bounded[0].meta["shape"]) + 1


def positional(node: fx.Node, position: int) -> Any:
    """A positional argument, or None where it was left to its default."""
    return node.args[position] if position < len(node.args) else None


def keeps_batch(*positions: int) -> Refusal:
    """Refuse a node whose arguments at `positions`, an axis or several, name the batch or, left out, mean all axes."""

    def refuse(node: fx.Node, bounded: list[fx.Node]) -> str | None:
        for position in positions:
            axes = positional(node, position)
            listed = [axes] if isinstance(axes, int) else axes
            if not listed or any(int(axis) % rank_of(bounded) == 0 for axis in listed):
                return "it works along the batch axis"
        return None

    return refuse


def needs_axes(number: int) -> Refusal:
    """Refuse a bounded input with fewer than `number` axes behind the batch: the batch would be taken for one."""

    def refuse(node: fx.Node, bounded: list[fx.Node]) -> str | None:
        if rank_of(bounded) <= number:
            return f"it needs {number} axes behind the batch, and its input has {rank_of(bounded) - 1}"
        return None

    return refuse
