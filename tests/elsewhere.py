"""Running code on tensors without numbers, on a device that nothing else is on: a constant made for another one shows.

On a GPU such a constant stops a verdict, and in float64 a float32 one spoils its digits; no GPU is needed to find them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ELSEWHERE = torch.device("meta")


class Elsewhere(TorchDispatchMode):
    """Inside, every tensor with axes is on `ELSEWHERE` and every floating-point one has the dtype, or the operation
    that meets or makes another one fails. (A number as a tensor may stay on the CPU.)"""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in (leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)):
            assert not tensor.dim() or tensor.device == ELSEWHERE, f"{func} on a tensor on {tensor.device}"
            assert not tensor.is_floating_point() or tensor.dtype == self.dtype, f"{func} in {tensor.dtype}"
        return result


def blank(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A tensor without numbers."""
    return torch.empty(shape, dtype=dtype, device=ELSEWHERE)
