"""Data sets that are known by name: digits comes with scikit-learn, cifar10 and mnist are downloaded once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robnet_fx.errors import UsageError
from robnet_fx.zoo.dataset import Dataset
from robnet_fx.zoo.split import stratified

CACHE_VARIABLE = "ROBNET_FX_CACHE"
"""The environment variable naming the folder of downloaded data sets."""


def _digits() -> Dataset:
    """scikit-learn's 1,797 real 8x8 digits, 0..16 stretched to 0..255; 30 % of every class is the test part."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    train, test = stratified(labels, share=0.3, seed=0)
    names = tuple(str(name) for name in digits.target_names)
    return Dataset("digits", images[train], labels[train], images[test], labels[test], names)


def _cifar10() -> Dataset:
    from torchvision.datasets import CIFAR10

    train, test = (_download("cifar10", CIFAR10, train=part) for part in (True, False))
    images = [torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in (train, test)]
    labels = [torch.tensor(part.targets) for part in (train, test)]
    return Dataset("cifar10", images[0], labels[0], images[1], labels[1], tuple(train.classes))


def _mnist() -> Dataset:
    from torchvision.datasets import MNIST

    train, test = (_download("mnist", MNIST, train=part) for part in (True, False))
    names = tuple(str(digit) for digit in range(10))
    return Dataset("mnist", train.data.unsqueeze(1), train.targets, test.data.unsqueeze(1), test.targets, names)


NAMED: dict[str, Callable[[], Dataset]] = {"digits": _digits, "cifar10": _cifar10, "mnist": _mnist}
"""What makes each data set that has a name."""


def _download(name: str, source: Callable[..., Any], *, train: bool) -> Any:
    """The torchvision data set from the cache folder, downloaded into it first where it is not there."""
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "robnet-fx"
    root = Path(os.environ.get(CACHE_VARIABLE, default)).expanduser()
    try:
        with contextlib.suppress(RuntimeError):  # torchvision's word for "not there"
            return source(root, train=train, download=False)
        return source(root, train=train, download=True)
    except (OSError, RuntimeError) as error:  # no network is an OSError too
        reason = str(error).strip().splitlines()[-1]
        raise UsageError(
            f"data set {name}: not in {root} and could not be downloaded: {reason}\n"
            f"  remedy  connect to the network, or give the images as a folder or an .npz file with --data"
        ) from error
