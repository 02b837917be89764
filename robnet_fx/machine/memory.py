"""How much memory there is, and how a size is written."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch

from robnet_fx.machine.allocator import freed_memory

_CGROUP = Path("/sys/fs/cgroup")
_STATM = Path("/proc/self/statm")
_MEMINFO = Path("/proc/meminfo")
USABLE = 0.6  # of the available memory: the heap gets holes (`allocator`), libraries need room, estimates err
_allowed: ContextVar[int | None] = ContextVar("allowed", default=None)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@contextmanager
def at_most(size: int | None) -> Iterator[None]:
    """No more than `size` bytes are available meanwhile, whatever the machine has; None is no such limit."""
    token = _allowed.set(size)
    try:
        yield
    finally:
        _allowed.reset(token)


def allowed_memory() -> int | None:
    """The bytes of `at_most`, None where nothing is said."""
    return _allowed.get()


def available_memory(device: torch.device) -> int:
    """Bytes that can be had on a device now, with what the process has freed and kept; on a CPU what the system, the
    process's container and its own limit on addresses leave. Never more than `at_most` allows."""
    free, allowed = _free_memory(device), allowed_memory()
    return free if allowed is None else min(free, allowed)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    left = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    try:  # where the system says it, memory that caches would give back counts too
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        left = [int(lines["MemAvailable"].split()[0]) * 1024]
    except (OSError, KeyError, ValueError):
        pass
    try:
        limit, used = ((_CGROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        left.append(int(limit) - int(used))
    except (OSError, ValueError):  # no container, or one without a limit
        pass
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses != resource.RLIM_INFINITY:
        try:
            left.append(addresses - int(_STATM.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE"))
        except (OSError, ValueError):
            left.append(addresses)
    return max(0, min(left)) + freed_memory()


def bytes_text(size: int) -> str:
    """1.4 GiB: three digits at most, in powers of 1024 as `--memory` reads its units."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if value >= 9.95 or unit == 0 else f"{value:.1f} {_UNITS[unit]}"
