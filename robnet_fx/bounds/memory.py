"""How much memory bounds take, from the shapes of a graph alone: an estimate good to a factor of about 3.

Counted are the numbers a sample keeps alive, for a value of S numbers, C columns and K rows of the spec; columns are
the D coefficients and the N error symbols, and there are none without SSIP. SSIP holds `coef` (C S), `const` and
`slack`, IBP two ends: (C + 4) S, and concretising, or giving birth to symbols, needs C S more. `pre` stays (2 S) until
RSIP has passed; RSIP holds a form of K S and, at a relaxation, four more of its size.
Without gradients values die after their last use. With gradients all of them stay, and with them the slopes and the
parts that the rules multiply by: some (C + 2 K + 10) S a node, and at a relaxed one (C + 2) S more where symbols are
born; weights in a row (`weight_chains.py`) need their product twice. As measured in `tests/bounds/test_memory.py`.
How many columns `symbols="all"` will need nobody knows before: it is counted as no symbols, and batches that do not fit
are worked in parts (`evaluate`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import fx

from robnet_fx.bounds.dependence import Dependents, dependents, relaxed_nodes, widest
from robnet_fx.bounds.methods import Symbols, method_named
from robnet_fx.bounds.weight_chains import chained
from robnet_fx.graphs import numel, output_of, shape_of
from robnet_fx.machine.memory import USABLE
from robnet_fx.passes.insert_perturbation import transform_of

ROWS_BUDGET = 2**27  # numbers a form of RSIP may have where no gradient needs it whole: 1 GiB in float64


@dataclass(frozen=True)
class Memory:
    """Bytes: `fixed` whatever the batch (weights and what there is of their size), `image` more for each image."""

    fixed: int
    image: int

    def of(self, batch: int) -> int:
        """Bytes of a batch."""
        return self.fixed + batch * self.image

    def fits(self, available: int) -> int:
        """The largest batch that fits into `available` bytes, two fifths of them kept free; 0 if none does."""
        return max(0, int(USABLE * available - self.fixed) // max(1, self.image))

    def least(self) -> int:
        """Bytes that one image fits into, with what `bytes_text` may round off; at least a MiB, as for `--memory`."""
        return max(2**20, int(1.06 * self.of(1) / USABLE))


def of_verdicts(perturbed: fx.GraphModule, symbols: Symbols = 0, method: str = "rsip-ssip") -> Memory:
    """Margins in float64 without gradients: what `certify` computes."""
    dependent, rows = dependents(perturbed), _rows(perturbed)
    rows = min(rows, rows_without_gradient(widest(dependent), images=1))
    columns = _columns(perturbed, method, symbols)
    products = 2 * max(_products(dependent, columns, symbols), default=0)
    image = max(_forward_peak(dependent, columns) + products, _backward_peak(dependent, rows))
    return Memory(8 * 2 * _weights(perturbed), 8 * image)  # |W| too


def of_training(
    perturbed: fx.GraphModule, rows: int | None = None, symbols: Symbols = 0, method: str = "rsip-ssip"
) -> Memory:
    """Margins in float32 and their gradients, `rows` of them at a time (all if not given): what a step of robust
    training computes."""
    dependent, columns = dependents(perturbed), _columns(perturbed, method, symbols)
    image = sum(map(numel, dependent)) * (columns + 2 * (rows or _rows(perturbed)) + 10)
    image += 2 * sum(_products(dependent, columns, symbols))
    if symbols:
        image += sum(map(numel, relaxed_nodes(dependent))) * (columns + 2)
    return Memory(4 * 6 * _weights(perturbed), 4 * image)  # |W|, the gradients of both, Adam's two moments


def rows_without_gradient(widest: int, images: int) -> int:
    """How many rows of RSIP are worked at once where no gradient needs them all; `widest` as of `dependence.widest`."""
    return max(1, ROWS_BUDGET // (max(1, images) * widest))


class _Held(NamedTuple):
    """What is held while a node is bounded: the numbers of the values that SSIP keeps, those of the `pre` so far, and
    those of the largest value at work."""

    alive: int
    kept: int
    largest: int


def ahead(dependent: Dependents) -> dict[fx.Node, tuple[int, int]]:
    """Of each node the numbers that a sample holds at most from there on: whatever its columns, and for each column."""
    found, fixed, each = {}, 0, 0
    for node, held in reversed(list(_forward(dependent))):
        fixed, each = max(fixed, 4 * held.alive + held.kept), max(each, held.alive + held.largest)
        found[node] = fixed, each
    return found


def _forward_peak(dependent: Dependents, columns: int) -> int:
    """The most numbers that IBP and SSIP keep at once."""
    held = (step for _, step in _forward(dependent))
    return max((columns + 4) * step.alive + step.kept + columns * step.largest for step in held)


def _forward(dependent: Dependents) -> Iterator[tuple[fx.Node, _Held]]:
    """What is held at each node in the order of the graph: a value until its last reader has been bounded."""
    readers = {node: {user for user in node.users if user in dependent} for node in dependent}
    alive = kept = 0
    for node, inputs in dependent.items():
        sources = set(inputs)
        alive += numel(node)
        yield node, _Held(alive, kept, max(map(numel, (node, *sources))))
        kept += 2 * numel(node)
        for source in sources:
            readers[source].discard(node)
            if not readers[source]:
                alive -= numel(source)


def _backward_peak(dependent: Dependents, rows: int) -> int:
    """The most numbers that RSIP keeps at once: all `pre`, the forms at open branches, the work of one relaxation."""
    kept = sum(2 * numel(node) for node in dependent)
    waiting: set[fx.Node] = set()
    peak = 0
    for node, sources in reversed(dependent.items()):
        waiting.discard(node)
        largest = max(map(numel, (node, *sources)))
        peak = max(peak, rows * (5 * largest + sum(numel(n) for n in waiting)))
        waiting.update(sources)
    return kept + peak


def _products(dependent: Dependents, columns: int, symbols: Symbols) -> list[int]:
    """How many numbers the products of weights in a row have, where there is SSIP and it keeps no symbols."""
    return [*chained(dependent, relaxed_nodes(dependent)).values()] if columns and not symbols else []


def _columns(perturbed: fx.GraphModule, method: str, symbols: Symbols) -> int:
    """How many columns SSIP has; 0 where there is none."""
    transform = transform_of(perturbed)
    if not method_named(method).symbolic or not transform.fits_ssip:
        return 0
    return transform.dimensions + (0 if symbols == "all" else symbols)


def _rows(perturbed: fx.GraphModule) -> int:
    """One less than the number of classes: the other labels."""
    (classes,) = shape_of(output_of(perturbed))
    return max(1, classes - 1)


def _weights(perturbed: fx.GraphModule) -> int:
    return sum(parameter.numel() for parameter in perturbed.parameters())
