"""Files that are whole or not there at all: atomic writes, new folders, appended lines, hashes, locks."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout

from dcgan_jax.runtime.errors import UserError, writable_path
from dcgan_jax.runtime.progress import Progress

Lock = AbstractContextManager[Any]  # released at the end of a `with` block, or when the process ends


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Opens a binary file that replaces `path` when the block ends without an error.

    If the process is killed at any moment, `path` is the old file or the new one, complete.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes an .npy file atomically."""
    with atomic_write(path) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def append_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Appends one JSON object a line; first ends a line that was cut short when an earlier process was killed."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    with path.open("a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            text = text if file.read(1) == b"\n" else f"\n{text}"
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def free_path(path: Path) -> Path:
    """The path, or if something is there, the first of PATH-1, PATH-2, ... that is free."""
    names = (path.with_name(f"{path.name}-{copy}") for copy in range(1, 2**31))
    return path if not os.path.lexists(path) else next(name for name in names if not os.path.lexists(name))


def flush_folder(folder: Path) -> None:
    """Makes sure that new and renamed entries of a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unused_path(path: str | Path, name: str) -> Path:
    """A path that can be created; `name` is the flag's. Raises UserError if something is there."""
    path = writable_path(path, name)
    if os.path.lexists(path):
        raise UserError(f"{name}: {str(path)!r} exists, expected a new folder; pass another {name}, or remove it")
    return path


@contextmanager
def new_folder(path: str | Path, name: str) -> Iterator[Path]:
    """A folder to write to, which is renamed to `path` when the block ends, and removed if it fails.

    Raises UserError as `unused_path` does.
    """
    path = unused_path(path, name)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a file of one JSON object a line, without lines cut short; none if there is no such file."""
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line


def sha256(path: Path, size: int | None = None) -> str:
    """The SHA-256 of a file, or of its first `size` bytes, as hexadecimal digits."""
    digest = hashlib.sha256()
    left = path.stat().st_size if size is None else size
    with path.open("rb") as file, Progress(f"hashing {path.name}", left, "bytes") as shown:
        while left and (block := file.read(min(left, 2**22))):
            digest.update(block)
            left -= len(block)
            shown.update(len(block))
    return digest.hexdigest()


def digest(*parts: str | np.ndarray) -> str:
    """The SHA-256 of texts and arrays (with their dtypes and shapes), as hexadecimal digits."""
    hashed = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            hashed.update(part.encode() + b"\0")
        else:
            hashed.update(f"{part.dtype}{part.shape}\0".encode() + np.ascontiguousarray(part).tobytes())
    return hashed.hexdigest()


def lock(path: Path, *, wait: bool) -> Lock | None:
    """Locks a file between processes. None if another process holds the lock and `wait` is False.

    The folder of `path` must exist. Raises OSError if the file system has no locks.
    """
    try:
        return FileLock(path).acquire(timeout=-1 if wait else 0)
    except Timeout:
        return None
