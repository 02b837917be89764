"""Data sets behind one interface: uint8 images `[N, C, *spatial]` and int64 labels, split into train and test.

`load` takes what `--data` takes: a known name, a folder of images or an .npz file. Everything wrong with one is a
`UsageError`.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robnet_fx.errors import UsageError
from robnet_fx.files import sha256_of_tensors
from robnet_fx.images import check
from robnet_fx.layout import readings

METADATA_KEY = "robnet_fx.data"
"""The key in an ONNX file's metadata that names its data set."""

CACHE_VARIABLE = "ROBNET_FX_CACHE"
"""The environment variable naming the folder of downloaded data sets."""

_FORMS = (
    "--data takes digits, cifar10, mnist, a folder with train/<class>/ and test/<class>/ images, "
    "or an .npz file with x_train, y_train, x_test, y_test (uint8 [N, C, H, W], int64)"
)


Samples = tuple[Tensor, Tensor]
"""Images uint8 `[N, C, *spatial]` and labels int64 `[N]`."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification data set in memory; labels index `classes`."""

    name: str
    x_train: Tensor  # uint8 [N, C, *spatial]
    y_train: Tensor  # int64 [N]
    x_test: Tensor
    y_test: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse anything but uint8 images and int64 labels in range, of one image shape."""
        parts = (("train", self.x_train, self.y_train), ("test", self.x_test, self.y_test))
        for part, images, labels in parts:
            if images.dtype != torch.uint8 or not 3 <= images.dim() <= 5:
                _refuse(self.name, f"x_{part} must be uint8 [N, C, H, W], is {images.dtype} {list(images.shape)}")
            if labels.dtype != torch.int64:
                _refuse(self.name, f"y_{part} must be int64 [N], is {labels.dtype}")
            try:
                check(images, labels, len(self.classes))
            except UsageError as error:
                _refuse(self.name, f"{part}: {error}")
        if self.x_train.shape[1:] != self.x_test.shape[1:]:
            train, test = _shape(self.x_train.shape[1:]), _shape(self.x_test.shape[1:])
            _refuse(self.name, f"train images are {train}, test images {test}")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one image, `(C, *spatial)`."""
        return tuple(self.x_train.shape[1:])

    def check_fit(self, input_shape: Sequence[int], classes: int) -> None:
        """Refuse a network whose input (without batch) takes the images in no layout or that has too few logits."""
        if not readings(self.input_shape, tuple(input_shape)):
            _refuse(self.name, f"images are {_shape(self.input_shape)}, the network takes {_shape(input_shape)}")
        if len(self.classes) > classes:
            _refuse(self.name, f"there are {len(self.classes)} classes, the network has {classes}")

    @cached_property
    def sha256(self) -> str:
        """The digest of the content: pixels and labels of both parts, not names."""
        arrays = {"x_train": self.x_train, "y_train": self.y_train, "x_test": self.x_test, "y_test": self.y_test}
        return sha256_of_tensors(arrays)


def load(spec: str, channels: int | None = None) -> Dataset:
    """The data set that `spec` names: digits, cifar10, mnist, a folder of images or an .npz file.

    `channels` asks a folder of images for gray (1) or colour (3); by default it is that of its first training image.
    cifar10 and mnist are downloaded when they are not in the cache (`ROBNET_FX_CACHE`, by default ~/.cache/robnet-fx).
    """
    if spec in _NAMED:
        return _NAMED[spec]()
    path = Path(spec).expanduser()
    if path.is_dir():
        return _folder(path, channels)
    if path.suffix == ".npz":
        return _npz(path)
    raise UsageError(f"unknown data set {spec!r}: no such name, folder or .npz file\n  remedy  {_FORMS}")


def find(input_shape: Sequence[int], classes: int, metadata: Mapping[str, str]) -> str:
    """The data set a model is for: what its metadata says, else what its input (without batch) and classes suggest."""
    if METADATA_KEY in metadata:
        return metadata[METADATA_KEY]
    known: dict[tuple[tuple[int, ...], int], str] = {
        ((1, 8, 8), 10): "digits",
        ((3, 32, 32), 10): "cifar10",
        ((1, 28, 28), 10): "mnist",
    }
    spec = known.get((tuple(input_shape), classes))
    if spec is None:
        raise UsageError(
            f"no data set is known for {_shape(input_shape)} inputs and {classes} classes\n  remedy  {_FORMS}"
        )
    return spec


def split(dataset: Dataset, fraction: float, seed: int) -> tuple[Samples, Samples]:
    """The training part as `(train, validation)` samples: a random `fraction` of every class is set aside.

    What is chosen while training is chosen on the validation samples; the test part selects nothing.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"the validation fraction must be between 0 and 1, is {fraction:g}")
    train, validation = (
        (dataset.x_train[part], dataset.y_train[part]) for part in _stratified(dataset.y_train, fraction, seed)
    )
    return train, validation


def _stratified(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Sorted indices of the rest and of a random `fraction` (rounded) of every class."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        chosen[members[order[: round(fraction * len(members))]]] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()


def _digits() -> Dataset:
    """scikit-learn's 1,797 real 8x8 digits, 0..16 stretched to 0..255; 30 % of every class is the test part."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    train, test = _stratified(labels, fraction=0.3, seed=0)
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


_NAMED: dict[str, Callable[[], Dataset]] = {"digits": _digits, "cifar10": _cifar10, "mnist": _mnist}


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


def _folder(root: Path, channels: int | None) -> Dataset:
    """Images in `root/train/<class>/` and `root/test/<class>/`, all of one size."""
    from torchvision.datasets import ImageFolder

    parts = []
    for part in ("train", "test"):
        if not (root / part).is_dir():
            raise UsageError(f"data set {root}: it has no {part}/ folder\n  remedy  {_FORMS}")
        try:
            parts.append(ImageFolder(str(root / part)))
        except FileNotFoundError as error:  # no classes, or a class without images
            _refuse(root, str(error))
    train, test = parts
    if train.classes != test.classes:
        _refuse(root, f"train/ has the classes {', '.join(train.classes)}, test/ {', '.join(test.classes)}")
    first = train.samples[0][0]
    with _open_image(root, first) as image:
        size, colours = image.size, 1 if image.mode in ("1", "L") else 3
    channels = channels or colours
    if channels not in (1, 3):
        _refuse(root, f"images have 1 or 3 channels, the network takes {channels}")

    def read(file: str) -> Tensor:
        with _open_image(root, file) as image:
            if image.size != size:
                _refuse(root, f"{file} is {_shape(image.size)} pixels, {first} {_shape(size)}: one size is needed")
            pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
        return torch.from_numpy(pixels).view(*pixels.shape[:2], channels).permute(2, 0, 1)

    images = [torch.stack([read(file) for file, _ in part.samples]) for part in parts]
    labels = [torch.tensor(part.targets) for part in parts]
    return Dataset(str(root), images[0], labels[0], images[1], labels[1], tuple(train.classes))


@contextlib.contextmanager
def _open_image(root: Path, file: str) -> Iterator[Image.Image]:
    """The decoded image in `file`, eight bits a channel."""
    try:
        with Image.open(file) as image:
            image.load()
            if image.mode[0] in "IF":
                _refuse(root, f"{file} has more than eight bits a channel")
            yield image
    except OSError as error:
        _refuse(root, f"{file} cannot be read as an image: {error}")


def _npz(path: Path) -> Dataset:
    """The four arrays of an .npz file; classes are named by their numbers, up to the largest label."""
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            missing = [key for key in keys if key not in file]
            if missing:
                _refuse(path, f"the file has no {', '.join(missing)}")
            arrays = [file[key] for key in keys]
    except FileNotFoundError:
        _refuse(path, "no such file")
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, UsageError):
            raise
        _refuse(path, f"the file cannot be read as .npz: {error}")
    for key, array in zip(keys, arrays, strict=True):
        if array.dtype != (np.uint8 if key[0] == "x" else np.int64):
            _refuse(path, f"{key} must be {'uint8' if key[0] == 'x' else 'int64'}, is {array.dtype}")
    x_train, y_train, x_test, y_test = (torch.from_numpy(array) for array in arrays)
    largest = max((int(labels.max()) for labels in (y_train, y_test) if labels.numel()), default=-1)
    names = tuple(str(label) for label in range(largest + 1))
    return Dataset(str(path), x_train, y_train, x_test, y_test, names)


def _shape(sizes: Sequence[int]) -> str:
    return "x".join(str(size) for size in sizes)


def _refuse(name: str | Path, message: str) -> NoReturn:
    raise UsageError(f"data set {name}: {message}")
