"""A batch that is moved, or merged with another axis, is put in front again: the walk through a traced graph.

Each value gets a `Place` and a stand-in (`stand_in.py`). What changes places is in `moves.py`; what is done at one
place in `operations.py` and `contractions.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from robnet_fx.errors import UnsupportedError
from robnet_fx.frontend.batch_axis import channels, contractions  # noqa: F401  (they enter their operations)
from robnet_fx.frontend.batch_axis.moves import IN_PARTS, MOVES
from robnet_fx.frontend.batch_axis.operations import operation
from robnet_fx.frontend.batch_axis.stand_in import CONSTANTS, PLAIN, Apart, repeated, shape_text, sizes
from robnet_fx.frontend.places import place_of
from robnet_fx.frontend.spellings import RESHAPES
from robnet_fx.graphs import prune

aten = torch.ops.aten

_RECURRENT = {aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input}
_MAY_MOVE = {
    *RESHAPES,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.cat.default,
    aten.stack.default,
    aten.expand.default,
    aten.repeat.default,
    aten.tile.default,
    aten.repeat_interleave.self_int,
    aten.einsum.default,
    aten.tensordot.default,
    aten.matmul.default,
    aten.mm.default,
}
"""What may put a batch that is in front elsewhere; what else does not leave it there mixes samples, or has no rule."""


def take_apart(exported: ExportedProgram) -> None:
    """Rewrite the graph of a decomposed program, in place, so that every value has the batch as its first axis only.

    Raises `UnsupportedError` where samples would be mixed, for an operation that has no form behind the batch, and
    where the logits are not put back in order.
    """
    graph = exported.graph
    prune(graph)
    for node in graph.nodes:
        if node.target in _RECURRENT:
            raise UnsupportedError(
                f"no bound rule for {node.target}: recurrent layers have none{place_of(node)}\n"
                "  remedy  replace the layer by one of those in docs/operations.md"
            )
    (image,) = (node for node in graph.nodes if node.name == exported.graph_signature.user_inputs[0])
    work = Apart(image)
    for node in list(graph.nodes):
        value = node.meta.get("val")
        if node.op == "output":
            _restored(work, node)
        if node.op != "call_function":
            continue
        if not work.varying(node):
            if isinstance(value, Tensor) and (constant := repeated(work, node)):
                work.known[node] = constant
            continue
        if node.target in CONSTANTS or not isinstance(value, (Tensor, list, tuple)):  # sizes and types are known
            for source in work.varying(node):
                node.replace_input_with(source, work.known[source][0])
            continue
        plain = all(work.known[source] == (source, PLAIN) for source in work.varying(node))
        if plain and (work.is_plain(value) or node.target not in _MAY_MOVE):
            if work.is_plain(value):
                work.known[node] = node, PLAIN
            continue
        if node.target in IN_PARTS:
            work.known[node] = work.known[work.varying(node)[0]]
            continue
        with graph.inserting_before(node):
            made, place = MOVES.get(node.target, operation)(work, node)
        work.known[node] = made, place
        if isinstance(value, Tensor):
            if sizes(made.meta["val"]) != place.shape(sizes(value), work.batch):
                raise work.refusal(node)
            if place == PLAIN:
                work.known[made] = made, PLAIN
                node.replace_all_uses_with(made)
    prune(graph)


def _restored(work: Apart, node: fx.Node) -> None:
    for source in work.varying(node):
        if (place := work.known[source][1]) != PLAIN:
            start = next(other for other in work.known if work.known[other][1] != PLAIN)
            raise UnsupportedError(
                f"the model's output {shape_text(source)} does not have the images alone along its first axis:"
                f" they were moved or merged by {start.target} and not put back{place_of(start)}\n"
                f"  remedy  return one row of logits an image: of the output z, {place.restored('z')} has the images"
                " in front"
            )
