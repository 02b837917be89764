"""The arguments that commands share, and how their texts are read."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robnet_fx.cli.errors import warn
from robnet_fx.errors import UsageError

if TYPE_CHECKING:
    from robnet_fx.zoo.reading import Reading

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="A classifier as an ONNX file.", show_default=False)]
Eps = Annotated[
    str,
    typer.Option(
        metavar="EPS",
        help="Strength of the field in pixel levels: 40 is 40/255. Or a fraction (40/255), or per cent (15.7%).",
        show_default=False,
    ),
]
Order = Annotated[int, typer.Option(help="Order of the bias field; 0 is contrast.")]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DATA",
        help="digits, cifar10, mnist, a folder with train/ and test/ (and val/) images, or an .npz file. "
        "By default what the model's metadata or its input and class shape suggest.",
        show_default=False,
    ),
]
Resize = Annotated[
    str | None,
    typer.Option(metavar="HxW", help="Bring the images of a folder to one size, such as 128x128.", show_default=False),
]
White = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        help="The number that stands for white: pixels are v/N.",
        show_default="what the files' type says: 255, 65535, or 1 for floats",
    ),
]
TestShare = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Set this share of every class aside, by --seed, as the test images of data without any: 0.2.",
        show_default=False,
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        metavar="AXES",
        help="How images lie in an .npz file: nchw (channels first), nhwc (last) or nhw (grey, no channel axis).",
        show_default="what their sizes, the network and its accuracy tell",
    ),
]
Flat = Annotated[
    str | None,
    typer.Option(
        metavar="ORDER",
        help="The order of a flat network's input: planes (one channel after the other) or pixels.",
        show_default="what the network and its accuracy tell",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The output that holds the logits, or a tensor inside the network, by its name in the file. "
        "By default what the model's metadata say, else the only output that can be logits.",
        show_default=False,
    ),
]
Method = Annotated[
    str, typer.Option(help="Bounds: ibp, ssip, rsip-ibp, rsip-ssip, or, slow and tighter, rsip-anchored and rsip.")
]
Clip = Annotated[str, typer.Option(help="Form of the pixel clip: relu (the paper's), clamp or none.")]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS",
        help="The model expects (pixels in 0..1 - mean) / std: one number, or one a channel (0.485,0.456,0.406). "
        "By default what the model's metadata say, else no normalisation.",
        show_default=False,
    ),
]
Std = Annotated[str | None, typer.Option(metavar="NUMBERS", help="See --mean.", show_default=False)]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", help="Use N test images (always the same random ones).", show_default="all"),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Device = Annotated[
    str | None, typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:1.", show_default="cuda if there is one")
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Memory a training step may take, as 8GB or 500MB: large batches are then bounded in parts.",
        show_default="all that is free",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else.")]
Out = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the JSON document to FILE too.", show_default=False)
]

_LEVELS = 255
_SUSPICIOUS = 0.5  # a bare number below this is more likely meant as a share of the pixel range


def read_eps(text: str) -> float:
    """eps as the plain number in [0, 1] that the library takes; a bare number counts pixel levels."""
    scale, bare = 1 / _LEVELS, True
    number, divisor = text.strip(), "1"
    if number.endswith("%"):
        number, scale, bare = number[:-1], 0.01, False
    elif "/" in number:
        number, divisor = number.split("/", 1)
        scale, bare = 1.0, False
    try:
        value = float(number) / float(divisor)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if math.isnan(value):
        raise UsageError(f"--eps takes pixel levels (40), a fraction (40/255) or per cent (15.7%), not {text!r}")
    if not 0 <= value * scale <= 1:
        raise UsageError(f"--eps must lie between 0 and 255 pixel levels (0 % and 100 %), not {text}")
    if bare and 0 < value < _SUSPICIOUS:
        warn(
            f"--eps {text} is {text} of 255 pixel levels; did you mean {value * _LEVELS:.4g} levels "
            f"(--eps {value * 100:.4g}%)?"
        )
    return value * scale


@dataclass(frozen=True)
class Opening:
    """What a command opens, as it was asked: the model, its data set and how to read that, what stands between images
    and network, and where to compute."""

    model: Path
    data: str | None
    reading: Reading
    mean: str | None
    std: str | None
    output: str | None
    flat: str | None
    device: str | None


def read_reading(
    resize: str | None, white: float | None, test_share: float | None, layout: str | None, seed: int = 0
) -> Reading:
    """The options about reading data, as the library takes them."""
    from robnet_fx.zoo.reading import Reading

    size = None
    if resize is not None:
        match = re.fullmatch(r"\s*(\d+)\s*[x×]\s*(\d+)\s*", resize, re.IGNORECASE)
        if match is None:
            raise UsageError(f"--resize takes height x width, such as 128x128, not {resize!r}")
        size = int(match[1]), int(match[2])
    return Reading(size, white, test_share, seed, layout)


def read_memory(text: str) -> int:
    """Bytes, from a number with MB, GB or TB behind it."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*([MGT])i?B?\s*", text, re.IGNORECASE)
    try:
        value = float(match[1]) if match else 0.0
    except ValueError:
        value = 0.0
    if not match or value <= 0:
        raise UsageError(f"--memory takes a size such as 8GB or 500MB, not {text!r}")
    return int(value * 2 ** {"M": 20, "G": 30, "T": 40}[match[2].upper()])


def read_clip(text: str) -> str | None:
    """The library's name of a clip; the library refuses what it does not know."""
    return None if text == "none" else text
