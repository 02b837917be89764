"""Layouts: how images lie in a user's arrays, how a network takes them, and what tells the two.

Bounds are about images `[C, *spatial]`, and a field runs over the spatial axes. Arrays may have the channels last or no
channel axis at all, and so may a network, which may also take a flat vector. Shapes alone do not tell: 32 x 32 x 3
fits a network that takes 32 x 32 x 3 whichever axis has the channels. `layouts` lists what fits, `settle` keeps what
is known to be meant, and refuses to guess.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from robnet_fx.errors import UsageError

__all__ = ["AXES", "FLATS", "Layout", "UnsettledLayout"]  # the rest serves the front end

Shape = tuple[int, ...]
"""Sizes without the batch."""

AXES = ("nchw", "nhwc", "nhw")
"""How images lie in an array: channels first, channels last, grey without a channel axis; of any number of spatial
axes, whatever the names say."""

FLATS = ("planes", "pixels")
"""The order of a flat network's input: one channel after the other, or all channels of a pixel together."""

CHANNELS_FIRST, CHANNELS_LAST, GREY, FLAT, FLAT_PIXELS = (
    "channels first",
    "channels last",
    "no channel axis",
    "flat",
    "flat, pixel by pixel",
)

_CHANNELS = (1, 3, 4)
_SMALLEST = 8  # pixels a side: a shorter vector is hardly an image
_MOST_SPATIAL = 3

Axis = tuple[int, int]
"""(size, stride): an axis of a network's input by where its numbers lie in a sample's flat order."""


class Evidence(NamedTuple):
    """What a network says of its input (`frontend/sliding_axes.py`): the axes that its layers slide over, and the axis
    that it takes as channels, by moving it where its layers have these."""

    slides: frozenset[Axis] = frozenset()
    channels: Axis | None = None


NO_EVIDENCE = Evidence()


@dataclass(frozen=True)
class Layout:
    """One way to understand images `given` and a network that takes `taken`: the images' `axes` (of `AXES`), what
    an image is, `(C, *spatial)` or `(n,)`, and the `way` the network takes it."""

    axes: str
    image: Shape
    way: str
    taken: Shape = field(compare=False)

    @property
    def given(self) -> Shape:
        """The shape of an image in the user's array."""
        channels, *spatial = self.image
        return {"nchw": self.image, "nhwc": (*spatial, channels), "nhw": tuple(spatial)}[self.axes]

    @property
    def order(self) -> str | None:
        """Of a flat network, the order (of `FLATS`) of the numbers of an image with several channels."""
        return {FLAT: "planes", FLAT_PIXELS: "pixels"}.get(self.way) if self.image[0] > 1 else None

    @property
    def as_given(self) -> bool:
        """Whether the network takes the user's array as it is."""
        return (self.axes, self.way) in {("nchw", CHANNELS_FIRST), ("nhwc", CHANNELS_LAST), ("nhw", GREY)}

    @property
    def likely(self) -> bool:
        """Whether an image has 1, 3 or 4 channels, and no axis of one pixel. With an axis put in nothing is counted."""
        channels, *spatial = self.image
        counted = self.axes != "nhw" and self.way != GREY
        return counted and channels in _CHANNELS and 1 not in spatial

    def contradicted(self, evidence: Evidence) -> bool:
        """Whether the network slides over what would be the channels."""
        low, high = self._channels
        return any(stride < high and low < size * stride for size, stride in evidence.slides)

    def confirmed(self, evidence: Evidence) -> bool:
        """Whether the network slides over all that would be space, one whole axis or several merged ones at a time, or
        moves what would be the channels."""
        if evidence.channels is not None:
            size, stride = evidence.channels
            return self._channels == (stride, stride * size)
        inner = self._channels[1] if self._channels[0] == 1 else 1
        ends = set(itertools.accumulate(reversed(self.image[1:]), operator.mul, initial=inner))
        whole = all({stride, stride * size} <= ends for size, stride in evidence.slides)
        covered = math.prod(size for size, _ in evidence.slides)
        return bool(evidence.slides) and whole and covered == math.prod(self.image[1:])

    @property
    def _channels(self) -> tuple[int, int]:
        """Where the channels' numbers lie in the network's input: from this stride to that."""
        if len(self.image) == 1:
            return self.image[0], self.image[0]
        channels, pixels = self.image[0], math.prod(self.image[1:])
        return (1, channels) if self.way in (CHANNELS_LAST, FLAT_PIXELS) else (pixels, pixels * channels)

    def __str__(self) -> str:
        """nchw images of 3 channels and 32 x 32 pixels, taken channels last"""
        channels, spatial = (1, self.image) if len(self.image) == 1 else (self.image[0], self.image[1:])
        pixels = " x ".join(map(str, spatial))
        return f"{self.axes} images of {channels} channel{'s' * (channels > 1)} and {pixels} pixels, taken {self.way}"


class UnsettledLayout(UsageError):
    """Several layouts fit, and nothing that is known tells which is meant."""

    def __init__(self, left: Sequence[Layout]) -> None:
        first = left[0]
        images = len({(layout.axes, layout.image) for layout in left}) > 1
        remedy = (
            f'say how the images lie in their array: --layout {"|".join(AXES)} (in Python layout="nchw")'
            if images
            else f'say in which order the network takes its numbers: --flat {"|".join(FLATS)} (in Python flat="planes")'
        )
        shown = {(layout.axes, layout.image) if images else layout: layout for layout in reversed(left)}
        lines = "".join(f"\n  either  {layout}" for layout in reversed(shown.values()))
        super().__init__(
            f"images {list(first.given)} fit a network that takes {list(first.taken)} in more than one way, and a "
            f"field would differ{lines}\n  remedy  {remedy}"
        )
        self.layouts = tuple(left)

    def with_channels(self, count: int | None) -> Layout | None:
        """The layout whose images have so many channels, where that settles it."""
        left = [layout for layout in self.layouts if count == layout.image[0]]
        return left[0] if len(left) == 1 else None


def layouts(given: Shape, taken: Shape) -> list[Layout]:
    """What images `given` may be to a network that takes `taken`, without the batch; empty where nothing fits."""
    return [layout for layout in candidates(given) if layout.taken == tuple(taken)]


def candidates(given: Shape) -> list[Layout]:
    """Everything that images `given` may be, to networks of any input."""
    return [Layout(axes, image, way, shape) for axes, image in understood(tuple(given)) for way, shape in ways(image)]


def understood(given: Shape) -> Iterator[tuple[str, Shape]]:
    """(axes, `(C, *spatial)`): what an array of images may hold."""
    yield "nchw", given
    if len(given) > 1:
        yield "nhwc", (given[-1], *given[:-1])
        if len(given) <= _MOST_SPATIAL and 1 not in given:  # an axis of one is the channels already
            yield "nhw", (1, *given)


def ways(image: Shape) -> list[tuple[str, Shape]]:
    """(way, the input of a network that takes images of a shape `(C, *spatial)` so), the likeliest first."""
    channels, *spatial = image
    found = [(CHANNELS_FIRST, image)]
    if spatial:
        numbers = math.prod(image)
        found += [(CHANNELS_LAST, (*spatial, channels)), (FLAT, (numbers,)), (FLAT, (numbers, 1))]
        if channels == 1:
            found += [(GREY, tuple(spatial))] if len(spatial) > 1 else []
        else:
            found += [(FLAT_PIXELS, (numbers,)), (FLAT_PIXELS, (numbers, 1))]
    return found


def assumed(taken: Shape, axes: str | None = None, evidence: Evidence = NO_EVIDENCE) -> list[Layout]:
    """What the images of a network that takes `taken` may be, where none is at hand: channels first, or by `axes`.

    A vector or a column is what the network makes of it before it slides over it, else a square of one or three
    channels where it has as many entries (no length allows both).
    """
    taken = tuple(taken)
    if len(taken) > 1 and taken[1:] != (1,):
        images = [taken, (taken[-1], *taken[:-1])] + [(1, *taken)] * (len(taken) <= _MOST_SPATIAL)
    else:
        images = _unflattened(taken[0], evidence.slides) or _squares(taken[0]) or [taken]
    return [
        Layout(axes or "nchw", image, way, taken)
        for image in dict.fromkeys(images)
        for way, shape in ways(image)
        if shape == taken and (axes != "nhw" or image[0] == 1)
    ]


def _unflattened(numbers: int, slides: frozenset[Axis]) -> list[Shape]:
    """`[(C, *spatial)]` where the axes that are slid over lie behind each other in a vector."""
    spatial = sorted(slides, key=lambda axis: -axis[1])
    behind = all(a[1] == b[0] * b[1] for a, b in itertools.pairwise(spatial))
    if not spatial or not behind:
        return []
    sizes = [size for size, _ in spatial]
    return [(numbers // math.prod(sizes), *sizes)]


def _squares(numbers: int) -> list[Shape]:
    sides = {channels: math.isqrt(numbers // channels) for channels in (1, 3)}
    return [(c, side, side) for c, side in sides.items() if side >= _SMALLEST and c * side**2 == numbers]


def settle(
    found: Sequence[Layout], axes: str | None = None, flat: str | None = None, evidence: Evidence = NO_EVIDENCE
) -> Layout:
    """The layout that is meant, by what is known: the user's word (`axes` of the images, `flat` order of the network's
    input), what the network's layers slide over, and a channel axis of 1, 3 or 4.

    What takes the user's array as it is goes before what does not, once the images are known.
    Raises `UnsettledLayout` where more than one is left, and `UsageError` where none is.
    """
    _check_words(axes, flat)
    left = [layout for layout in found if axes in (None, layout.axes)]
    if not left:
        raise UsageError(f"{_fit(found)}, and not as {axes}: leave out the layout, or say another")
    if flat is not None:
        orders = {"planes": FLAT, "pixels": FLAT_PIXELS}
        if not any(layout.way in orders.values() for layout in left):
            raise UsageError(
                "flat says the order of a flat network's input, and this network takes images: leave it out"
            )
        left = [r for r in left if r.way == orders[flat] or (r.way == FLAT and r.image[0] == 1)]  # grey has one order
    agreeing = [layout for layout in left if not layout.contradicted(evidence)]
    if not agreeing:
        sizes = " and ".join(str(size) for size, _ in sorted(evidence.slides, key=lambda axis: -axis[1]))
        raise UsageError(
            f"{_fit(left)}, but the network's own layers slide over axes of {sizes}, where the channels would be\n"
            "  remedy  give images as the network reads them, or say another layout"
        )
    confirmed = [layout for layout in agreeing if layout.confirmed(evidence)]
    likely = [layout for layout in confirmed or agreeing if layout.likely]
    left = likely or confirmed or left  # what only fails to be contradicted, and is not likely either, proves nothing
    if len({(layout.axes, layout.image) for layout in left}) == 1:
        left = [layout for layout in left if layout.as_given] or left
    if len({layout.way for layout in left}) > 1 or len({(r.axes, r.image) for r in left}) > 1:
        raise UnsettledLayout(left)
    return left[0]


def likely(taken: Shape) -> Layout:
    """How the images of a network that takes `taken` most likely are, by their sizes alone: to find data, never to
    bound with."""
    try:
        return settle(assumed(taken))
    except UnsettledLayout as error:
        return error.layouts[0]


def _check_words(axes: str | None, flat: str | None) -> None:
    for name, word, known in (("layout", axes, AXES), ("flat", flat, FLATS)):
        if word is not None and word not in known:
            raise UsageError(f"{name} must be one of {', '.join(known)}, not {word!r}")


def _fit(found: Sequence[Layout]) -> str:
    if not found:
        return "the images fit the network in no layout"
    return f"images {list(found[0].given)} fit the network as {' or '.join(dict.fromkeys(r.axes for r in found))}"


def axes_of(layout: str | Layout | None) -> str | None:
    """The axes of images, of a layout or of the word for them."""
    return layout.axes if isinstance(layout, Layout) else layout


def channels_first(images: Tensor, axes: str) -> Tensor:
    """Images `[B, *given]` of an array as `[B, C, *spatial]`, a view."""
    return {"nchw": lambda: images, "nhwc": lambda: images.movedim(-1, 1), "nhw": lambda: images.unsqueeze(1)}[axes]()


def arrange(images: Tensor, way: str, taken: Shape) -> Tensor:
    """Images `[B, C, *spatial]` as the network gets them, `[B, *taken]`."""
    if way == CHANNELS_FIRST:
        return images
    if way in (CHANNELS_LAST, FLAT_PIXELS):
        images = images.movedim(1, -1).contiguous()
    return images.reshape(-1, *taken)
