"""Files are whole or absent, and a full disk is one line."""

import errno
import os

import pytest
import torch

from robnet_fx.errors import RobnetError
from robnet_fx.machine import files
from robnet_fx.machine.files import sha256_of_file, sha256_of_tensors, write_atomically


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "a.bin"
    for content in (b"first", b"second, longer"):
        with write_atomically(path) as file:
            file.write(content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
@pytest.mark.parametrize("writer", ["bytes", "torch.save"])
def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch, where, writer):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    if where == "write":
        monkeypatch.setattr(files._RawFile, "write", _failing_write)
    else:
        monkeypatch.setattr(files.os, where, full_disk)
    with pytest.raises(RobnetError, match=r"cannot write .*a\.bin: No space left on device"):
        with write_atomically(path) as file:
            if writer == "bytes":
                file.write(b"x" * 100_000)
            else:
                torch.save({"weight": torch.zeros(100_000)}, file)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def _failing_write(self, data):
    self.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise self.error


def test_an_error_or_interrupt_in_the_block_leaves_nothing(tmp_path):
    for kind in (ValueError, KeyboardInterrupt):
        with pytest.raises(kind):
            with write_atomically(tmp_path / "a.bin") as file:
                file.write(b"half")
                raise kind
    assert os.listdir(tmp_path) == []


def test_missing_folder_is_a_robnet_error(tmp_path):
    with pytest.raises(RobnetError, match="No such file or directory"):
        with write_atomically(tmp_path / "absent" / "a.bin") as file:
            file.write(b"")


def test_hashes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256_of_file(path).startswith("ba7816bf")
    one = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}
    assert sha256_of_tensors(one) == sha256_of_tensors(dict(reversed(one.items())))
    assert sha256_of_tensors(one) != sha256_of_tensors({**one, "a": one["a"].reshape(3, 2)})
    assert sha256_of_tensors(one) != sha256_of_tensors({**one, "a": one["a"] + 1e-6})
    assert sha256_of_tensors({"w": torch.zeros(2, dtype=torch.bfloat16)})


def test_a_parent_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RobnetError, match="cannot write"), write_atomically(tmp_path / "file" / "out"):
        pass
