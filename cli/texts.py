"""What people type on the command line, read: strengths in pixel levels, memory, sizes, times."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from robnet_fx.cli.errors import warn
from robnet_fx.errors import UsageError

if TYPE_CHECKING:
    from robnet_fx.bounds.methods import Symbols

_LEVELS = 255
_SUSPICIOUS = 0.5  # a bare number below this is more likely meant as a share of the pixel range


def read_eps(text: str, option: str = "--eps") -> float:
    """A strength as the plain number in [0, 1] that the library takes; a bare number counts pixel levels.

    Raises `UsageError`, and warns where a share was probably meant; both name the option.
    """
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
        raise UsageError(f"{option} takes pixel levels (40), a fraction (40/255) or per cent (15.7%), not {text!r}")
    if not 0 <= value * scale <= 1:
        raise UsageError(f"{option} must lie between 0 and 255 pixel levels (0 % and 100 %), not {text}")
    if bare and 0 < value < _SUSPICIOUS:
        warn(
            f"{option} {text} is {text} of 255 pixel levels; did you mean {value * _LEVELS:.4g} levels "
            f"({option} {value * 100:.4g}%)?"
        )
    return value * scale


def read_strengths(text: str, option: str = "--eps") -> list[float]:
    """Strengths with commas between them, each as `read_eps` reads it: the smallest first, each once."""
    return sorted({read_eps(each, option) for each in text.split(",")})


def read_size(text: str) -> tuple[int, int]:
    """Height and width, from 128x128."""
    match = re.fullmatch(r"\s*(\d+)\s*[x×]\s*(\d+)\s*", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"--resize takes height x width, such as 128x128, not {text!r}")
    return int(match[1]), int(match[2])


def read_symbols(text: str | None) -> Symbols | None:
    """How many error symbols, from a whole number or "all"; None where nothing is said."""
    if text is None or text.strip() == "all":
        return "all" if text else None
    if not text.strip().isdecimal():
        raise UsageError(f"--symbols takes a whole number, or all, not {text!r}")
    return int(text)


def read_memory(text: str | None) -> int | None:
    """Bytes, from a number with MB, GB or TB behind it; None where nothing is said."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9.]+)\s*([MGT])i?B?\s*", text, re.IGNORECASE)
    try:
        value = float(match[1]) if match else 0.0
    except ValueError:
        value = 0.0
    if not match or value <= 0:
        raise UsageError(f"--memory takes a size such as 8GB or 500MB, not {text!r}")
    return int(value * 2 ** {"M": 20, "G": 30, "T": 40}[match[2].upper()])


def read_time(text: str | None) -> float | None:
    """Seconds, from a number, or one with s, m or h behind it; None where nothing is said."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([smh]?)\s*", text, re.IGNORECASE)
    value = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2].lower()] if match else 0.0
    if not value:
        raise UsageError(f"--time-limit takes a time such as 2h, 90m or 3600 (seconds), not {text!r}")
    return value
