"""Data sets in folders of images, read one by one into one array."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robnet_fx.machine.progress import Progress
from robnet_fx.zoo.classes import list_images
from robnet_fx.zoo.dataset import Dataset, count_text, refuse, shape_text
from robnet_fx.zoo.picture import BadPicture, Header, read_header, read_picture
from robnet_fx.zoo.reading import Reading

_SHOWN = 20  # files that a message lists


def read_folder(root: Path, reading: Reading, shape: Sequence[int | None], progress: Progress) -> Dataset:
    """The data set in the images below `root`; classes are named by their folders.

    `shape` is `(C, *spatial)` of the network's images as far as it is known, else empty: it asks for grey (1) or colour
    (3), by default colour where an image has it, and gives the size that a message about mixed sizes names. Raises
    `UsageError`, with every image that cannot be taken.
    """
    reading.reject(root, layout="the axes of images in files are known; it is for the arrays of an .npz file")
    parts, classes, notes = list_images(root, reading)
    reader = _Reader(root, reading, progress)
    reader.scan([file for samples in parts.values() for file, _ in samples], shape)
    read = {
        part: (reader.read(part, [file for file, _ in samples]), torch.tensor([label for _, label in samples]))
        for part, samples in parts.items()
    }
    reader.refuse_bad()
    notes = (*reader.notes(), *notes)
    return Dataset.of(str(root), read, classes, notes=notes, resizable=True)


class _Reader:
    """Reads files of one size and kind, and remembers those that cannot be taken and what was done to the others."""

    def __init__(self, root: Path, reading: Reading, progress: Progress) -> None:
        self._root, self._reading, self._progress = root, reading, progress
        self._bad: dict[str, BadPicture] = {}
        self._done: Counter[str] = Counter()
        self._headers: dict[str, Header] = {}
        self._size, self._channels, self._deep, self._brightest = (1, 1), 1, False, 0.0

    def scan(self, files: list[str], shape: Sequence[int | None]) -> None:
        """Look at all headers, to settle the array that the images go into."""
        with self._progress.task("headers", len(files)) as task:
            for file in files:
                try:
                    self._headers[file] = read_header(file)
                except BadPicture as error:
                    self._bad[file] = error
                task.advance()
        channels = shape[0] if len(shape) > 1 else None
        if channels not in (None, 1, 3):
            refuse(self._root, f"images have 1 or 3 channels, the network takes {channels}")
        headers = self._headers.values()
        self._channels = channels or (3 if any(header.colours for header in headers) else 1)
        sizes = Counter(header.size for header in headers)
        if self._reading.resize is not None:
            self._size = self._reading.resize
        elif sizes:
            self._size = sizes.most_common(1)[0][0]
            if len(sizes) > 1:
                self._refuse_sizes(shape)
        depths = {header.bits: file for file, header in self._headers.items()}
        if self._reading.white is not None and len(depths) > 1:
            one, other = (f"{self._short(file)} has {bits}" for bits, file in sorted(depths.items())[:2])
            refuse(self._root, f"--white does not apply: {one} bits a channel, {other}")
        self._deep = self._reading.white not in (None, 255) or any(bits > 8 for bits in depths)

    def read(self, part: str, files: list[str]) -> Tensor:
        """The images `[N, C, H, W]`, uint8 or float32; zeros for the bad ones."""
        images = np.zeros((len(files), self._channels, *self._size), np.float32 if self._deep else np.uint8)
        with self._progress.task(f"read {part}", len(files)) as task:
            for number, file in enumerate(files):
                picture = self._picture(file)
                if picture is not None:
                    images[number] = picture.transpose(2, 0, 1)
                task.advance()
        return torch.from_numpy(images)

    def refuse_bad(self) -> None:
        """`UsageError` with every image that could not be taken."""
        if not self._bad:
            return
        count = len(self._headers.keys() | self._bad.keys())
        lines = [f"  {self._short(file)}  {error.reason}" for file, error in sorted(self._bad.items())]
        more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        remedies = [f"  remedy  {remedy}" for remedy in dict.fromkeys(error.remedy for error in self._bad.values())]
        headline = f"{len(self._bad)} of {count} images cannot be taken"
        refuse(self._root, "\n".join([headline, *lines[:_SHOWN], *more, *remedies]))

    def notes(self) -> list[str]:
        """What was done, for people."""
        total = len(self._headers)
        several = {
            text: "" if count == total else f" ({count_text(count, 'image')})" for text, count in self._done.items()
        }
        notes = [*self._scales(), *(text + count for text, count in sorted(several.items()))]
        if self._reading.resize is not None:
            notes.append(f"resized to {shape_text(self._reading.resize)}")
        return notes

    def _scales(self) -> list[str]:
        white = self._reading.white
        if white is not None:
            return [f"pixels as v/{white:g}"]
        depths = sorted({header.bits for header in self._headers.values()})
        if depths in ([], [8]):
            return []
        names = {8: "8-bit as v/255", 12: "12-bit grey as v/4095", 16: "16-bit grey as v/65535", 32: "floats in 0..1"}
        texts = [names[bits] for bits in depths]
        if depths == [16] and self._brightest < 1 / 4:
            texts[0] += f", none above {self._brightest * 65535:.0f} (--white N if white is less)"
        return texts

    def _picture(self, file: str) -> np.ndarray | None:
        if file in self._bad:
            return None
        try:
            pixels, done = read_picture(file, self._channels, self._reading.resize, self._reading.white)
        except BadPicture as error:
            self._bad[file] = error
            return None
        self._done.update(done)
        if self._deep:
            pixels = pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels
            self._brightest = max(self._brightest, float(pixels.max()))
        return pixels

    def _refuse_sizes(self, shape: Sequence[int | None]) -> None:
        """Name two files of different sizes; where some are damaged, those are named."""
        usual = next(file for file, header in self._headers.items() if header.size == self._size)
        odd = [file for file, header in self._headers.items() if header.size != self._size]
        for file in odd[:_SHOWN]:
            self._picture(file)
        if self._bad:
            for file in self._headers:
                self._picture(file)
            self.refuse_bad()
        one, other = (f"{self._short(file)} is {shape_text(self._headers[file].size)}" for file in (usual, odd[0]))
        wanted = [size for size in shape[1:] if size]
        size = wanted if len(wanted) == 2 else self._size
        refuse(
            self._root,
            f"images have several sizes: {one} (height x width), {other}\n"
            f"  remedy  --resize {shape_text(size)} makes them one size, stretching them where it must",
        )

    def _short(self, file: str) -> str:
        return os.path.relpath(file, self._root)
