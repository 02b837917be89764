"""What every test shares: a fixed seed, one thread a worker, and the data sets and networks that only developers have.

`ROBNET_FX_DATA` names a folder of data packs with their reader `load_packs.py`, `ROBNET_FX_MODELS` a folder of public
ONNX networks. Tests that need one are skipped where it is unset.
"""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# Before torch is imported, so that subprocesses are as modest: each pytest-xdist worker has one core.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from torch.export import exported_program
from torch.onnx._internal.exporter._registration import ONNXRegistry

from robnet_fx.zoo.data import Dataset

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    """Every test draws the same random numbers, whatever ran before it, and leaves the default dtype and the number of
    threads as they were (a command may choose another)."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """What is loaded by now stays, and what a trace makes is looked through seldom: looking through all of PyTorch for
    garbage took a tenth of the time, and looking through thousands of nodes again and again another fifth."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="session", autouse=True)
def _listed_once() -> None:
    """Every export goes through all of PyTorch's operations, which was a third of the time of a usual trace, and one to
    ONNX through the source of every operation's translation, which was more than half of it: here only after new
    operations have been registered, and once."""
    listed: dict[int, set] = {}
    list_all = exported_program._collect_all_valid_cia_ops

    def list_new() -> set:
        count = len(torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd"))
        if count not in listed:
            listed[count] = list_all()
        return listed[count]

    exported_program._collect_all_valid_cia_ops = list_new
    ONNXRegistry.from_torchlib = staticmethod(cache(ONNXRegistry.from_torchlib))


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    return Path(value)


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder of public ONNX networks."""
    return _folder("ROBNET_FX_MODELS")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of data packs."""
    return _folder("ROBNET_FX_DATA")


@pytest.fixture(scope="session")
def cifar10(data_dir: Path) -> Dataset:
    """Real CIFAR-10, the first 25,000 training images and the whole test part."""
    spec = importlib.util.spec_from_file_location("load_packs", data_dir / "load_packs.py")
    assert spec is not None
    assert spec.loader is not None
    packs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(packs)
    x_train, y_train = packs.load_pack(data_dir / "cifar10_train_0.npz")
    x_test, y_test = packs.load_pack(data_dir / "cifar10_test.npz")
    arrays = (torch.from_numpy(array) for array in (x_train, y_train, x_test, y_test))
    return Dataset("cifar10", *arrays, classes=packs.CIFAR10_CLASSES)
