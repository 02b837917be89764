"""The certificate: verdicts in float64 with everything needed to repeat them, as a JSON document."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UsageError
from robnet_fx.frontend.unwrap import bare
from robnet_fx.images.pixels import check
from robnet_fx.machine.files import write_atomically
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.verify.record import about_computing, about_problem, hashes, record
from robnet_fx.verify.verdict import Verdicts, verdicts


@dataclass(frozen=True)
class Certificate:
    """Verdicts over a set of images (`[N]` tensors, see `Verdicts`) and what they were obtained with."""

    labels: Tensor
    verdicts: Verdicts
    about: dict[str, Any]

    @property
    def count(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> Tensor:
        return self.verdicts.correct

    @property
    def certified(self) -> Tensor:
        return self.verdicts.certified

    @property
    def clean_accuracy(self) -> float:
        """The share of images classified correctly, unperturbed."""
        return float(self.correct.double().mean())

    @property
    def certified_accuracy(self) -> float:
        """The share of images classified correctly under every field of the box."""
        return float(self.certified.double().mean())

    def document(self) -> dict[str, Any]:
        """The record: totals, what it is about, an entry a sample; a margin that is not a finite number is None."""
        columns = zip(self.labels.tolist(), *(column.tolist() for column in self.verdicts), strict=True)
        totals = {
            "clean_accuracy": self.clean_accuracy,
            "certified_accuracy": self.certified_accuracy,
            "images": self.count,
        }
        samples = [
            {
                "index": index,
                "label": label,
                "predicted": predicted,
                "correct": correct,
                "certified": certified,
                "margin": margin if math.isfinite(margin) else None,
            }
            for index, (label, predicted, correct, certified, margin) in enumerate(columns)
        ]
        return record("certify", totals, self.about, {"samples": samples})

    def to_json(self) -> str:
        """The document as JSON text."""
        return json.dumps(self.document(), indent=1, allow_nan=False, default=str) + "\n"

    def save(self, path: Path) -> None:
        """Write the JSON text, whole or not at all."""
        with write_atomically(path) as file:
            file.write(self.to_json().encode())


def certify(
    net: BoundedModel,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int | None = None,
    progress: Progress = SILENT,
    dtype: torch.dtype | None = torch.float64,
    model_file: Path | str | None = None,
    data_notes: Sequence[str] = (),
) -> Certificate:
    """Which images `[N, C, *spatial]` (uint8, or float in [0, 1]) keep their label `[N]` under every field of the box.

    Worked in `dtype` on a copy of `net` (None: in its own dtype), so the caller's model is left alone. float32 verdicts
    are sound up to rounding only. `model_file` adds the hash of the file that the model came from to that of its
    weights, and `data_notes` are phrases on how the images were read. Raises `UsageError` for data that does not fit.

    On a CPU this is up to twice as fast where the process keeps what it frees: `robnet_fx.keep_freed_memory()`.
    """
    check(images, labels, net.classes)
    if dtype is not None and not dtype.is_floating_point:
        raise UsageError(f"a verdict needs a floating-point dtype, not {dtype}")
    exact = in_dtype(net, dtype)
    found = verdicts(exact, images, labels, batch_size=batch_size, progress=progress)
    about = {
        "data_notes": [*data_notes],
        **about_problem(exact),
        "method": net.method,
        "symbols": net.symbols,
        **about_computing(exact),
        **hashes(net, model_file, images, labels),
    }
    return Certificate(labels.cpu(), found, about)


def in_dtype(net: BoundedModel, dtype: torch.dtype | None) -> BoundedModel:
    """`net` itself if it computes in `dtype` already (or dtype is None), else a copy that does, its box set anew.

    Of the user's module the copy has the weights alone."""
    if dtype is None or net.center.dtype == dtype:
        return net
    converted = copy.deepcopy(net, {id(net.model): copy.deepcopy(bare(net.model))}).to(dtype)
    converted.set_eps(net.eps)
    return converted
