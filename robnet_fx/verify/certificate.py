"""The certificate: an answer about every image, in float64, with everything needed to repeat it, as a JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import RobnetError, UsageError
from robnet_fx.images.pixels import check, to_float
from robnet_fx.machine import ranks
from robnet_fx.machine.files import write_atomically
from robnet_fx.machine.precision import full_precision
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.verify.ascent import starting_points
from robnet_fx.verify.convert import in_dtype
from robnet_fx.verify.decision import USUAL, Decision, decide
from robnet_fx.verify.question import posed
from robnet_fx.verify.record import about_computing, about_problem, hashes, record
from robnet_fx.verify.search import Limits
from robnet_fx.verify.verdict import classify

_CHECKED_AT = 32  # points of the box at which what is certified is looked at once more


@dataclass(frozen=True)
class Certificate:
    """The answers about a set of images and what they were obtained with.

    labels, predicted `[N]`, correct `bool [N]`: of the unperturbed images. `decisions` has a `Decision` for each
    correct image by its number, the others need none; those that were not reached before Ctrl-C are missing.
    """

    labels: Tensor
    predicted: Tensor
    correct: Tensor
    decisions: Mapping[int, Decision]
    about: dict[str, Any]

    @property
    def count(self) -> int:
        return len(self.labels)

    @property
    def certified(self) -> Tensor:
        """`bool [N]`: classified correctly under every field of the box, proved."""
        return self._who(lambda decision: decision.answer == "certified")

    @property
    def falsified(self) -> Tensor:
        """`bool [N]`: correct unperturbed, and wrong under a field that is known."""
        return self._who(lambda decision: decision.answer == "falsified")

    @property
    def unknown(self) -> Tensor:
        """`bool [N]`: neither."""
        return self.correct & ~self.certified & ~self.falsified

    @property
    def one_box(self) -> Tensor:
        """`bool [N]`: proved by one bound of the whole box without symbols, as in the paper."""
        return self._who(lambda decision: decision.one_box)

    @property
    def margin(self) -> Tensor:
        """`[N]` float64: `Decision.margin`, NaN where there is none."""
        found = torch.full((self.count,), torch.nan, dtype=torch.float64)
        for index, decision in self.decisions.items():
            found[index] = decision.margin
        return found

    @property
    def clean_accuracy(self) -> float:
        """The share of images classified correctly, unperturbed."""
        return _share(self.correct)

    @property
    def certified_accuracy(self) -> float:
        """The share of images classified correctly under every field of the box."""
        return _share(self.certified)

    @property
    def attacked_accuracy(self) -> float:
        """The share of images classified correctly under every field that was tried: no certificate can exceed it."""
        return _share(self.correct & ~self.falsified)

    @property
    def one_box_accuracy(self) -> float:
        """The share of images that one bound of the whole box certifies, as in the paper."""
        return _share(self.one_box)

    def _who(self, holds: Any) -> Tensor:
        found = torch.zeros_like(self.correct)
        for index, decision in self.decisions.items():
            found[index] = holds(decision)
        return found

    def document(self, *, leaves: bool = False) -> dict[str, Any]:
        """The record: totals, what it is about, an entry a sample; a margin that is not a finite number is None.
        `leaves` adds each proof's tree of halves (`parts.Node.written`), by which it can be repeated."""
        totals = {
            "clean_accuracy": self.clean_accuracy,
            "attacked_accuracy": self.attacked_accuracy,
            "certified_accuracy": self.certified_accuracy,
            "one_box_accuracy": self.one_box_accuracy,
            "unknown": _share(self.unknown),
            "images": self.count,
        }
        samples = []
        for index in range(self.count):
            decision = self.decisions.get(index)
            sample = {
                "index": index,
                "label": int(self.labels[index]),
                "predicted": int(self.predicted[index]),
                "correct": bool(self.correct[index]),
                "certified": decision is not None and decision.answer == "certified",
            }
            samples.append(sample | (described(decision, leaves) if decision is not None else {"margin": None}))
        return record("certify", totals, self.about, {"samples": samples})

    def to_json(self, *, leaves: bool = False) -> str:
        """The document as JSON text."""
        return json.dumps(self.document(leaves=leaves), indent=1, allow_nan=False, default=str) + "\n"

    def save(self, path: Path, *, leaves: bool = False) -> None:
        """Write the JSON text, whole or not at all."""
        with write_atomically(path) as file:
            file.write(self.to_json(leaves=leaves).encode())


class Unfinished(KeyboardInterrupt):
    """Ctrl-C while images were certified; `certificate` has the answers that are known, `curve` those at every eps that
    was begun, the smallest first."""

    def __init__(self, certificate: Certificate, curve: Sequence[Certificate] = ()) -> None:
        super().__init__()
        self.certificate, self.curve = certificate, [*curve] or [certificate]


def _share(who: Tensor) -> float:
    return float(who.double().mean())


def described(decision: Decision, leaves: bool = False) -> dict[str, Any]:
    """A decision as the record of a certificate has it."""
    point = {} if decision.point is None else {"coefficients": decision.point.tolist()}
    tree = {"leaves": list(decision.tree)} if leaves and decision.tree else {}
    return {**decision.document(), **point, **tree}


def about(
    net: BoundedModel, exact: BoundedModel, images: Tensor, labels: Tensor, model_file: Path | str | None = None
) -> dict[str, Any]:
    """What a certificate is about and how it is obtained, as the record has it."""
    return {
        **about_problem(exact),
        "method": net.method,
        "symbols": net.symbols,
        **about_computing(exact),
        **hashes(net, model_file, images, labels),
    }


def certify(
    net: BoundedModel,
    images: Tensor,
    labels: Tensor,
    *,
    limits: Limits = USUAL,
    progress: Progress = SILENT,
    dtype: torch.dtype | None = torch.float64,
    known: Mapping[int, Decision] | None = None,
    around: Mapping[int, Decision] | None = None,
    model_file: Path | str | None = None,
    data_notes: Sequence[str] = (),
) -> Certificate:
    """Which images `[N, C, *spatial]` (uint8, or float in [0, 1]) keep their label `[N]` under every field of the box.

    Each correct image gets one of three answers, see `decide`: certified, falsified by a field that is given, or
    unknown within the `limits`, by default ten seconds an image; `Limits(boxes=1)` is the verdict of one box. `known`
    are decisions of an earlier run about the same, `around` those on a box that holds this one, by the image's number:
    what is certified there is so here, see `decide`. What `net` finds in its own dtype counts if it holds in `dtype`,
    on a copy, so the caller's model is left alone; None: in its own. float32 verdicts are sound up to rounding only.
    `model_file` adds the hash of the file that the model came from to that of its weights, and `data_notes` are phrases
    on how the images were read. Of several ranks each works some of the images, and all get the whole.

    Raises `UsageError` for data that does not fit, `Unfinished` on Ctrl-C.

    On a CPU this is up to twice as fast where the process keeps what it frees: `robnet_fx.keep_freed_memory()`.
    """
    check(images, labels, net.classes)
    if dtype is not None and not dtype.is_floating_point:
        raise UsageError(f"a verdict needs a floating-point dtype, not {dtype}")
    exact = in_dtype(net, dtype)
    notes = {"data_notes": [*data_notes], "limits": asdict(limits)}
    basis = {**notes, **about(net, exact, images, labels, model_file)}
    predicted, correct = classify(exact, images, labels)
    decisions = dict(known or {})
    left = [index for index in correct.nonzero().squeeze(1).tolist() if index not in decisions]

    def work(own: list[int]) -> list[tuple[int, Decision]]:
        found: list[tuple[int, Decision]] = []

        def tell(number: int, decision: Decision) -> None:
            found.append((own[number], decision))
            decisions[own[number]] = decision

        pictures, question = posed(exact, images, labels, own)
        larger = {place: (around or {})[number] for place, number in enumerate(own) if number in (around or {})}
        decide(net, pictures, question, exact=exact, limits=limits, around=larger, progress=progress, tell=tell)
        return found

    def so_far() -> Certificate:
        return Certificate(labels.cpu(), predicted, correct, dict(sorted(decisions.items())), basis)

    try:
        decisions |= dict(ranks.shared(left, work))
    except KeyboardInterrupt:
        raise Unfinished(so_far()) from None
    whole = so_far()
    with full_precision():
        _look_again(exact, images, labels, whole)
    return whole


@torch.no_grad()
def _look_again(exact: BoundedModel, images: Tensor, labels: Tensor, found: Certificate) -> None:
    """`RobnetError` where a certified image is fooled by a point of the box after all: no bound may say so."""
    points = starting_points(len(exact.center), _CHECKED_AT, 1).to(exact.center)
    for index in found.certified.nonzero().squeeze(1).tolist():
        picture = to_float(images[index : index + 1], exact.center).expand(_CHECKED_AT, *[-1] * (images.dim() - 1))
        logits = exact.perturbed(exact.center + exact.radius * points, picture)
        if bool((logits.argmax(1) != labels[index].to(logits.device)).any()):
            raise RobnetError(f"image {index} is certified and yet fooled: a bug in robnet-fx, please report it")
