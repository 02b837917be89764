"""A certificate checked again: its proofs leaf by leaf, and that it is about this network, these images and this box.

Answers that are already known are read from the same document, to go on with a run that was stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import RobnetError, UsageError
from robnet_fx.images.pixels import batches, to_float
from robnet_fx.machine.precision import full_precision
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.perturbations.base import Box
from robnet_fx.verify.certificate import about
from robnet_fx.verify.convert import in_dtype
from robnet_fx.verify.curves import at, check_nested, lines, rising
from robnet_fx.verify.decision import ANSWERS, AROUND, Decision, levels
from robnet_fx.verify.parts import Node, Part, boxes
from robnet_fx.verify.question import classification, posed
from robnet_fx.verify.search import Level
from robnet_fx.verify.verdict import classify

_ABOUT = ("model_sha256.weights", "data_sha256", "box", "clip", "normalisation", "method", "symbols", "dtype")
_SLACK = 1e-6  # of a margin: sums are in another order in another batch or on another machine


def known(document: Mapping[str, Any], net: BoundedModel, images: Tensor, labels: Tensor) -> dict[int, Decision]:
    """The answers of a certificate's document, by the number of the image in its order.

    Raises `UsageError` where the document is none, or is about another network, other images, another box, ...: every
    entry that differs is named. An unknown that the limits of then gave up is left out, and so is what a larger box
    answered, which a curve has for nothing.
    """
    same(document, net, images, labels)
    found = {}
    for number, sample in enumerate(document["samples"]):
        if sample.get("answer") in ("certified", "falsified") and sample.get("how") != AROUND:
            found[number] = _decision(sample, len(net.center))
    return found


def known_at(
    document: Mapping[str, Any], net: BoundedModel, images: Tensor, labels: Tensor, eps: Sequence[float]
) -> dict[float, dict[int, Decision]]:
    """`known` for each eps of a curve that the document has too; one of them at least. `net` keeps its eps."""
    of, strengths = lines(document), rising(eps)
    there = {line.get("eps"): line for line in of}
    found = {}
    for strength in [each for each in strengths if each in there] or strengths[-1:]:  # none: another box at least
        with at(net, strength):
            found[strength] = known(there.get(strength, of[-1]), net, images, labels)
    return found


def differences(found: Mapping[str, Any], net: BoundedModel, images: Tensor, labels: Tensor) -> list[str]:
    """In what a record, or `Certificate.about`, is about something else than a verdict of `net` on these images, a line
    each."""
    mine = about(net, in_dtype(net, torch.float64), images, labels)
    return [
        f"{name}: {_at(found, name)!r} there, {_at(mine, name)!r} here"
        for name in _ABOUT
        if _at(found, name) != _at(mine, name)
    ]


def same(document: Mapping[str, Any], net: BoundedModel, images: Tensor, labels: Tensor) -> None:
    """`UsageError` unless a document is a certificate about all of this."""
    if document.get("schema") != "robnet-fx/record" or document.get("command") != "certify":
        raise UsageError("this is no certificate: robnet-fx certify writes one with --out")
    differing = differences(document, net, images, labels)
    if len(document.get("samples", ())) != len(labels):
        differing.append(f"samples: {len(document.get('samples', ()))} there, {len(labels)} here")
    if differing:
        raise UsageError("\n".join(["the certificate is about something else", *(f"  {each}" for each in differing)]))


def replay_at(
    document: Mapping[str, Any],
    net: BoundedModel,
    images: Tensor,
    labels: Tensor,
    eps: Sequence[float],
    progress: Progress = SILENT,
) -> int:
    """`replay` at each eps of a curve, which must be those of the document, or at the only one. `net` keeps its eps."""
    of, strengths, leaves, above = lines(document), rising(eps), 0, dict[int, Any]()
    if len(of) + len(strengths) > 2 and [line.get("eps") for line in of] != strengths:
        there = [line.get("eps") for line in of]
        raise UsageError(f"the certificate is about something else\n  eps: {there} there, {strengths} here")
    check_nested(net, strengths)
    for line, strength in zip(reversed(of), reversed(strengths), strict=True):
        with at(net, strength):
            leaves += replay(line, net, images, labels, progress, above)
        above = {number: sample["margin"] for number, sample in enumerate(line["samples"]) if sample["certified"]}
    return leaves


def replay(
    document: Mapping[str, Any],
    net: BoundedModel,
    images: Tensor,
    labels: Tensor,
    progress: Progress = SILENT,
    above: Mapping[int, float | None] | None = None,
) -> int:
    """Check every answer of a certificate's document with its leaves; returns the number of leaves that were bounded.

    Each proof's leaves are the whole box by their making, and each is bounded again by the level that proved it; each
    counterexample must lie in the box and be one; labels, predictions and margins must be what they are here. `above`
    has the margins, by the number of the image, that were proved on a box around this one and have been checked. Raises
    `UsageError` for a certificate about something else or without leaves, and `RobnetError` with every image whose
    answer does not hold, and why.
    """
    same(document, net, images, labels)
    exact = in_dtype(net, torch.float64)
    predicted, correct = classify(exact, images, labels)
    wrong: dict[int, str] = {}
    proofs: dict[int, list[tuple[Part, Node]]] = {}
    for number, sample in enumerate(document["samples"]):
        own = slice(number, number + 1)
        answer, reason = sample.get("answer"), None
        if sample["label"] != int(labels[number]):
            reason = f"label {sample['label']} there, {int(labels[number])} here"
        elif sample["predicted"] != int(predicted[number]) or sample["correct"] != bool(correct[number]):
            reason = f"predicted {sample['predicted']} there, {int(predicted[number])} here"
        elif sample["certified"] != (answer == "certified"):
            reason = "certified and answer contradict each other"
        elif answer == "falsified":
            reason = _falsified(sample, exact, images[own], labels[own])
        elif answer == "certified" and sample.get("how") == AROUND:
            larger = (above or {}).get(number, math.nan)
            reason = None if sample["margin"] == larger else "no larger box has this answer"
        elif answer == "certified":
            if "leaves" not in sample:
                raise UsageError("the certificate has no leaves: certify writes them with --leaves")
            proofs[number] = list(Node.read(sample["leaves"], len(exact.center)).leaves(len(exact.center)))
        if reason is not None:
            wrong[number] = reason
    margins = _bounded_again(proofs, levels(net, exact), images, labels, wrong, progress)
    for number, margin in margins.items():
        if number not in wrong and not _near(there := document["samples"][number]["margin"], margin):
            wrong[number] = f"margin {there} there, {margin} here"
    said = [f"  image {document['samples'][number]['index']}: {wrong[number]}" for number in sorted(wrong)]
    for name, key in (("certified_accuracy", "certified"), ("clean_accuracy", "correct")):
        share = sum(sample[key] for sample in document["samples"]) / len(labels)
        if abs(document[name] - share) > 1e-12:
            said.append(f"  {name}: {document[name]} there, {share} by its samples")
    if said:
        raise RobnetError("\n".join([f"{len(said)} entries of the certificate do not hold", *said]))
    return sum(map(len, proofs.values()))


@torch.no_grad()
def _bounded_again(
    proofs: Mapping[int, Sequence[tuple[Part, Node]]],
    work: Sequence[Level],
    images: Tensor,
    labels: Tensor,
    wrong: dict[int, str],
    progress: Progress,
) -> dict[int, float]:
    """The worst margin over each image's leaves; what is not proved is added to `wrong`."""
    exact, worst = work[0].exact, dict.fromkeys(proofs, -math.inf)
    leaves = [(number, part, node.level) for number, found in proofs.items() for part, node in found]
    for number, _, level in leaves:
        if not 0 <= level < len(work):
            wrong[number] = "a leaf is open" if level < 0 else f"a leaf was proved by a level {level} that there is not"
    with full_precision(), progress.task("replaying", len(leaves)) as task:
        for level, own in enumerate(work):
            here = [(number, part) for number, part, at in leaves if at == level]
            for places in batches(len(here), own.batch):
                numbers, parts = zip(*here[places], strict=True)
                over = Box(*(end.expand(len(parts), -1) for end in (exact.center, exact.radius)))
                pictures, asked = posed(exact, images, labels, numbers)
                uppers = own.exact.upper_rows(pictures, asked.rows, boxes(parts, over))
                for number, upper in zip(numbers, asked.worst(uppers).tolist(), strict=True):
                    worst[number] = max(worst[number], upper)
                    if not (math.isfinite(upper) and upper < 0):
                        wrong.setdefault(number, f"a leaf is not proved at level {level}: margin {upper}")
                task.advance(len(parts))
    return worst


@torch.no_grad()
def _falsified(sample: Mapping[str, Any], exact: BoundedModel, image: Tensor, label: Tensor) -> str | None:
    """What is wrong with a counterexample."""
    point = torch.tensor([sample["coefficients"]], dtype=exact.center.dtype, device=exact.center.device)
    if point.shape[1] != len(exact.center):
        return f"{point.shape[1]} coefficients there, {len(exact.center)} here"
    outside = (point - exact.center).abs() - exact.radius
    if bool((outside > 1e-12 * (1 + exact.radius)).any()):
        return f"coefficient {int(outside.argmax())} lies outside the box"
    question = classification(label.to(point.device), exact.classes, exact.center.dtype)
    values = question.values(exact.perturbed(point, to_float(image, exact.center)))
    worst = float(question.worst(values))
    if not bool(question.met(values)):
        return f"its coefficients leave the answer right: margin {worst}"
    return None if _near(sample["margin"], worst) else f"margin {sample['margin']} there, {worst} here"


def _near(a: float | None, b: float) -> bool:
    return a is not None and abs(a - b) <= _SLACK * (1 + abs(b))


def _decision(sample: Mapping[str, Any], dimensions: int) -> Decision:
    """A decision as `described` wrote it."""
    if sample["answer"] not in ANSWERS:
        raise UsageError(f"an answer is one of {', '.join(ANSWERS)}, not {sample['answer']!r}")
    point = torch.tensor(sample["coefficients"], dtype=torch.float64) if "coefficients" in sample else None
    margin = math.nan if sample["margin"] is None else float(sample["margin"])
    tree = tuple(Node.read(sample["leaves"], dimensions).written()) if "leaves" in sample else ()
    return Decision(
        sample["answer"],
        sample["how"],
        sample["boxes"],
        sample["seconds"],
        margin,
        point,
        sample["proved"],
        tree,
        sample["one_box"],
    )


def _at(document: Mapping[str, Any], name: str) -> Any:
    for key in name.split("."):
        document = document.get(key) if isinstance(document, Mapping) else None  # type: ignore[assignment]
    return document
