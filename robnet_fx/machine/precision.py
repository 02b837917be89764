"""The arithmetic inside products: exact for verdicts, as fast as the device offers for training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
def full_precision() -> Iterator[None]:
    """No TF32 and no bfloat16, whatever the caller allowed: a verdict is about the arithmetic it names."""
    with _products(cuda="ieee"), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


@contextmanager
def training_precision(name: str) -> Iterator[None]:
    """The float32 products of a training step: exact in "float32", else in TF32 on a GPU that has it."""
    check_precision(name)
    with _products(cuda="ieee" if name == "float32" else "tf32"):
        yield


@contextmanager
def bounds_precision(name: str, device: torch.device) -> Iterator[None]:
    """What bounds for training are computed under. In "bf16" products and convolutions round their operands and their
    results to bfloat16, three significant digits, so that such bounds guide training and prove nothing."""
    check_precision(name)
    torch.clear_autocast_cache()  # a caller's own autocast would keep weights there that have changed since
    with torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16"):
        yield


@contextmanager
def _products(*, cuda: str) -> Iterator[None]:
    """float32 products as said on a GPU, and exact on a CPU."""
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
