"""The parts of a data set, training, validation and test, and what people call them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from robnet_fx.zoo.dataset import refuse
from robnet_fx.zoo.reading import Reading
from robnet_fx.zoo.split import stratified

PARTS = TRAIN, VAL, TEST = "train", "val", "test"

PART_OF = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "test": TEST,
    "testing": TEST,
}
"""Each word for a part, in lower case."""


def check_parts(name: str | Path, found: set[str], reading: Reading, whole: str) -> None:
    """Refuse a source without training images, and one without test images unless `reading.test_share` makes some.

    `whole` says, for the message, what the source looks like where no part has a name.
    """
    if TRAIN not in found:
        refuse(name, f"it has no training part, only {' and '.join(sorted(found))}")
    if TEST in found:
        reading.reject(name, test_share="there is a test part already")
    elif reading.test_share is None:
        val = "\n          or rename the validation part to test, if that is what it is for" if VAL in found else ""
        refuse(
            name,
            f"it has no test part{whole}\n"
            f"  remedy  --test-share 0.2 sets a fifth of every class aside as test images{val}",
        )


def split_off(name: str | Path, labels: Tensor, reading: Reading) -> dict[str, Tensor]:
    """The indices of training and test images that `reading.test_share`, which is given, makes of all training images.

    `UsageError` where it leaves one of them without images.
    """
    share = reading.test_share or 0.0
    rest, chosen = stratified(labels, share, reading.seed)
    if not len(rest) or not len(chosen):
        refuse(name, f"--test-share {share:g} of {len(labels)} images leaves a part without images")
    return {TRAIN: rest, TEST: chosen}


def share_note(reading: Reading) -> str:
    """How the test part was made."""
    return f"{reading.test_share:.4g} of every class as test images, by seed {reading.seed}"
