"""Certificates as files: read, written with the numbers that images have in their test set, and their pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Group, RenderableType
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UsageError
from robnet_fx.images.pixels import to_float
from robnet_fx.interchange.perturbed import write_instances
from robnet_fx.machine import ranks
from robnet_fx.machine.files import write_atomically
from robnet_fx.report.console import results, say
from robnet_fx.report.page.picture import png
from robnet_fx.report.panels import levels
from robnet_fx.report.tables import accuracies, curve, largest, shares
from robnet_fx.verify import curves
from robnet_fx.verify.bisection import Largest
from robnet_fx.verify.certificate import Certificate
from robnet_fx.verify.pictures import perturbed_images
from robnet_fx.verify.record import record
from robnet_fx.verify.search import Limits


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


def document(
    opened: Mapping[str, Any],
    found: Sequence[Certificate],
    index: Tensor,
    several: bool,
    reach: Mapping[int, Largest] | None = None,
    *,
    leaves: bool,
) -> dict[str, Any]:
    """The record of `certify`, images by their numbers `index [N]` in the test set.

    `found` has the certificate at each eps, one unless `several` were asked for; `reach` what was bisected, by the
    place of the image."""
    own = curves.document(found, leaves=leaves) if several else found[0].document(leaves=leaves)
    whole = record("certify", opened, own)
    for line in whole.get("curve", [whole]):
        for place, sample in enumerate(line["samples"]):
            sample["index"] = int(index[place])
            if reach is not None and place in reach:
                sample["largest"] = asdict(reach[place])
    return whole


def tables(title: str, document: Mapping[str, Any], reach: Mapping[int, Largest] | None) -> RenderableType:
    """The figures of the record, a line for each eps where there are several, and below them what was bisected."""
    if "curve" in document:
        return curve(title, {levels(line["eps"]): shares(line) for line in document["curve"]})
    found = accuracies(title, {"share": shares(document)})
    if not reach:
        return found
    ends = [(each.proved, each.falsified) for each in reach.values()]
    return Group(found, largest(f"the eps that {len(ends)} right images can take", ends, document["eps"]))


def told(limits: Limits) -> str:
    """What an image may cost, in words."""
    parts = [f"{limits.seconds:g} s" if limits.seconds is not None else "", _boxes(limits.boxes)]
    return f"at most {' and '.join(filter(None, parts))} an image" if any(parts) else "no limit"


def _boxes(count: int | None) -> str:
    return "" if count is None else f"{count} box{'es' if count > 1 else ''}"


def replayed(leaves: int, document: Mapping[str, Any], *, as_json: bool) -> None:
    """What a replay that found nothing wrong says."""
    images = len(curves.lines(document)[0]["samples"])
    if as_json:
        say(results(), json.dumps({"images": images, "leaves": leaves, "holds": True}))
    else:
        say(results(), f"the certificate holds: {images} images, {leaves} leaves bounded again")


def save_instances(
    folder: Path, net: BoundedModel, images: Tensor, labels: Tensor, index: Tensor, eps: Sequence[float] = ()
) -> None:
    """Each image's perturbed network and its property, `<number>.onnx` and `<number>.vnnlib`, and instances.csv; of
    several eps each in a folder of its own, named by its pixel levels."""
    if not ranks.leader():
        return
    for strength in eps or [net.eps]:
        with curves.at(net, strength):
            own = folder / levels(strength) if eps else folder
            write_instances(net, images, labels, own, [str(number) for number in index.tolist()])


@torch.no_grad()
def save_images(
    folder: Path, net: BoundedModel, images: Tensor, found: Sequence[Certificate], index: Tensor, several: bool
) -> None:
    """Each falsified image under the field that turns it, as `<number>.png` in a folder; of several eps each has
    one."""
    if not ranks.leader():
        return
    for certificate in found:
        own = folder / levels(certificate.about["eps"]) if several else folder
        own.mkdir(parents=True, exist_ok=True)
        for place, decision in certificate.decisions.items():
            if decision.point is not None:
                picture = to_float(images[place : place + 1], net.center)
                turned = perturbed_images(net, decision.point.unsqueeze(0).to(net.center), picture)
                with write_atomically(own / f"{int(index[place])}.png") as file:
                    file.write(png(turned[0]))
