"""Certificates as files: read, written with the numbers that images have in their test set, and their pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UsageError
from robnet_fx.images.pixels import to_float
from robnet_fx.interchange.perturbed import write_instances
from robnet_fx.machine import ranks
from robnet_fx.machine.files import write_atomically
from robnet_fx.report.console import results, say
from robnet_fx.report.page.picture import png
from robnet_fx.verify.certificate import Certificate
from robnet_fx.verify.pictures import perturbed_images
from robnet_fx.verify.record import record
from robnet_fx.verify.search import Limits

_FIGURES = {
    "clean": "clean_accuracy",
    "attacked": "attacked_accuracy",
    "certified": "certified_accuracy",
    "one_box": "one_box_accuracy",
    "unknown": "unknown",
}


def read(path: Path) -> dict[str, Any]:
    """The document in a file; `UsageError` where there is none."""
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is no JSON document: {error}") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path} is no certificate")
    return found


def document(opened: Mapping[str, Any], found: Certificate, index: Tensor, *, leaves: bool) -> dict[str, Any]:
    """The record of `certify`, images by their numbers `index [N]` in the test set."""
    whole = record("certify", opened, found.document(leaves=leaves))
    for number, sample in zip(index.tolist(), whole["samples"], strict=True):
        sample["index"] = number
    return whole


def shares(document: Mapping[str, Any]) -> dict[str, float]:
    """The figures of the table, from the record."""
    return {name: document[key] for name, key in _FIGURES.items()}


def told(limits: Limits) -> str:
    """What an image may cost, in words."""
    parts = [f"{limits.seconds:g} s" if limits.seconds is not None else "", _boxes(limits.boxes)]
    return f"at most {' and '.join(filter(None, parts))} an image" if any(parts) else "no limit"


def _boxes(count: int | None) -> str:
    return "" if count is None else f"{count} box{'es' if count > 1 else ''}"


def replayed(leaves: int, document: Mapping[str, Any], *, as_json: bool) -> None:
    """What a replay that found nothing wrong says."""
    images = len(document["samples"])
    if as_json:
        say(results(), json.dumps({"images": images, "leaves": leaves, "holds": True}))
    else:
        say(results(), f"the certificate holds: {images} images, {leaves} leaves bounded again")


def save_instances(folder: Path, net: BoundedModel, images: Tensor, labels: Tensor, index: Tensor) -> None:
    """Each image's perturbed network and its property, `<number>.onnx` and `<number>.vnnlib`, and instances.csv."""
    if ranks.leader():
        write_instances(net, images, labels, folder, [str(number) for number in index.tolist()])


@torch.no_grad()
def save_images(folder: Path, net: BoundedModel, images: Tensor, found: Certificate, index: Tensor) -> None:
    """Each falsified image under the field that turns it, as `<number>.png` in a folder."""
    if not ranks.leader():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for place, decision in found.decisions.items():
        if decision.point is not None:
            picture = to_float(images[place : place + 1], net.center)
            turned = perturbed_images(net, decision.point.unsqueeze(0).to(net.center), picture)
            with write_atomically(folder / f"{int(index[place])}.png") as file:
                file.write(png(turned[0]))
