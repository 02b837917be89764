"""How much memory there is, and how a size is written."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def available_memory(device: torch.device) -> int:
    """Bytes that can be had on a device now; on a CPU what the system and the process's container leave."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
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
    return max(0, min(left))


def bytes_text(size: int) -> str:
    """1.4 GiB: three digits at most, in powers of 1024 as `--memory` reads its units."""
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if value >= 9.95 or unit == 0 else f"{value:.1f} {_UNITS[unit]}"
