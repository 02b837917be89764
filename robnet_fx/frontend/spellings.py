"""The operations of a traced graph that are one operation under many names, by what they are written as."""

from __future__ import annotations

import torch

aten = torch.ops.aten

IDENTITIES = {
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.contiguous.default,
    aten.lift_fresh_copy.default,
    aten.dropout.default,
}
CASTS = {aten._to_copy.default, aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.to.other}
RESHAPES = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
}
SPLITS = {
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.tensor_split.sections,
    aten.tensor_split.indices,
}
POOLS_WITH_INDICES = {
    aten.max_pool2d_with_indices.default: aten.max_pool2d.default,
    aten.max_pool3d_with_indices.default: aten.max_pool3d.default,
}
SPELLINGS = {
    "nothing": {*IDENTITIES, *CASTS},
    "reshape": RESHAPES,
    "slices": SPLITS,
    "selections": {aten.unbind.int},
    "max_pool": set(POOLS_WITH_INDICES),
    "batch_norm": {aten._native_batch_norm_legit_no_training.default},
}
"""The operations that `canonical.py` itself spells anew, by what they become."""
