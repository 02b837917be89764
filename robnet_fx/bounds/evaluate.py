"""Running bounds graphs on images: what does not fit is refused, and batches and margins are worked in parts that
memory holds.

A bounds graph takes `(image [B, *S], spec [B, K, classes], center, radius)`; here the spec's rows are margins, and the
box is none, for the default one, or a `Box`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

from robnet_fx.algebra.domains import Interval
from robnet_fx.algebra.room import Crowded, divisible
from robnet_fx.bounds.memory import rows_without_gradient
from robnet_fx.errors import RobnetWarning, UsageError
from robnet_fx.machine.precision import bounds_precision
from robnet_fx.machine.torch_internals import is_compiled, leave_free, mapped


class Branch(NamedTuple):
    """What splitting needs to know of a box, for each sample and each margin of another class, in order.

    `upper [B, K]` are upper bounds of the margins over the box. `form [B, K, D]` and `const [B, K]` are g and c of a
    form in physical coordinates: every margin is at most `g . a + c` at every `a` in the box. `upper` is the largest
    value of that, `g . center + |g| . radius + c`, or where SSIP keeps symbols and its own bound is lower, that one.
    `pre` are the bounds that relaxations stand on, by canonical node name.
    """

    upper: Tensor
    form: Tensor
    const: Tensor
    pre: dict[str, Interval]


def check_images(images: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """`UsageError` unless these are images `[B, *shape]` in the network's dtype."""
    if tuple(images.shape[1:]) != shape:
        raise UsageError(f"the network takes images {list(shape)}, not {list(images.shape[1:])}")
    if images.dtype != dtype:
        raise UsageError(f"the network computes in {dtype}, and the images are {images.dtype}")


def check_labels(labels: Tensor, count: int, classes: int) -> None:
    """`UsageError` unless these are the labels of `count` images."""
    if labels.shape != (count,) or labels.is_floating_point():
        raise UsageError(f"labels must be {count} whole numbers, not {labels.dtype} {list(labels.shape)}")
    if bool(((labels < 0) | (labels >= classes)).any()):
        raise UsageError(f"labels must lie between 0 and {classes - 1}")


def check_pre(pre: Mapping[str, Interval], known: Mapping[str, tuple[int, ...]], count: int) -> None:
    """`UsageError` unless these are bounds of values that relaxations stand on, `known` by name and shape S."""
    if unknown := sorted(set(pre) - set(known)):
        raise UsageError(f"pre has no relaxation at {', '.join(unknown)}; there is one at {', '.join(known)}")
    for name, interval in pre.items():
        for end in interval:
            if tuple(end.shape) != (count, *known[name]):
                raise UsageError(f"pre of {name} must be {[count, *known[name]]}, not {list(end.shape)}")


def other_classes(labels: Tensor, classes: int) -> Tensor:
    """`[B, classes - 1]`: every class but the label, in order."""
    index = torch.arange(classes - 1, device=labels.device).expand(len(labels), -1)
    return index + (index >= labels.unsqueeze(1))


def margin_spec(labels: Tensor, others: Tensor, classes: int) -> Tensor:
    """`[B, classes - 1, classes]`: the rows `e_i - e_label`, for i in `others`."""
    one_hot = nn.functional.one_hot
    return one_hot(others, classes) - one_hot(labels, classes).unsqueeze(1)


def parts(spec: Tensor, images: int, widest: int, rows: int | None = None) -> tuple[Tensor, ...]:
    """The spec in parts of at most `rows` rows: by default all with gradients, and what memory holds without."""
    rows = rows or spec.shape[1]
    if not torch.is_grad_enabled():
        rows = min(rows, rows_without_gradient(widest, images))
    return spec.tensor_split(math.ceil(spec.shape[1] / rows), 1)


_fitting: WeakKeyDictionary[fx.GraphModule, int] = WeakKeyDictionary()  # samples whose symbols fitted at once
_short: WeakKeyDictionary[fx.GraphModule, bool] = WeakKeyDictionary()  # graphs of which it was said that some did not


def _samples(count: int, part: slice, x: Any) -> Any:
    """A part of the samples, of what has `count` of them."""
    return x[part] if isinstance(x, Tensor) and len(x) == count else x


def evaluate(graph: fx.GraphModule, count: int, *inputs: Any, run: Callable[..., Any] | None = None) -> Any:
    """What a bounds graph finds for `count` samples, from `inputs [count or 1, ...]` in any structure of tensors.

    Where memory does not hold the symbols of all samples at once, they are worked in parts of half as many, down to
    single ones; what of one sample has no room is left out, and said in a warning, once for each graph. `run` runs the
    graph, by default as it is printed.
    """
    run = run or graph.forward
    size, first = min(count, _fitting.get(graph, count)), 0
    found: list[Any] = []
    while first < count or not found:
        own = inputs  # all of it as it is, with what is marked on it for a compiler
        if size < count:
            own = mapped(partial(_samples, count, slice(first, first + size)), inputs)
        try:
            with divisible() as shortage:
                found.append(run(*own))
        except Crowded:
            size = _fitting[graph] = size // 2
            continue
        first += size
        if shortage.node and graph not in _short:
            _short[graph] = True
            warnings.warn(str(shortage), RobnetWarning, stacklevel=2)
    return found[0] if len(found) == 1 else mapped(lambda *pieces: torch.cat(pieces), *found)


def upper_bounds(
    graph: fx.GraphModule,
    images: Tensor,
    spec: Tensor,
    box: tuple[Tensor, ...],
    widest: int,
    rows: int | None,
    precision: str | None,
) -> Iterator[Tensor]:
    """The upper bounds `[B, rows]` of one part of the spec after the other; in a precision they may be compiled."""
    count, compiled = len(images), precision is not None and is_compiled(graph)
    if compiled and count == 1:  # would be compiled as a case of its own
        images, spec = images.repeat(2, *[1] * (images.dim() - 1)), spec.repeat(2, 1, 1)
    run = graph if precision is not None else None  # else it is never compiled
    for part in parts(spec, len(images), widest, rows):
        if compiled:  # else axes that happen to be equally long would be taken for one and the same
            for value, axis in ((images, 0), (part, 0), (part, 1), *((each, 0) for each in box if len(each) > 1)):
                leave_free(value, axis)
        with bounds_precision(precision or "float32", images.device):
            upper = evaluate(graph, len(images), images, part, *box, run=run)
        yield upper[:count].to(images.dtype, copy=compiled)  # CUDA graphs put their next result in the same place


def branches(
    graph: fx.GraphModule,
    images: Tensor,
    spec: Tensor,
    box: tuple[Tensor, ...],
    pre: Mapping[str, Interval] | None,
    widest: int,
) -> Branch:
    """What a branch graph finds for rows `spec [B, K, classes]`, part by part."""
    found = [evaluate(graph, len(images), images, part, *box, pre) for part in parts(spec, len(images), widest)]
    uppers, forms, consts, tables = zip(*found, strict=True)
    return Branch(torch.cat(uppers, 1), torch.cat(forms, 1), torch.cat(consts, 1), tables[0])
