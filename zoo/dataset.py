"""What a data set is, wherever it came from: images and labels in memory, in two or three parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from robnet_fx.errors import UsageError
from robnet_fx.images.layout import AXES, channels_first, layouts, likely
from robnet_fx.images.pixels import check
from robnet_fx.machine.files import sha256_of_tensors

Samples = tuple[Tensor, Tensor]
"""Images `[N, ...]` and labels int64 `[N]`."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification data set in memory; labels index `classes`.

    Images are uint8, or float in [0, 1]. `axes` is "nchw" where they are `[N, C, *spatial]`, and None where they are
    `[N, *sizes]` with two to four sizes of which nobody has said yet what they are: see `channels_first`. `x_val` and
    `y_val`, where the source has them, are for what is chosen while training. `notes` say how the source was read.
    """

    name: str
    x_train: Tensor
    y_train: Tensor  # int64 [N]
    x_test: Tensor
    y_test: Tensor
    classes: tuple[str, ...]
    x_val: Tensor | None = None
    y_val: Tensor | None = None
    axes: str | None = "nchw"
    notes: tuple[str, ...] = ()
    resizable: bool = False  # --resize applies: the images come from a folder

    def __post_init__(self) -> None:
        """Refuse anything but images and int64 labels in range, of one image shape and one dtype."""
        if self.axes not in ("nchw", None):
            raise ValueError(f"a Dataset has its channels first or unknown axes, not {self.axes!r}")
        sizes = "[N, C, H, W]" if self.axes else "[N, *sizes] with two to four sizes"
        for part, (images, labels) in self.parts.items():
            floating = images.dtype == torch.uint8 or images.is_floating_point()
            if not floating or not 3 <= images.dim() <= 5:
                is_now = f"{images.dtype} {list(images.shape)}"
                refuse(self.name, f"x_{part} must be uint8 or float in [0, 1], {sizes}, is {is_now}")
            if labels.dtype != torch.int64:
                refuse(self.name, f"y_{part} must be int64 [N], is {labels.dtype}")
            try:
                check(images, labels, len(self.classes))
            except UsageError as error:
                refuse(self.name, f"{part}: {error}")
            if images.shape[1:] != self.x_train.shape[1:]:
                one, other = shape_text(self.x_train.shape[1:]), shape_text(images.shape[1:])
                refuse(self.name, f"train images are {one}, {part} images {other}")
            if images.dtype != self.x_train.dtype:
                refuse(self.name, f"train images are {self.x_train.dtype}, {part} images {images.dtype}")

    @classmethod
    def of(
        cls,
        name: str,
        parts: Mapping[str, Samples],
        classes: tuple[str, ...],
        *,
        axes: str | None = "nchw",
        notes: Iterable[str] = (),
        resizable: bool = False,
    ) -> Dataset:
        """The data set of the `parts` "train" and "test", and perhaps "val"."""
        x_val, y_val = parts.get("val", (None, None))
        both = (*parts["train"], *parts["test"])
        return cls(name, *both, classes, x_val, y_val, axes=axes, notes=tuple(notes), resizable=resizable)

    @property
    def parts(self) -> dict[str, Samples]:
        """The parts there are, "train", "val" and "test"."""
        parts = {"train": (self.x_train, self.y_train)}
        if self.x_val is not None and self.y_val is not None:
            parts["val"] = (self.x_val, self.y_val)
        return {**parts, "test": (self.x_test, self.y_test)}

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of one image as the source has them, whatever they mean."""
        return tuple(self.x_train.shape[1:])

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one image, `(C, *spatial)`; `UsageError` where the axes are not known."""
        if self.axes is None:
            refuse(self.name, f"images are {shape_text(self.sizes)}, in unknown order: channels_first(...) settles it")
        return self.sizes

    def channels_first(self, axes: str) -> Dataset:
        """The same data as `[N, C, *spatial]`, where `axes` says what the sizes are.

        "nchw": channels first, as it is; "nhwc": channels last; "nhw": none, the images are grey. With one or three
        spatial axes the names are the same. Images whose axes are known can only be "nchw".
        """
        if axes not in AXES or (self.axes is not None and axes != self.axes):
            refuse(self.name, f"images {shape_text(self.sizes)} are not {axes!r}; known orders: {', '.join(AXES)}")
        if axes == self.axes:
            return self
        images = {f"x_{part}": channels_first(images, axes).contiguous() for part, (images, _) in self.parts.items()}
        said = {"nchw": (), "nhwc": ("channels last",), "nhw": ("grey, without a channel axis",)}[axes]
        return replace(self, axes="nchw", notes=(*said, *self.notes), **images)  # type: ignore[arg-type]

    def check_fit(self, input_shape: Sequence[int], classes: int) -> None:
        """Refuse a network whose input (without batch) takes the images in no layout or that has too few logits."""
        taken = tuple(input_shape)
        if not layouts(self.sizes, taken):
            size = likely(taken).image[1:]
            remedy = f"\n  remedy  --resize {shape_text(size)}" if self.resizable and len(size) == 2 else ""
            refuse(self.name, f"images are {shape_text(self.sizes)}, the network takes {shape_text(taken)}{remedy}")
        if len(self.classes) > classes:
            refuse(self.name, f"there are {len(self.classes)} classes, the network has {classes}")

    @cached_property
    def sha256(self) -> str:
        """The digest of the content: pixels and labels of all parts, not names."""
        return sha256_of_tensors(
            {
                f"{axis}_{part}": tensor
                for part, pair in self.parts.items()
                for axis, tensor in zip("xy", pair, strict=True)
            }
        )


def shape_text(sizes: Sequence[int]) -> str:
    """Sizes as people write them: 3x32x32."""
    return "x".join(str(size) for size in sizes)


def count_text(count: int, what: str) -> str:
    """A number of things: 1 file, 2 files."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def refuse(name: str | Path, message: str) -> NoReturn:
    """Raise `UsageError` about a data set."""
    raise UsageError(f"data set {name}: {message}")
