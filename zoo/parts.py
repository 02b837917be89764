"""The parts of a data set, training, validation and test, and what people call them."""

from __future__ import annotations

from pathlib import Path

from robnet_fx.zoo.dataset import refuse
from robnet_fx.zoo.reading import Reading

TRAIN, VAL, TEST = "train", "val", "test"

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


def share_note(reading: Reading) -> str:
    """How the test part was made."""
    return f"{reading.test_share:.4g} of every class as test images, by seed {reading.seed}"
