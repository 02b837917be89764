"""Data sets in .npz files, as Keras, MedMNIST and scikit-learn name and shape their arrays."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from robnet_fx.errors import UsageError
from robnet_fx.zoo.dataset import Dataset, refuse
from robnet_fx.zoo.labels import to_labels
from robnet_fx.zoo.parts import PART_OF, PARTS, TRAIN, check_parts, share_note, split_off
from robnet_fx.zoo.reading import Reading
from robnet_fx.zoo.scale import to_pixels

_IMAGES = ("x", "images", "image", "data")
_LABELS = ("y", "labels", "label", "targets", "target")

KEYS = (
    "x_train, y_train, x_test, y_test; train_images, train_labels, val_images, ..., test_labels; "
    "or X, y (images, labels; data, target) and --test-share"
)
"""The names of arrays that are known, for messages."""


def read_npz(path: Path, reading: Reading, classes: int | None = None) -> Dataset:
    """The data set in an .npz file, its images as the file has them, `[N, *sizes]`: `Dataset.axes` is None.

    Classes are named by their numbers, up to the largest label. `classes` is how many logits the network has. Raises
    `UsageError`.
    """
    reading.reject(path, resize="the images of an .npz file have one size; it is for folders of images")
    with _opened(path) as file:
        keys = _keys(path, file)
        check_parts(path, set(keys), reading, f": its arrays are {', '.join(file.files)}")
        arrays = {key: _array(path, file, key) for pair in keys.values() for key in pair}
    for images, labels in keys.values():
        if arrays[images].ndim < 3 or arrays[images].ndim > 5:
            refuse(
                path,
                f"{images} must be images [N, *sizes] with two to four sizes, is {list(arrays[images].shape)}\n"
                f"  remedy  reshape it to [N, H, W] or [N, C, H, W] before it is saved",
            )
        if not arrays[labels].ndim or len(arrays[images]) != len(arrays[labels]):
            one, other = (f"{key} is {list(arrays[key].shape)}" for key in (images, labels))
            refuse(path, f"images and labels do not belong together: {one}, {other}")
    pixels, pixel_notes = to_pixels(path, {images: arrays.pop(images) for images, _ in keys.values()}, reading.white)
    numbers, label_notes = to_labels(path, arrays, classes)
    parts = {part: (torch.from_numpy(pixels[x]), torch.from_numpy(numbers[y])) for part, (x, y) in keys.items()}
    notes = pixel_notes + label_notes
    if reading.test_share is not None:
        x, y = parts[TRAIN]
        chosen = split_off(path, y, reading)
        parts |= {part: (x[index], y[index]) for part, index in chosen.items()}
        notes = (*notes, share_note(reading))
    largest = max(int(labels.max()) for _, labels in parts.values())
    names = tuple(str(label) for label in range(largest + 1))
    return Dataset.of(str(path), parts, names, axes=None, notes=notes)


@contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """The file, with everything that can be wrong with it as a `UsageError`."""
    try:
        with open(path, "rb") as raw:
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                refuse(path, "the file holds a single array, not the arrays of an .npz file")
            with file:
                yield file
    except UsageError:
        raise
    except FileNotFoundError:
        refuse(path, "no such file")
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        refuse(path, f"the file cannot be read as .npz: {error}")


def _array(path: Path, file: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    try:
        return np.asarray(file[key])
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        refuse(
            path,
            f"{key} holds Python objects, which are not loaded: they can run code\n"
            f"  remedy  save it as an array of numbers, all images of one shape",
        )


def _keys(path: Path, file: np.lib.npyio.NpzFile) -> dict[str, tuple[str, str]]:
    """For every part of the data set its keys of (images, labels); without any word for a part all is training."""
    found: dict[tuple[str | None, str], list[str]] = {}
    for key in file.files:
        words = [word for word in re.split(r"[^a-z]+", key.lower()) if word]
        parts = [PART_OF[word] for word in words if word in PART_OF]
        kinds = ["images" if word in _IMAGES else "labels" for word in words if word in _IMAGES + _LABELS]
        if len(kinds) == 1 and len(parts) <= 1 and len(words) == 1 + len(parts):
            found.setdefault((parts[0] if parts else None, kinds[0]), []).append(key)
    named = {part for part, _ in found if part is not None}
    keys = {}
    for part in [part for part in PARTS if part in named] or (None,):
        chosen = []
        for kind in ("images", "labels"):
            several = found.get((part, kind), [])
            if len(several) > 1 and kind == "images":  # scikit-learn has the same images flat beside them
                several = [key for key in several if _array(path, file, key).ndim > 2]
            if len(several) > 1:
                refuse(path, f"{' and '.join(several)} both look like {kind}: leave one of them in the file")
            if not several:
                of = f" of the {part} part" if part else ""
                there = ", ".join(file.files) or "no arrays"
                refuse(path, f"the file has no {kind}{of}; it has {there}\n  remedy  name the arrays {KEYS}")
            chosen += several
        keys[part or TRAIN] = (chosen[0], chosen[1])
    return keys
