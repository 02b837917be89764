"""Operations that ATen has no name of its own for: what lowering puts in a graph in place of an overloaded one.

`aten.mul` by a constant is affine and `aten.mul` of two values that both depend on the perturbation is not; a graph that
says which is which needs no rule that looks at its neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor


def product(x: Tensor, y: Tensor) -> Tensor:
    """`x * y`, broadcast, of two bounded values."""
    return x * y


def matrix_product(x: Tensor, y: Tensor) -> Tensor:
    """`x @ y` of two bounded values, batched over the leading axes."""
    return torch.matmul(x, y)
