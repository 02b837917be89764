"""A network measured on test images: clean, certified and attacked accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.verify.certificate import Certificate, certify
from robnet_fx.verify.decision import USUAL
from robnet_fx.verify.search import Limits


@dataclass(frozen=True)
class Score:
    """Shares of the test images: correct, certified, correct under every field that was tried (between the two), and
    certified by one bound of the whole box without symbols."""

    clean: float
    certified: float
    attacked: float
    one_box: float

    def better_than(self, other: Score) -> bool:
        """More is certified; among equals more is right; among those one box certifies more. All else is no gain: who
        gives up accuracy has to prove something for it."""
        return (self.certified, self.clean, self.one_box) > (other.certified, other.clean, other.one_box)


def measure(
    net: BoundedModel,
    test: tuple[Tensor, Tensor],
    *,
    limits: Limits = USUAL,
    progress: Progress = SILENT,
    model_file: Path | None = None,
    data_notes: Sequence[str] = (),
) -> tuple[Score, Certificate]:
    """Certify the images `[N, C, *spatial]` with their labels `[N]` over the box that `net` has now, `limits` an image.

    `model_file` is the file that the network came from and `data_notes` say how the images were read: both are for the
    certificate.
    """
    found = certify(net, *test, limits=limits, progress=progress, model_file=model_file, data_notes=data_notes)
    return Score(found.clean_accuracy, found.certified_accuracy, found.attacked_accuracy, found.one_box_accuracy), found
