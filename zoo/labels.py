"""Labels as people store them, as int64 `[N]` from 0."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robnet_fx.zoo.dataset import refuse

_MOST = 2**16  # a larger number is no class


def to_labels(
    name: str | Path, arrays: Mapping[str, np.ndarray], classes: int | None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """(int64 `[N]` arrays, notes), from whole numbers of any type, `[N]` or `[N, 1]`, or one-hot `[N, K]`.

    `classes` is how many logits the network has, where it is known: labels 1..K then are taken as 0..K-1 if it has K.
    Raises `UsageError` for anything else, naming the array and what it holds.
    """
    labels = {key: _whole(name, key, array) for key, array in arrays.items()}
    notes = []
    hot = [key for key, array in arrays.items() if labels[key].size != array.size]
    if hot:
        if len(hot) < len(arrays) or len({arrays[key].shape[1] for key in hot}) > 1:
            found = ", ".join(f"{key} {list(array.shape)}" for key, array in arrays.items())
            refuse(name, f"labels must be stored alike: {found}")
        notes.append("one-hot labels")
    low, high = (int(end(end(array) for array in labels.values() if array.size)) for end in (min, max))
    if classes is not None and not hot and low == 1 and high == classes:
        notes.append(f"labels 1..{high} taken as 0..{high - 1}")
        labels = {key: array - 1 for key, array in labels.items()}
    elif low < 0:
        refuse(name, f"labels run from {low} to {high}\n  remedy  number the classes from 0")
    elif high >= (_MOST if classes is None else classes):
        kinds = len(np.unique(np.concatenate(list(labels.values()))))
        network = "" if classes is None else f", the network has {classes} classes"
        refuse(name, f"labels run from {low} to {high} ({kinds} different ones){network}")
    return labels, tuple(notes)


def _whole(name: str | Path, key: str, array: np.ndarray) -> np.ndarray:
    """One array as int64 `[N]`."""
    if array.dtype.kind not in "biuf":
        refuse(
            name,
            f"{key} must hold whole numbers, is {array.dtype}\n"
            f"  remedy  number the classes from 0: np.unique(labels, return_inverse=True)[1]",
        )
    if not array.size:
        refuse(name, f"{key} holds no labels")
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and bool((np.rint(array) == array).all())):
        refuse(name, f"{key} must hold whole numbers, is {array.dtype} from {array.min():.4g} to {array.max():.4g}")
    if abs(float(array.max())) >= 2**31 or abs(float(array.min())) >= 2**31:
        refuse(name, f"{key} runs from {array.min()} to {array.max()}: these number no classes")
    array = array.astype(np.int64)
    if array.ndim >= 1 and array.size == len(array):
        return array.reshape(-1)
    if array.ndim != 2:
        refuse(name, f"{key} must be [N], [N, 1] or one-hot [N, classes], is {list(array.shape)}")
    if not (bool(((array == 0) | (array == 1)).all()) and bool((array.sum(1) == 1).all())):
        row = int(np.argmax((array.sum(1) != 1) | ((array != 0) & (array != 1)).any(1)))
        refuse(
            name,
            f"{key} is {list(array.shape)} and not one-hot: its row {row} is {array[row].tolist()[:16]}. "
            "One label an image is needed",
        )
    return array.argmax(1)
