"""One image file: what its header says, and its pixels, with nothing lost in silence."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image

from robnet_fx.zoo.scale import divided

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What counts as an image, as in torchvision."""

_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
_GREY = ("1", "L", "LA", "La", "I", "F", *_DEEP)
_ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
_BITS_PER_SAMPLE = 258  # the TIFF tag


class BadPicture(Exception):
    """An image that cannot be taken: the reason, and what can be done about images of that kind."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


class Header(NamedTuple):
    """What is known before an image is decoded: (H, W), whether it has colours, and bits a channel."""

    size: tuple[int, int]
    colours: bool
    bits: int


class Picture(NamedTuple):
    """Pixels `[H, W, C]`, uint8 or float32 in [0, 1], and what was done to get them, in words."""

    pixels: np.ndarray
    done: tuple[str, ...]


def read_header(file: str) -> Header:
    """The header of an image file. Raises `BadPicture`."""
    with _opened(file) as image:
        width, height = image.size
        return Header((height, width), image.mode not in _GREY, _bits(image))


def read_picture(file: str, channels: int, resize: tuple[int, int] | None, white: float | None) -> Picture:
    """An image file as grey (`channels` 1) or RGB (3): uint8 from eight bits, float32 from more or with a `white`.

    `white` None is the full scale of the file's format, 65535 for sixteen bits. `resize` (H, W) is bilinear, with
    antialiasing where it shrinks. Pixels stay as they are stored, whatever their EXIF orientation. Raises `BadPicture`.
    """
    with _opened(file) as image:
        bits = _bits(image)
        _check_kind(image, bits)
        _load(image)
        done = [] if _upright(image) else ["EXIF orientation left out, as stored"]
        if bits > 8:
            grey = _scaled(_deep(image), _white(image, bits, white), resize)
            return Picture(np.repeat(grey, channels, axis=2), tuple(done))
        image, steps = _eight_bits(image, channels)
        done += steps
        if white is not None and white != 255:
            pixels = np.asarray(image).reshape(image.height, image.width, channels)
            return Picture(_scaled(pixels, white, resize), tuple(done))
        if resize is not None and image.size != resize[::-1]:
            image = image.resize(resize[::-1], Image.Resampling.BILINEAR)
        return Picture(np.asarray(image).reshape(image.height, image.width, channels), tuple(done))


@contextmanager
def _opened(file: str) -> Iterator[Image.Image]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a decoder, about files that it reads
        with _decoding():
            image = Image.open(file)
        with image:
            yield image


def _load(image: Image.Image) -> None:
    with _decoding():
        image.load()


def _upright(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION, 1) in (0, 1)
    except Exception:  # EXIF that cannot be read turns nothing
        return True


@contextmanager
def _decoding() -> Iterator[None]:
    """Decoders raise whatever their format suggests: SyntaxError, struct.error, EOFError, OSError, ValueError, ..."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or "no further reason"
        raise BadPicture(
            f"{type(error).__name__}: {reason}", "replace or remove files that cannot be decoded"
        ) from error


def _bits(image: Image.Image) -> int:
    """Bits a channel in the file; 32 where the format does not say which number is white."""
    if image.mode == "F":
        return 32
    tiles = getattr(image, "tile", None) or [("", None, 0, image.mode)]
    decoder, _, _, stored = tiles[0]  # the name of what is decoded and how
    if "I;12" in str(stored):
        return 12
    if image.mode not in _GREY and (tagged := max(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,)))) > 8:
        return int(tagged)
    deep = re.search(r"(?<!BGR);16[BLN]?(?![BLNS])", str(stored))  # BGR;16 has five bits a channel, I;16S a sign
    if deep or image.mode in _DEEP:
        return 16
    if decoder == "ppm" and stored[1] > 255:
        return 16  # a grey one is brought to 0..65535 by the decoder
    return 32 if image.mode == "I" else 8


def _check_kind(image: Image.Image, bits: int) -> None:
    """Refuse what the decoder would read in part only."""
    with _decoding():
        frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a camera's second picture is a preview
        raise BadPicture(f"has {frames} frames", "save one image a file; volumes go into an .npz file")
    if bits > 8 and image.mode not in ("I", "F", *_DEEP):
        raise BadPicture(
            f"has {bits} bits in each of several channels, of which the decoder would keep eight",
            "save images of several channels with eight bits each, or as uint16 in an .npz file",
        )


def _deep(image: Image.Image) -> np.ndarray:
    """The numbers `[H, W, 1]` of a grey image of more than eight bits."""
    if "transparency" in image.info:
        raise _transparent()
    return np.asarray(image)[:, :, None]


def _white(image: Image.Image, bits: int, white: float | None) -> float:
    """The number that stands for white in an image of more than eight bits."""
    if white is not None:
        return white
    if bits == 32 and image.mode != "F":
        raise BadPicture("has whole numbers of 32 bits", "--white N says which number is white")
    return 1 if image.mode == "F" else 2**bits - 1


def _scaled(values: np.ndarray, white: float, resize: tuple[int, int] | None) -> np.ndarray:
    """Numbers in 0..white, `[H, W, C]`, as float32 in [0, 1] of the size wanted."""
    _check_range(values, white)
    pixels = divided(values, white)
    if resize is None or pixels.shape[:2] == resize:
        return pixels
    channels = [Image.fromarray(channel) for channel in np.moveaxis(pixels, 2, 0)]
    resized = [np.asarray(channel.resize(resize[::-1], Image.Resampling.BILINEAR)) for channel in channels]
    return np.stack(resized, axis=2).clip(0, 1)  # rounding may go beyond by an ulp


def _check_range(values: np.ndarray, white: float) -> None:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise BadPicture("has pixels that are NaN or infinite", "replace NaN and infinite pixels")
    if low < 0:
        raise BadPicture(f"has pixels from {low:g} to {high:g}", "shift negative pixels: black is 0")
    if high > white:
        reason = f"has pixels from {low:g} to {high:g}, beyond a white of {white:g}"
        raise BadPicture(reason, "--white N takes pixels as v/N, where no pixel may exceed N")


def _transparent() -> BadPicture:
    return BadPicture("has transparent pixels", "lay images that are transparent on a background")


def _eight_bits(image: Image.Image, channels: int) -> tuple[Image.Image, list[str]]:
    """An image of at most eight bits a channel in mode L or RGB, and what was done to it."""
    done = []
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA" if image.mode in ("P", "PA", "RGB", "RGBA", "RGBa") else "LA")
        if int(np.asarray(image.getchannel("A")).min()) < 255:
            raise _transparent()
        done.append("opaque alpha dropped")
        image = image.convert(image.mode[:-1])
    if image.mode == "P":
        image = image.convert("RGB")
    elif image.mode not in ("1", "L", "RGB"):
        done.append(f"{image.mode} as RGB")
        image = image.convert("RGB")
    wanted = "L" if channels == 1 else "RGB"
    if channels == 1 and image.mode == "RGB":
        red, green, blue = image.split()
        if red.tobytes() != green.tobytes() or red.tobytes() != blue.tobytes():
            done.append("colours as grey")
    elif channels == 3 and image.mode != "RGB":
        done.append("grey as three equal channels")
    return image.convert(wanted), done
