"""Checkpoints: whole or absent on disk, read without running code, with the random numbers to continue bit for bit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UsageError
from robnet_fx.machine.files import sha256_of_tensors, write_atomically
from robnet_fx.train.objectives import Objective
from robnet_fx.train.recipe import MACHINE_ONLY, Recipe

FORMAT = 6


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers, strings, lists and dictionaries; `RobnetError` if the disk refuses."""
    with write_atomically(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load(path: Path) -> dict[str, Any]:
    """Read a state back, on the CPU. `UsageError` if there is none or if it is not a checkpoint."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"there is no checkpoint at {path}") from None
    except Exception as error:  # a damaged file makes the unpickler stumble in any way it likes
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"{path} is not a checkpoint that can be read: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UsageError(f"{path} is not a checkpoint of this version of robnet-fx")
    return state


def settings(
    net: BoundedModel,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    objective: Objective,
    validation: tuple[Tensor, Tensor] | None,
) -> dict[str, str]:
    """What must not change between a run and its continuation; how much memory there is may, and how many threads."""
    parts = {"images": images, "labels": labels}
    if validation is not None:
        parts |= {"validation images": validation[0], "validation labels": validation[1]}
    layout = [(name, str(value.dtype), list(value.shape)) for name, value in net.model.state_dict().items()]
    return {
        "method": net.method,
        "symbols": str(net.symbols),
        "clip": str(net.clip),
        "normalisation": repr(net.problem.normalisation),
        "layout": repr((net.layout, net.output)),
        "perturbation": repr(net.perturbation),
        "objective": repr(objective),
        "data": sha256_of_tensors(parts),
        "model": hashlib.sha256(repr(layout).encode()).hexdigest(),
        **{f"recipe.{name}": repr(value) for name, value in recipe.to_dict().items() if name not in MACHINE_ONLY},
    }


def check_same_run(path: Path, saved: dict[str, Any], now: dict[str, Any]) -> None:
    """`UsageError` naming every setting in which the run that wrote `path` differs from the one to resume it."""
    different = [name for name in sorted(saved.keys() | now.keys()) if saved.get(name) != now.get(name)]
    if different:
        lines = "".join(f"\n  {name:<14} {saved.get(name)} -> {now.get(name)}" for name in different)
        raise UsageError(f"{path} belongs to a run with other settings: {', '.join(different)}{lines}")


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's global generators that a run on `device` draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Put `random_state` back."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
