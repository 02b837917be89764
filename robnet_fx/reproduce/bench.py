"""What all cells of a table share: images, settings, and a folder for what is found.

<cell>.json               the record of a cell that is done
<network>.onnx            a trained network, and
<network>.training.json   how it was trained, with the figures of every epoch
work/<network>/           its checkpoint, while it is trained
work/<cell>/              answers so far, while a cell is judged
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from robnet_fx.errors import RobnetError, UsageError
from robnet_fx.images.copies import distances
from robnet_fx.images.pixels import subset
from robnet_fx.machine import ranks
from robnet_fx.machine.device import choose_device
from robnet_fx.machine.precision import check_precision
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.opening.opened import Opened, open_model
from robnet_fx.zoo.data import METADATA_KEY, Dataset, Reading, load
from robnet_fx.zoo.models import architecture, fresh
from robnet_fx.zoo.tables import EPOCHS, NEAR, Cell


@dataclass(frozen=True)
class Settings:
    """What a person says of all cells.

    scale: of the paper's epochs, in (0, 1]. boxes: parts of the box that the answer about an image may take.
    test_limit: a fixed random choice of so many test images, all if None. seed: of first weights, batches and
    validation images. precision: of training steps (`machine.precision`). Raises `UsageError` for what makes no sense.
    """

    scale: float = 1.0
    boxes: int = 64
    test_limit: int | None = None
    seed: int = 0
    precision: str = "tf32"
    device: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be before any work."""
        if not 0 < self.scale <= 1:
            raise UsageError(f"--scale is a share of the paper's epochs, above 0 and at most 1, not {self.scale:g}")
        if self.boxes < 1:
            raise UsageError(f"--boxes must be at least 1, not {self.boxes}")
        if self.test_limit is not None and self.test_limit < 1:
            raise UsageError(f"--test-limit must be at least 1, not {self.test_limit}")
        check_precision(self.precision)
        choose_device(self.device)

    @property
    def epochs(self) -> int:
        """Of standard training, and of robust training."""
        return max(1, round(EPOCHS * self.scale))


@dataclass(frozen=True)
class Bench:
    """`data` has its images channels first; `reading` says how it was read."""

    folder: Path
    data: Dataset
    reading: Reading
    settings: Settings
    progress: Progress = SILENT

    def network(self, cell: Cell) -> Path:
        """Where the trained network of a cell is."""
        return self.folder / f"{cell.trained}.onnx"

    def result(self, cell: Cell) -> Path:
        """Where the record of a cell is."""
        return self.folder / f"{cell.name}.json"

    def training(self, cell: Cell) -> Path:
        """Where it is written how that was trained."""
        return self.folder / f"{cell.trained}.training.json"

    def work(self, name: str) -> Path:
        """A folder, made where there is none, for what is not done."""
        return make_folder(self.folder / "work" / name)

    def finished(self, name: str) -> None:
        """Remove the folder of work that is done."""
        ranks.by_leader(lambda: shutil.rmtree(self.folder / "work" / name, ignore_errors=True))

    def opened(self, cell: Cell, start: Path | None) -> Opened:
        """The network in a file, or with fresh weights, and the images."""
        model = fresh(cell.network, self.settings.seed) if start is None else start
        return open_model(model, self.data, device=self.settings.device)

    def test(self) -> tuple[Tensor, Tensor, Tensor]:
        """(their numbers in the test set, images, labels) of the test images that judge."""
        index = subset(len(self.data.x_test), self.settings.test_limit)
        return index, self.data.x_test[index], self.data.y_test[index]

    @property
    def remembered(self) -> dict[str, str]:
        """What a written file says of its data."""
        return {METADATA_KEY: self.data.name, **self.reading.metadata()}

    @cached_property
    def copied(self) -> Tensor:
        """`bool [N]`: test images that have a near copy among the training images."""
        return distances(self.data.x_test, self.data.x_train, self.progress) < NEAR


def open_bench(
    cell: Cell, spec: str, reading: Reading, settings: Settings, folder: Path, progress: Progress = SILENT
) -> tuple[Bench, Opened]:
    """The bench for a cell's data set, which `spec` names as `zoo.data.load` takes it, and its network with fresh
    weights. Images of a folder come to the network's size where nothing else is said. Raises `UsageError`."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"cannot write into {folder}: it is no folder")
    entry = architecture(cell.network)
    if Path(spec).expanduser().is_dir() and reading.resize is None:
        reading = replace(reading, resize=(entry.input_shape[1], entry.input_shape[2]))
    data = ranks.leader_first(
        lambda: load(spec, reading, shape=entry.input_shape, classes=entry.classes, progress=progress)
    )
    data.check_fit(entry.input_shape, entry.classes)
    opened = open_model(
        fresh(cell.network, settings.seed), data, layout=data.axes or reading.layout, device=settings.device
    )
    data = data.channels_first(opened.axes)
    return Bench(make_folder(folder), data, reading, settings, progress), opened


def make_folder(path: Path) -> Path:
    """The folder, with those around it. Raises `RobnetError`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RobnetError(f"cannot make the folder {path}: {error.strerror or error}") from error
    return path
