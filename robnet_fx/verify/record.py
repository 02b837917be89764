"""The JSON record: one document for what a command or a certificate found, documented in docs/record.md.

Every record begins with its schema, its version and the command, and ends with the versions of what made it.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.machine.files import sha256_of_file, sha256_of_tensors
from robnet_fx.perturbations.base import Box, Perturbation
from robnet_fx.version import __version__

SCHEMA = "robnet-fx/record"
VERSION = 1
"""Counts up when a key changes its meaning or goes; a new key does not need a new version."""


def record(command: str, *parts: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a command (`certify`, `robustify`, ...), its parts in order, one of which may be a record itself.

    Of equal keys the first place and the last value count; `samples` come last.
    """
    head = {"schema": SCHEMA, "version": VERSION, "command": command}
    whole: dict[str, Any] = dict(head)
    for part in parts:
        whole |= part
    samples = {"samples": whole.pop("samples")} if "samples" in whole else {}
    return {**whole, **head, "versions": versions(), **samples}


def about_perturbation(perturbation: Perturbation) -> dict[str, Any]:
    """A perturbation by its class and fields; `order` stands beside it too, where it has one."""
    fields = {"kind": type(perturbation).__name__, **vars(perturbation)}
    order = {"order": fields["order"]} if "order" in fields else {}
    return {"eps": perturbation.eps, **order, "perturbation": fields}


def exact_box(net: BoundedModel) -> Box:
    """The box `[D]` over which `net` has its bounds now, in float64's digits where that of `net` is their rounding."""
    own, exact = Box(net.center, net.radius), Box(*net.transform.box_at(net.eps))
    same = all(torch.equal(mine, end.to(mine)) for mine, end in zip(own, exact, strict=True))
    return exact if same else own


def about_problem(net: BoundedModel) -> dict[str, Any]:
    """The perturbation, the box over which `net` has its bounds now, the clip and the normalisation.

    The box is that of `exact_box`.
    """
    center, radius = exact_box(net)
    return {
        **about_perturbation(net.perturbation),
        "eps": net.eps,
        "box": {"center": center.tolist(), "radius": radius.tolist()},
        "clip": net.clip,
        "normalisation": net.problem.normalisation,
    }


def about_computing(net: BoundedModel) -> dict[str, Any]:
    """What computed, and in which numbers; and what must be said of the network."""
    return {
        "remarks": net.remarks,
        "dtype": str(net.center.dtype).removeprefix("torch."),
        "device": net.center.device.type,
    }


def hashes(
    net: BoundedModel | None = None,
    file: Path | str | None = None,
    images: Tensor | None = None,
    labels: Tensor | None = None,
) -> dict[str, Any]:
    """SHA-256 of the weights and of the model's file, and of the images with their labels, as far as they are given."""
    model = {} if net is None else {"weights": sha256_of_tensors(net.model.state_dict())}
    if file is not None:
        model["file"] = sha256_of_file(file)
    found: dict[str, Any] = {"model_sha256": model}
    if images is not None and labels is not None:
        found["data_sha256"] = sha256_of_tensors({"images": images, "labels": labels})
    return found


def versions(packages: Sequence[str] = ("torch", "numpy", "onnx", "onnxruntime")) -> dict[str, str]:
    """The versions of Python, of this package and of the installed packages a result depends on."""
    found = {"python": platform.python_version(), "robnet-fx": __version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
