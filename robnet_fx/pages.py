"""Keep freed memory: glibc gives large blocks back to the system, which then zeroes every page of them anew."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # mallopt's numbers


def keep() -> None:
    """Ask the C library to keep up to 2 GiB it has no use for: a tenth of a training step on a CPU, half of a verdict.

    A step allocates and frees the same large tensors again and again. What does not fit into the heap as it stands
    would be mapped anew each time, so nothing is mapped: the heap grows. Where there is no `mallopt`, nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**26)
    mallopt(_MMAP_MAX, 0)
