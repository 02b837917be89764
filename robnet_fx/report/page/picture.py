"""Small images as PNG data, for files and for a page that loads nothing."""

from __future__ import annotations

import base64
import struct
import zlib

from torch import Tensor

_KINDS = {1: 0, 3: 2, 4: 6}  # PNG's colour types by the number of channels


def png_uri(image: Tensor) -> str:
    """An image `[C, H, W]` in [0, 1] as a `data:` address; channels as `png` takes them."""
    return f"data:image/png;base64,{base64.b64encode(png(image)).decode()}"


def png(image: Tensor) -> bytes:
    """An image `[C, H, W]` in [0, 1] as the bytes of a PNG file: 1, 3 or 4 channels, the fourth the opacity."""
    channels, height, width = image.shape
    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().byte()
    rows = pixels.permute(1, 2, 0).reshape(height, width * channels)
    raw = b"".join(b"\x00" + bytes(row.tolist()) for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 8, _KINDS[channels], 0, 0, 0)
    ends = _chunk(b"IHDR", header), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + ends[0] + _chunk(b"IDAT", zlib.compress(raw, 9)) + ends[1]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
