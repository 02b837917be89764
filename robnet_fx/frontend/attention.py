"""Multi-head attention written batch first while a model is traced.

`nn.MultiheadAttention` turns its input to (sequence, batch, features) inside, whatever its `batch_first` says, and
bounds keep the batch in front. The same product written batch first gives the same values from the same parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def batch_first_attention(model: nn.Module) -> Iterator[None]:
    """Inside, every `nn.MultiheadAttention` of the model computes batch first, and no fused path hides its steps."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.MultiheadAttention) and _plain(layer)]
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    for layer in layers:
        layer.forward = _Attention(layer, layer.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for layer in layers:
            del layer.forward


def _plain(layer: nn.MultiheadAttention) -> bool:
    return layer.in_proj_weight is not None and layer.bias_k is None and not layer.add_zero_attn


class _Attention:
    """Stands in for one layer's forward; what it does not know goes to the layer's own."""

    def __init__(self, layer: nn.MultiheadAttention, original: Any) -> None:
        self.layer, self.original = layer, original

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        layer = self.layer
        if key_padding_mask is not None or attn_mask is not None or is_causal or query.dim() != 3:
            result: tuple[Tensor, Tensor | None] = self.original(
                query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            )
            return result
        inputs = [query, key, value]
        if not layer.batch_first:
            inputs = [x.transpose(0, 1) for x in inputs]
        weights = layer.in_proj_weight.chunk(3)
        biases = [None] * 3 if layer.in_proj_bias is None else layer.in_proj_bias.chunk(3)
        heads, size = layer.num_heads, layer.embed_dim // layer.num_heads
        q, k, v = (
            F.linear(x, w, b).reshape(x.shape[0], x.shape[1], heads, size).permute(0, 2, 1, 3)
            for x, w, b in zip(inputs, weights, biases, strict=True)
        )
        scores = torch.softmax((q @ k.transpose(-2, -1)) * size**-0.5, -1)
        mixed = (scores @ v).permute(0, 2, 1, 3).reshape(inputs[0].shape[0], inputs[0].shape[1], layer.embed_dim)
        out = layer.out_proj(mixed)
        shown = None if not need_weights else scores.mean(1) if average_attn_weights else scores
        return (out if layer.batch_first else out.transpose(0, 1)), shown
