"""What memory there is, as the system and the container say it."""

import torch

from robnet_fx.machine import memory
from robnet_fx.machine.memory import available_memory


def test_what_is_available(tmp_path, monkeypatch):
    device = torch.device("cpu")
    assert available_memory(device) > 10**7
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert available_memory(device) > 10**6
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert available_memory(device) == 4_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(device) > 4_000_000
