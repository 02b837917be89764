"""Where to compute: the device asked for, or the best there is."""

from __future__ import annotations

import torch

from robnet_fx.errors import UsageError


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or without one the GPU if there is one. `UsageError` if it cannot be used."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return device
