"""What memory there is, as the system and the container say it."""

import resource

import pytest
import torch

from robnet_fx.machine import memory
from robnet_fx.machine.allocator import freed_memory
from robnet_fx.machine.memory import allowed_memory, at_most, available_memory


def test_what_is_available(tmp_path, monkeypatch):
    device = torch.device("cpu")
    assert available_memory(device) > 10**7
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert available_memory(device) > 10**6
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    monkeypatch.setattr(memory, "freed_memory", lambda: 0)
    assert available_memory(device) == 4_000_000
    monkeypatch.setattr(memory, "freed_memory", lambda: 1000)
    assert available_memory(device) == 4_001_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(device) > 4_000_000


def test_a_limit_on_addresses_is_seen(monkeypatch):
    device, limit = torch.device("cpu"), resource.getrlimit(resource.RLIMIT_AS)
    before = available_memory(device)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2**20, limit[1]))
    assert available_memory(device) <= freed_memory() + 2**20 < before


def test_freed_memory_is_what_the_heap_keeps():
    """Many small blocks, which no setting of the allocator maps one by one."""
    blocks = [bytearray(4000) for _ in range(5000)]
    before = freed_memory()
    if not before:
        pytest.skip("the C library does not say")
    keep = blocks[::2]
    del blocks
    assert freed_memory() > before + 5_000_000
    assert len(keep) == 2500


def test_no_more_is_available_than_is_allowed():
    device = torch.device("cpu")
    free = available_memory(device)
    with at_most(1000):
        assert available_memory(device) == allowed_memory() == 1000
        with at_most(None):
            assert available_memory(device) > 10**6
        assert allowed_memory() == 1000
    with at_most(2**60):
        assert available_memory(device) < 10 * free
    assert allowed_memory() is None
