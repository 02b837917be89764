"""The arithmetic inside float32 products: exact for verdicts, as fast as the device offers for training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from operator import attrgetter

import torch

from robnet_fx.errors import UsageError

PRECISIONS = ("float32", "tf32", "bf16")

_CUDA = "cuda.matmul", "cudnn.conv"
_CPU = "mkldnn.matmul", "mkldnn.conv"


def check_precision(name: str) -> None:
    """`UsageError` unless training bounds can be computed in it."""
    if name not in PRECISIONS:
        raise UsageError(f"unknown precision {name!r}; known: {', '.join(PRECISIONS)}")


@contextmanager
def full_precision(*, cuda: str = "ieee") -> Iterator[None]:
    """No TF32 and no bfloat16 inside float32 products: a verdict is about the arithmetic it names.

    `cuda` "tf32" allows TF32 on a GPU.
    """
    settings = {attrgetter(name)(torch.backends): cuda for name in _CUDA}
    settings |= {attrgetter(name)(torch.backends): "ieee" for name in _CPU}
    before = [backend.fp32_precision for backend in settings]
    try:
        for backend, precision in settings.items():
            backend.fp32_precision = precision
        yield
    finally:
        for backend, precision in zip(settings, before, strict=True):
            backend.fp32_precision = precision


def training_precision(name: str) -> AbstractContextManager[None]:
    """The products of a training step: exact in "float32", else TF32 on a GPU that has it."""
    return full_precision(cuda="ieee" if name == "float32" else "tf32")


def bounds_precision(name: str, device: torch.device) -> AbstractContextManager[object]:
    """What bounds for training are computed under: "bf16" rounds the operands of products and convolutions to bfloat16,
    three significant digits, so that such bounds guide training and prove nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16")
