"""A network measured on test images: clean, certified and attacked accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.verify.attack import attack
from robnet_fx.verify.certificate import Certificate, certify


@dataclass(frozen=True)
class Score:
    """Shares of the test images: correct, certified, and correct under every field that was tried (between the two)."""

    clean: float
    certified: float
    attacked: float


def measure(
    net: BoundedModel,
    test: tuple[Tensor, Tensor],
    *,
    seed: int = 0,
    progress: Progress = SILENT,
    model_file: Path | None = None,
    data_notes: Sequence[str] = (),
) -> tuple[Score, Certificate]:
    """Certify and attack the images `[N, C, *spatial]` with their labels `[N]` over the box that `net` has now.

    `model_file` is the file that the network came from and `data_notes` say how the images were read: both are for the
    certificate.
    """
    certificate = certify(net, *test, progress=progress, model_file=model_file, data_notes=data_notes)
    attacked = attack(net, *test, seed=seed, progress=progress)
    return Score(certificate.clean_accuracy, certificate.certified_accuracy, attacked.accuracy), certificate
