"""Files that are whole or absent: atomic writing, and the hashes that say which file or weights were used."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import secrets
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from robnet_fx.errors import RobnetError, UsageError


class _RawFile(io.FileIO):
    """A raw file that remembers the operating system's reason: `torch.save` hides it behind an error of its own."""

    error: OSError | None = None

    def write(self, data: Any) -> Any:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


@contextmanager
def write_atomically(path: Path | str) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends well, and leaves no trace when it does not.

    ```python
    with write_atomically(folder / "metrics.json") as file:
        file.write(json.dumps(metrics).encode())
    ```

    It is written under a temporary name in the same folder, flushed to the disk and renamed, so a reader sees the
    old file or the new one. Raises RobnetError naming the path and the reason (full disk, missing folder, ...).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    raw: _RawFile | None = None
    try:
        raw = _RawFile(temporary, "xb")
        file = io.BufferedWriter(raw)
        yield file
        file.flush()
        os.fsync(file.fileno())
        file.close()
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except Exception as error:
        reason = (raw.error if raw is not None else None) or error
        if isinstance(reason, OSError):
            raise RobnetError(f"cannot write {path}: {reason.strerror or reason}") from error
        raise
    finally:
        if raw is not None:
            if not raw.closed:
                raw.close()
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Flush a rename to the disk, where the platform can open a folder (Windows cannot)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file, or none that holds one."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


_PACKED = b"\x1f\x8b"  # how gzip's files begin


def read_unpacked(path: Path) -> bytes:
    """A file's bytes, unpacked where they are packed by gzip, whatever its name. Raises `UsageError`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return gzip.decompress(data) if data.startswith(_PACKED) else data
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} is truncated or damaged") from error


def sha256_of_file(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal. Raises OSError as `open` does."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """The SHA-256 of named tensors (a `state_dict()`): names, dtypes, shapes and values, not order or device."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
