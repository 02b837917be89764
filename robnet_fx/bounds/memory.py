"""How much memory bounds take, from the shapes of a graph alone: an estimate good to a factor of about 3.

Counted are the numbers a sample keeps alive, for a value of S numbers, D coefficients and K rows of the spec:
SSIP holds `coef` (D S), `const` and `slack`, IBP two ends: (D + 4) S, and concretising needs `|coef|`, D S more;
`pre` stays (2 S) until RSIP has passed; RSIP holds
a form of K S and, at a relaxation, four more of its size.
Without gradients values die after their last use. With gradients all of them stay, and with them the slopes and the
parts that the rules multiply by: some (D + 2 K + 10) S a node, as measured in `tests/bounds/test_memory.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from robnet_fx.bounds.dependence import Dependents, dependents, widest
from robnet_fx.bounds.methods import Symbols
from robnet_fx.graphs import numel, output_of, shape_of
from robnet_fx.passes.insert_perturbation import transform_of

ROWS_BUDGET = 2**27  # numbers a form of RSIP may have where no gradient needs it whole: 1 GiB in float64
_USABLE = 0.6  # of the available memory: the heap gets holes (`machine.allocator`), libraries need room, estimates err


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
        return max(0, int(_USABLE * available - self.fixed) // max(1, self.image))

    def least(self) -> int:
        """Bytes that one image fits into, with what `bytes_text` may round off; at least a MiB, as for `--memory`."""
        return max(2**20, int(1.06 * self.of(1) / _USABLE))


def of_verdicts(perturbed: fx.GraphModule) -> Memory:
    """RSIP-SSIP margins in float64 without gradients: what `certify` computes."""
    dimensions, rows = _sizes(perturbed)
    dependent = dependents(perturbed)
    rows = min(rows, rows_without_gradient(widest(dependent), images=1))
    image = max(_forward_peak(dependent, dimensions), _backward_peak(dependent, rows))
    return Memory(8 * 2 * _weights(perturbed), 8 * image)  # |W| too


def of_training(perturbed: fx.GraphModule, rows: int | None = None, symbols: Symbols = 0) -> Memory:
    """RSIP-SSIP margins in float32 and their gradients, `rows` of them at a time (all if not given), with so many error
    symbols: what a step of robust training computes."""
    dimensions, margins = _sizes(perturbed)
    rows = rows or margins
    dependent = dependents(perturbed)
    columns = dimensions + (0 if symbols == "all" else symbols)
    image = sum(map(numel, dependent)) * (columns + 2 * rows + 10)
    return Memory(4 * 6 * _weights(perturbed), 4 * image)  # |W|, the gradients of both, Adam's two moments


def rows_without_gradient(widest: int, images: int) -> int:
    """How many rows of RSIP are worked at once where no gradient needs them all; `widest` as of `dependence.widest`."""
    return max(1, ROWS_BUDGET // (max(1, images) * widest))


def _forward_peak(dependent: Dependents, dimensions: int) -> int:
    """The most numbers that IBP and SSIP keep at once, value by value in the order of the graph."""
    readers = {node: {user for user in node.users if user in dependent} for node in dependent}
    alive = kept = peak = 0
    for node, inputs in dependent.items():
        sources = set(inputs)
        alive += numel(node)
        largest = max(map(numel, (node, *sources)))
        peak = max(peak, (dimensions + 4) * alive + kept + dimensions * largest)
        kept += 2 * numel(node)
        for source in sources:
            readers[source].discard(node)
            if not readers[source]:
                alive -= numel(source)
    return peak


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


def _sizes(perturbed: fx.GraphModule) -> tuple[int, int]:
    """(D, K): K is one less than the number of classes, the other labels."""
    (classes,) = shape_of(output_of(perturbed))
    return transform_of(perturbed).dimensions, max(1, classes - 1)


def _weights(perturbed: fx.GraphModule) -> int:
    return sum(parameter.numel() for parameter in perturbed.parameters())
