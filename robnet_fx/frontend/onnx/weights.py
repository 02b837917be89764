"""The file's constants on the modules that use them: trained where a training framework would, each with its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robnet_fx.frontend.onnx.operators.node import Known, Node, Refused, Stored

# What an operator calls its constants, by input. Those of LEARNED operators are trained, except running statistics.
_ROLES = {
    "Conv": ("", "weight", "bias"),
    "ConvTranspose": ("", "weight", "bias"),
    "Gemm": ("weight", "weight", "bias"),
    "MatMul": ("weight", "weight"),
    "BatchNormalization": ("", "weight", "bias", "running_mean", "running_var"),
    "InstanceNormalization": ("", "weight", "bias"),
    "LayerNormalization": ("", "weight", "bias"),
    "GroupNormalization": ("", "weight", "bias"),
    "PRelu": ("", "weight"),
    "Add": ("bias", "bias"),
    "Sub": ("bias", "bias"),
    "Mul": ("weight", "weight"),
}
_AFTER_LEARNED = {"Add", "Sub", "Mul"}  # before the first learned layer these normalise the image: not to be trained


class Weights:
    """Puts constants on modules. By its path in the network, `stored` says where in the file each of them lives, and
    `uses` which input of which node (named by its first output) it is."""

    def __init__(self) -> None:
        self.stored: dict[str, Stored | None] = {}
        self.uses: dict[str, tuple[str, int]] = {}
        self.shared: dict[tuple[Any, ...], list[tuple[np.ndarray | None, Tensor]]] = {}

    def attach(self, module: nn.Module, name: str, node: Node, passed: list[int], learned: bool) -> dict[int, str]:
        """Give the module at `name` its node's constants. Returns the attributes that hold the `passed` ones.

        The others are parameters that onnx2torch's converter has made with their values; they become the file's own,
        so that an initialiser used twice is one parameter. What it made besides (a bias of zeros) goes.
        """
        roles, slots, kept = _ROLES.get(node.op, ()), {}, set()
        trained = bool(roles) and (learned or node.op not in _AFTER_LEARNED)
        for index, value in enumerate(node.inputs):
            if not isinstance(value, Known):
                continue
            role = roles[index] if index < len(roles) else ""
            holder, prefix = (module, "") if index in passed else _holder(module, role)
            if holder is None:
                continue  # the conversion has read it
            slot = role if role and (index not in passed or not hasattr(holder, role)) else f"constant_{index}"
            learn = trained and bool(role) and not role.startswith("running_") and value.base.dtype.kind == "f"
            learn = learn and (value.stored is not None or node.op not in _AFTER_LEARNED)  # a computed mask is no bias
            tensor = self._tensor(value, learn)
            if index in passed:
                slots[index] = slot
            elif not torch.equal(getattr(holder, slot), tensor):
                raise Refused(f"its {role} is not used as it is stored")
            if isinstance(tensor, nn.Parameter):
                holder.register_parameter(slot, tensor)
            else:
                holder.register_buffer(slot, tensor)
            kept.add((holder, slot))
            if isinstance(tensor, nn.Parameter) or value.stored is not None:
                path = f"{name}.{prefix}{slot}"
                self.stored[path], self.uses[path] = value.stored, (node.output, index)
        for part in module.modules():
            for slot in _own(part):
                if (part, slot) not in kept and slot != "num_batches_tracked":  # loading weights asks for this one
                    setattr(part, slot, None)
        return slots

    def _tensor(self, value: Known, learn: bool) -> Tensor:
        """The constant as a tensor, the same one for the same place in the file."""
        array, stored = value.fixed(), value.stored
        moved = None if stored is None else stored.index
        tensors = self.shared.setdefault((stored.name, array.shape, learn), []) if stored else []
        for index, tensor in tensors:
            if index is moved or (index is not None and moved is not None and np.array_equal(index, moved)):
                return tensor
        fresh = torch.from_numpy(np.array(array, order="C"))  # a copy: the file's own values stay as they are
        tensor = nn.Parameter(fresh) if learn else fresh
        tensors.append((moved, tensor))
        return tensor


def begins_learning(node: Node, module: nn.Module) -> bool:
    """Whether a node's weights make what follows it part of the trained network."""
    return node.op not in _AFTER_LEARNED and any(True for _ in module.parameters())


def _holder(module: nn.Module, role: str) -> tuple[nn.Module | None, str]:
    """The part of a converted module that has the parameter or buffer of this name, and the path to it."""
    for path, part in module.named_modules():
        if role and role in _own(part):
            return part, f"{path}." if path else ""
    return None, ""


def _own(module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters and buffers by name, without those of the modules in it."""
    return dict([*module.named_parameters("", False, False), *module.named_buffers("", False, False)])
