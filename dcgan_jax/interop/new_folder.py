"""A new folder that is there whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dcgan_jax.errors import UserError, writable_path


def unused(path: str | Path, name: str) -> Path:
    """A path that can be created; `name` is the flag's. Raises UserError where something is there."""
    path = writable_path(path, name)
    if os.path.lexists(path):
        raise UserError(f"{name}: {str(path)!r} exists, expected a new folder; pass another {name}, or remove it")
    return path


@contextmanager
def new_folder(path: str | Path, name: str) -> Iterator[Path]:
    """A folder to write to, which gets its name when the block is done, and is removed where it fails.

    Raises UserError as `unused` does.
    """
    path = unused(path, name)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
