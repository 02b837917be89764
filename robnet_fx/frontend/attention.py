"""Attention layers traced step by step: the fused path of `nn.MultiheadAttention` hides what it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def attention_in_steps() -> Iterator[None]:
    """Inside, no fused path is taken; outside, whatever the user has set."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
