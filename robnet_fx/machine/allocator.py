"""Keep freed memory: glibc gives large blocks back to the system, which then zeroes every page of them anew."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # mallopt's numbers
_KEPT = 2**31 - 1
_asked = False  # whether `keep_freed_memory` was


def keep_freed_memory() -> None:
    """Ask the C library to keep what the process frees, up to 2 GiB of it at the end of the heap, from now on.

    For work on a CPU: bounds allocate and free the same large tensors again and again. What does not fit into the heap
    as it stands would be mapped anew each time, so nothing is mapped, for as long as the process lives: the heap grows.
    A training step gains a tenth, a verdict half. The command line asks for it; from Python it is yours to ask, since
    it changes the whole process. Where there is no `mallopt` (not Linux, or not glibc), nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return
    mallopt(_TRIM_THRESHOLD, _KEPT)
    mallopt(_TOP_PAD, 2**26)
    mallopt(_MMAP_MAX, 0)
    global _asked
    _asked = True


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """Inside memory may be given back; afterwards what is freed is kept again, if `keep_freed_memory` was asked for.

    Of gigabytes that were freed inside nothing is kept: who comes next may have no use for them.
    """
    try:
        yield
    finally:
        if _asked:
            if freed_memory() > _KEPT:
                give_back_freed_memory()
            keep_freed_memory()


def give_back_freed_memory() -> None:
    """Have the C library give back what the process has freed, holes in the heap too, and map large blocks from now on.

    The contrary of `keep_freed_memory`, where a limit counts: batches of several sizes leave holes that nothing fits
    into. Where the C library knows no such thing, nothing happens.
    """
    try:
        library = ctypes.CDLL(None)
        for setting, value in ((_TRIM_THRESHOLD, 2**17), (_TOP_PAD, 2**17), (_MMAP_MAX, 2**16)):  # glibc's own
            library.mallopt(setting, value)
        library.malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not glibc
        return


class _Heap(ctypes.Structure):
    """The C library's `struct mallinfo2`."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    ))  # fmt: skip


def freed_memory() -> int:
    """Bytes that the process has freed and the C library keeps; 0 where that is not known."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):  # not glibc
        return 0
    mallinfo.restype = _Heap
    return int(mallinfo().fordblks)
