"""Parts of a box: their halves are all of them, their boxes hold them, and a tree is read as it was written."""

from __future__ import annotations

import pytest
import torch

from robnet_fx.errors import UsageError
from robnet_fx.perturbations.base import Box
from robnet_fx.verify.parts import Node, boxes


def grown(seed: int, dimensions: int = 4, splits: int = 40) -> Node:
    """A random tree whose leaves are proved at random levels, or open."""
    generator = torch.Generator().manual_seed(seed)
    root = Node()
    leaves = [root]
    for _ in range(splits):
        node = leaves.pop(int(torch.randint(len(leaves), (), generator=generator)))
        leaves += node.split(int(torch.randint(dimensions, (), generator=generator)))
    for node in leaves:
        node.level = int(torch.randint(-1, 3, (), generator=generator))
    return root


@pytest.mark.parametrize("seed", range(5))
def test_leaves_are_the_whole_box_and_do_not_overlap(seed):
    parts = [part for part, _ in grown(seed).leaves(4)]
    assert sum(part.share for part in parts) == 1
    t = torch.rand(2000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    inside = torch.stack([((part.lower <= t) & (t <= part.upper)).all(1) for part in parts])
    assert (inside.sum(0) == 1).all()
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4).double()
    inside = torch.stack([((part.lower <= corners) & (corners <= part.upper)).all(1) for part in parts])
    assert inside.any(0).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_tree_is_read_as_it_was_written(seed):
    tree = grown(seed)
    numbers = tree.written()
    again = Node.read(numbers, 4)
    assert again.written() == numbers and again.proved() == (-1 not in numbers)
    for (part, node), (other, same) in zip(tree.leaves(4), again.leaves(4), strict=True):
        assert node.level == same.level
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(part, other, strict=True))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([], "ends before"),
        ([0, -2], "ends before"),
        ([-2, -2], "no tree"),
        ([4, -2, -2], "no tree"),
        (["a"], "no tree"),
    ],
)
def test_what_is_no_tree_is_refused(numbers, message):
    with pytest.raises(UsageError, match=message):
        Node.read(numbers, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_boxes_hold_their_parts(dtype):
    generator = torch.Generator().manual_seed(0)
    over = Box(*(torch.rand(1, 4, dtype=torch.float64, generator=generator) for _ in range(2)))
    over.radius[0, 3] = 0
    parts = [part for part, _ in grown(1).leaves(4)]
    own = Box(*(end.to(dtype).expand(len(parts), -1) for end in over))
    found = boxes(parts, own)
    assert found.center.dtype == dtype and (found.radius[:, 3] == 0).all()
    for place, part in enumerate(parts):
        for t in part:
            point = own.center[place].double() + own.radius[place].double() * t
            low, high = (found.center[place].double() + s * found.radius[place].double() for s in (-1, 1))
            slack = 0 if dtype == torch.float64 else 1e-6  # float32 searches, and proves nothing
            assert (low[:3] <= point[:3] + slack).all() and (high[:3] >= point[:3] - slack).all()
    wide = torch.stack([part.upper - part.lower for part in parts]).to(dtype) / 2 * own.radius
    assert (found.radius <= wide * (1 + 1e-6) + 1e-6).all()
