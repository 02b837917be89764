"""ONNX operators that move, repeat or pick elements."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robnet_fx.frontend.onnx_ops import Function, Known, Node, Refused, op


@op("Reshape")
def reshape(node: Node) -> Function:
    """To a known shape: 0 copies a size (unless `allowzero`), -1 takes the rest."""
    shape, target = node.shape(), node.integers(1, "shape") or []
    if not node.attribute("allowzero", 0):
        target = [shape[i] if size == 0 else size for i, size in enumerate(target)]
    if -1 in target:
        rest = math.prod(shape) // max(1, math.prod(size for size in target if size != -1))
        target = [rest if size == -1 else size for size in target]
    if math.prod(target) != math.prod(shape):
        raise Refused(f"a reshape from {list(shape)} to {target}")
    dims = node.any_batch(target)
    return lambda x, *_: x.reshape(dims)


@op("Flatten")
def flatten(node: Node) -> Function:
    """To two axes, split at `axis`."""
    shape, axis = node.shape(), node.attribute("axis", 1)
    if axis == 1:
        return lambda x: torch.flatten(x, 1)
    axis = axis % len(shape) if axis < 0 else axis
    dims = node.any_batch([math.prod(shape[:axis]), math.prod(shape[axis:])])
    return lambda x: x.reshape(dims)


@op("Transpose")
def transpose(node: Node) -> Function:
    """By `perm`, or all axes in reverse."""
    order = list(node.attribute("perm", range(len(node.shape()))[::-1]))
    return lambda x: x.permute(order)


@op("Squeeze")
def squeeze(node: Node) -> Function:
    """The named axes, or every axis of size 1 but the batch."""
    axes, shape = node.integers(1, "axes"), node.shape()
    axes = [a % len(shape) for a in axes] if axes else [i for i, size in enumerate(shape) if size == 1 and i]
    return lambda x, *_: x.squeeze(axes)


@op("Unsqueeze")
def unsqueeze(node: Node) -> Function:
    """Axes are counted in the result."""
    axes = node.integers(1, "axes") or []
    rank = len(node.shape()) + len(axes)
    ordered = sorted(a % rank for a in axes)

    def run(x: Tensor, *_: object) -> Tensor:
        for axis in ordered:
            x = x.unsqueeze(axis)
        return x

    return run


@op("Concat")
def concat(node: Node) -> Function:
    """Constants (a class token) take the batch size of the data beside them."""
    axis = node.axis()
    constants = [isinstance(value, Known) for value in node.inputs]
    data = constants.index(False)
    batch_axis = node.batch_axis()
    node.not_the_batch(axis)

    def repeated(x: Tensor, batch: int) -> Tensor:
        return x.expand([batch if i == batch_axis else size for i, size in enumerate(x.shape)])

    def run(*inputs: Tensor) -> Tensor:
        batch, pairs = inputs[data].shape[batch_axis], zip(inputs, constants, strict=True)
        return torch.cat([repeated(x, batch) if constant else x for x, constant in pairs], axis)

    return run


@op("Split")
def split(node: Node) -> Function:
    """Into the sizes given, or evenly into as many parts as there are outputs (the last one may be smaller)."""
    axis, sizes = node.axis(default=0), node.integers(1, "split")
    if sizes is None:
        size = math.ceil(node.shape()[axis] / node.outputs)
        return lambda x, *_: torch.split(x, size, axis)
    return lambda x, *_: torch.split(x, sizes, axis)


@op("Slice")
def slicing(node: Node) -> Function:
    """Attributes before opset 10, inputs from it on; negative steps walk backwards."""
    shape = node.shape()
    starts, ends = node.integers(1, "starts") or [], node.integers(2, "ends") or []
    axes, steps = node.integers(3, "axes") or list(range(len(starts))), node.integers(4, "steps") or [1] * len(starts)
    picks = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= len(shape)
        chosen = range(shape[axis])[start : None if step < 0 and end < -shape[axis] else end : step]
        if len(chosen) == shape[axis] and step == 1:
            continue  # all of it, whatever the batch
        node.not_the_batch(axis)
        picks.append((axis, chosen))

    def run(x: Tensor, *_: object) -> Tensor:
        for axis, chosen in picks:
            if chosen.step < 0:
                size = x.shape[axis]
                x = x.flip(axis)[(slice(None),) * axis + (slice(size - 1 - chosen[0], None, -chosen.step),)]
                x = x.narrow(axis, 0, len(chosen))
            else:
                x = x[(slice(None),) * axis + (slice(chosen.start, chosen.stop, chosen.step),)]
        return x

    return run


@op("Gather")
def gather(node: Node) -> Function:
    """By constant indices: a run of them is a slice, one is a selection."""
    axis, indices = node.axis(default=0), node.known(1)
    assert indices is not None
    node.not_the_batch(axis)
    chosen = [int(i) % node.shape()[axis] for i in indices.reshape(-1)]
    if indices.ndim == 0:
        return lambda x, *_: x.select(axis, chosen[0])
    if indices.ndim == 1 and chosen == list(range(chosen[0], chosen[0] + len(chosen))):
        return lambda x, *_: x.narrow(axis, chosen[0], len(chosen))
    shape = indices.shape
    node.replace(1, np.array(chosen, dtype=np.int64))

    def run(x: Tensor, index: Tensor) -> Tensor:
        picked = x.index_select(axis, index)
        return picked if len(shape) == 1 else picked.unflatten(axis, shape)

    return run


@op("GatherND")
def gather_nd(node: Node) -> Function:
    """By constant indices into the leading axes, the batch not among them."""
    indices, shape = node.known(1), node.shape()
    assert indices is not None
    depth = indices.shape[-1]
    if node.attribute("batch_dims", 0) or node.batch_axis() < depth:
        raise Refused("a selection along the batch")
    signed = indices.reshape(-1, depth).T
    chosen = np.ravel_multi_index([i % size for i, size in zip(signed, shape, strict=False)], shape[:depth])
    node.replace(1, chosen.astype(np.int64))
    result = [*indices.shape[:-1], *(-1 if a == node.batch_axis() else shape[a] for a in range(depth, len(shape)))]
    return lambda x, index: x.flatten(0, depth - 1).index_select(0, index).reshape(result)


@op("Pad")
def pad(node: Node) -> Function:
    """Padding before and after each axis, of a constant, the mirror image or the border."""
    rank, pads = len(node.shape()), node.integers(1, "pads") or []
    value, axes = node.number(2, "value", 0.0), node.integers(3, "axes") or list(range(rank))
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    torch_mode = mode[node.attribute("mode", "constant")]
    by_axis = dict.fromkeys(range(rank), (0, 0))
    by_axis.update((a % rank, (pads[i], pads[i + len(axes)])) for i, a in enumerate(axes))
    first = min((a for a, amount in by_axis.items() if amount != (0, 0)), default=rank)
    if by_axis[node.batch_axis()] != (0, 0):
        node.not_the_batch(node.batch_axis())
    if torch_mode != "constant":
        first = min(first, 2)
    flat = [n for a in range(rank - 1, first - 1, -1) for n in by_axis[a]]
    if not flat:
        return lambda x, *_: x
    if torch_mode == "constant":
        return lambda x, *_: F.pad(x, flat, value=value)
    return lambda x, *_: F.pad(x, flat, mode=torch_mode)


@op("Expand")
def expand(node: Node) -> Function:
    """Axes of size 1 are repeated; the batch stays what it is."""
    shape, target = node.shape(), node.integers(1, "shape") or []
    full = np.broadcast_shapes(shape, tuple(target))
    padded = (0,) * (len(full) - len(shape)) + tuple(shape)
    dims = [-1 if have == want else want for have, want in zip(padded, full, strict=True)]
    return lambda x, *_: x.expand(dims)


@op("Tile")
def tile(node: Node) -> Function:
    """Whole copies along each axis."""
    repeats = node.integers(1, "repeats") or []
    if repeats[node.batch_axis()] != 1:
        node.not_the_batch(node.batch_axis())
    return lambda x, *_: x.repeat(repeats)


@op("DepthToSpace", "SpaceToDepth")
def depth_and_space(node: Node) -> Function:
    """Blocks of channels against blocks of pixels, in ONNX's DCR or CRD order."""
    block, (_, channels, height, width) = node.attribute("blocksize"), node.shape()
    if node.op == "SpaceToDepth":
        split = (-1, channels, height // block, block, width // block, block)
        joined = (-1, channels * block**2, height // block, width // block)
        return lambda x: x.reshape(split).permute(0, 3, 5, 1, 2, 4).reshape(joined)
    if node.attribute("mode", "DCR") == "CRD":
        return lambda x: F.pixel_shuffle(x, block)
    split = (-1, block, block, channels // block**2, height, width)
    joined = (-1, channels // block**2, height * block, width * block)
    return lambda x: x.reshape(split).permute(0, 3, 4, 1, 5, 2).reshape(joined)


@op("Resize", "Upsample")
def resize(node: Node) -> Function:
    """Nearest and (bi)linear, in the coordinate conventions PyTorch shares; the load-time comparison is the judge."""
    shape = node.shape()
    if node.op == "Upsample":
        scales, sizes = node.attribute("scales") or node.known(1), None
    else:
        scales, sizes = node.known(1 if node.opset < 11 else 2), node.known(3)
        node.known(1)
    if sizes is None:
        assert scales is not None
        sizes = np.floor(np.array(shape) * np.array(scales, dtype=np.float64) + 1e-6)
    size = [int(s) for s in sizes[2:]]
    convention = node.attribute("coordinate_transformation_mode", "half_pixel" if node.opset >= 11 else "asymmetric")
    mode = node.attribute("mode", "nearest")
    if mode == "nearest":
        exact = convention == "half_pixel"
        return lambda x, *_: F.interpolate(x, size, mode="nearest-exact" if exact else "nearest")
    corners = convention == "align_corners"
    torch_mode = {"linear1": "linear", "linear2": "bilinear", "linear3": "trilinear", "cubic2": "bicubic"}.get(
        f"{mode}{len(size)}"
    )
    if torch_mode is None or convention not in ("align_corners", "half_pixel", "pytorch_half_pixel"):
        raise Refused(f"resizing with mode {mode} and coordinates {convention}")
    return lambda x, *_: F.interpolate(x, size, mode=torch_mode, align_corners=corners)
