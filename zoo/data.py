"""Data sets behind one interface, `Dataset`, whether they have a name, are a folder of images or an .npz file.

`load` takes what `--data` takes. Everything wrong with one is a `UsageError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from robnet_fx.errors import UsageError
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.zoo.dataset import Dataset, shape_text
from robnet_fx.zoo.folder import read_folder
from robnet_fx.zoo.named import NAMED
from robnet_fx.zoo.npz import KEYS, read_npz
from robnet_fx.zoo.reading import AS_STORED, Reading

__all__ = ["AS_STORED", "METADATA_KEY", "Dataset", "Reading", "find", "load"]

METADATA_KEY = "robnet_fx.data"
"""The key in an ONNX file's metadata that names its data set."""

_FORMS = (
    f"--data takes {', '.join(NAMED)}, a folder with train/<class>/ and test/<class>/ images (or <class>/ ones and "
    f"--test-share), or an .npz file with images and labels ({KEYS})"
)


def load(
    spec: str,
    reading: Reading = AS_STORED,
    *,
    shape: Sequence[int | None] = (),
    classes: int | None = None,
    progress: Progress = SILENT,
) -> Dataset:
    """The data set that `spec` names: digits, cifar10, mnist, a folder of images or an .npz file.

    `reading` says what files leave open. What is known of the network settles the rest: the likely `shape`
    `(C, *spatial)` of its images (grey or colour, which a folder is read as) and how many `classes` it has (labels 1..K
    of K are taken as 0..K-1). The images of an .npz file keep their axes until `Dataset.channels_first` is told them.
    cifar10 and mnist are downloaded when they are not in the cache (`ROBNET_FX_CACHE`, by default ~/.cache/robnet-fx).
    Raises `UsageError`.
    """
    if spec in NAMED:
        fixed = f"it is for folders and .npz files, and {spec} is what it is"
        reading.reject(spec, resize=fixed, white=fixed, test_share=fixed, layout=fixed)
        return NAMED[spec]()
    path = Path(spec).expanduser()
    if path.is_dir():
        return read_folder(path, reading, shape, progress)
    if path.suffix.lower() == ".npz":
        return read_npz(path, reading, classes)
    raise UsageError(f"unknown data set {spec!r}: no such name, folder or .npz file\n  remedy  {_FORMS}")


def there(spec: str | None) -> bool:
    """Whether `load` finds the data set that `spec` names; None names none."""
    return spec is None or spec in NAMED or Path(spec).expanduser().exists()


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
            f"no data set is known for {shape_text(input_shape)} inputs and {classes} classes\n  remedy  {_FORMS}"
        )
    return spec
