"""Operations that copy, reorder or add up values of one sample: repeat, flip, index, shuffle, window, cumulate.

All weights are >= 0, mostly a single 1 in a row. The transposes, which *add* what was copied, are autograd's.
"""

from __future__ import annotations

import torch
from torch import fx

from robnet_fx.machine.torch_internals import Operator
from robnet_fx.rules.affine import affine
from robnet_fx.rules.refusals import keeps_batch, needs_axes, positional, rank_of
from robnet_fx.rules.registry import Refusal, register

aten = torch.ops.aten


def _expands_batch(node: fx.Node, bounded: list[fx.Node]) -> str | None:
    sizes = positional(node, 1)
    return None if len(sizes) == rank_of(bounded) and sizes[0] == -1 else "it expands the batch axis"


def _repeats_batch(node: fx.Node, bounded: list[fx.Node]) -> str | None:
    """Repeats are aligned to the right: there are as many as axes and the batch's is 1, or (for `tile`) fewer."""
    repeats = positional(node, 1)
    missing = rank_of(bounded) - len(repeats)
    return None if missing > 0 or (missing == 0 and repeats[0] == 1) else "it repeats the batch axis"


def _indexes_batch(node: fx.Node, bounded: list[fx.Node]) -> str | None:
    """Index tensors with an axis between them would put theirs first, before the batch."""
    indices = positional(node, 1)
    places = [place for place, index in enumerate(indices) if index is not None]
    if not places or places[0] == 0:
        return "it indexes the batch axis"
    if any(indices[place].meta["dtype"] in (torch.bool, torch.uint8) for place in places):
        return "it indexes by a mask"
    if places[-1] - places[0] >= len(places):
        return "its index tensors are apart, which moves the batch axis"
    return None


_MOVES: dict[str, tuple[Operator, Refusal]] = {
    "expand": (aten.expand.default, _expands_batch),
    "repeat": (aten.repeat.default, _repeats_batch),
    "tile": (aten.tile.default, _repeats_batch),
    "repeat_interleave": (aten.repeat_interleave.self_int, keeps_batch(2)),
    "flip": (aten.flip.default, keeps_batch(1)),
    "roll": (aten.roll.default, keeps_batch(2)),
    "rot90": (aten.rot90.default, keeps_batch(2)),
    "index": (aten.index.Tensor, _indexes_batch),
    "index_select": (aten.index_select.default, keeps_batch(1)),
    "take_along": (aten.take_along_dim.default, keeps_batch(2)),
    "diagonal": (aten.diagonal.default, keeps_batch(2, 3)),
    "tril": (aten.tril.default, needs_axes(2)),
    "triu": (aten.triu.default, needs_axes(2)),
    "pixel_shuffle": (aten.pixel_shuffle.default, needs_axes(3)),
    "pixel_unshuffle": (aten.pixel_unshuffle.default, needs_axes(3)),
    "channel_shuffle": (aten.channel_shuffle.default, needs_axes(2)),
    "unfold": (aten.unfold.default, keeps_batch(1)),
    "im2col": (aten.im2col.default, needs_axes(3)),
    "col2im": (aten.col2im.default, needs_axes(2)),
    "cumsum": (aten.cumsum.default, keeps_batch(1)),
}
for _name, (_target, _refusal) in _MOVES.items():
    register(__name__, affine(_name, _target, supports=_refusal), _target)
