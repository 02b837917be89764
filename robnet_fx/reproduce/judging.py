"""The three answers about a test set, part by part, so that those of a part that is done are never worked again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UsageError
from robnet_fx.images.pixels import batches
from robnet_fx.machine import ranks
from robnet_fx.machine.files import read_json
from robnet_fx.machine.progress import Progress, Task
from robnet_fx.train.run_folder import write_json
from robnet_fx.verify.certificate import Unfinished, certify
from robnet_fx.verify.replay import known, same
from robnet_fx.verify.search import Limits

Sample = dict[str, Any]
ON_CPU, ON_GPU = 64, 1024
"""Images of a part: as many as are bounded at once."""


def judge(
    net: BoundedModel, images: Tensor, labels: Tensor, limits: Limits, folder: Path, progress: Progress
) -> list[Sample]:
    """What the certificate of `net` has on each image `[N, C, *spatial]` with its label `[N]`, as `certify` has it.

    `folder` takes the certificate of each part, and on Ctrl-C what is known of the one that is worked. A certificate
    there about something else is worked anew. Raises `KeyboardInterrupt`.
    """
    found: list[Sample] = []
    with progress.task("judging", len(images)) as task:
        for part in batches(len(images), ON_GPU if net.center.is_cuda else ON_CPU):
            path, beside = folder / f"{part.start}.json", _Beside(task, progress)
            own = _part(net, images[part], labels[part], limits, path, beside)
            found += [{**sample, "index": number} for number, sample in enumerate(own, part.start)]
            task.advance(len(own), certified=sum(sample["certified"] for sample in found) / len(found))
    return found


def _part(
    net: BoundedModel, images: Tensor, labels: Tensor, limits: Limits, path: Path, progress: Progress
) -> list[Sample]:
    before = _before(net, images, labels, limits, path)
    samples: list[Sample] = [] if before is None else before["samples"]
    if samples and all("answer" in sample for sample in samples if sample["correct"]):
        return samples
    decided = None if before is None else known(before, net, images, labels)
    try:
        document = certify(net, images, labels, limits=limits, known=decided, progress=progress).document()
    except Unfinished as unfinished:
        if ranks.leader():  # after Ctrl-C nobody waits for it
            unfinished.certificate.save(path)
        raise
    write_json(path, document)
    samples = document["samples"]
    return samples


def _before(net: BoundedModel, images: Tensor, labels: Tensor, limits: Limits, path: Path) -> dict[str, Any] | None:
    """The certificate that is there, if it is about the same."""
    document = read_json(path)
    if document is None or document.get("limits") != asdict(limits):
        return None
    try:
        same(document, net, images, labels)
    except UsageError:
        return None
    return document


def shares(samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The accuracies of a certificate with these samples, by their keys in the record; `images` says how many."""

    def share(who: Sequence[bool]) -> float:
        return sum(who) / len(who)

    answers = [sample.get("answer") for sample in samples]
    right = [sample["correct"] for sample in samples]
    return {
        "clean_accuracy": share(right),
        "attacked_accuracy": share([ok and a != "falsified" for ok, a in zip(right, answers, strict=True)]),
        "certified_accuracy": share([sample["certified"] for sample in samples]),
        "one_box_accuracy": share([sample.get("one_box", False) for sample in samples]),
        "unknown": share([a == "unknown" for a in answers]),
        "images": len(samples),
    }


class _Beside:
    """What is done with a part, told beside the bar of all images."""

    def __init__(self, bar: Task, progress: Progress) -> None:
        self.bar, self.remark = bar, progress.remark

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[_Step]:
        yield _Step(self.bar, name, total)


class _Step:
    def __init__(self, bar: Task, name: str, total: int) -> None:
        self.bar, self.name, self.total, self.done = bar, name, total, 0

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        self.done += steps
        self.bar.advance(0, part=f"{self.name} {self.done}/{self.total}")
