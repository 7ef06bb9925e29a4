"""What every source of images provides: pictures by number, and their names, labels and attributes."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Source:
    """Pictures that are not prepared yet.

    names: the name of each picture in the source.
    read: opens the picture of a number: Pillow's, or an array as `images.to_pixels` takes it. It is called from several
        threads at once; if it raises an error, the picture counts as unreadable.
    labels: int [N] or None; `classes` are the names of the labels.
    attributes: bool [N, A] or None; `attribute_names` are the names of its columns.
    version: the version of the source, if it has one.
    sharded: True if the labels are those of folders that look like parts of one set and not like classes.
    decoding: True if pictures have to be decoded, so that several threads are faster than one.
    """

    names: Sequence[str]
    read: Callable[[int], AbstractContextManager[Any]]
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    attributes: np.ndarray | None = None
    attribute_names: tuple[str, ...] = ()
    version: str = ""
    sharded: bool = False
    decoding: bool = True


def fingerprint(paths: Iterable[Path]) -> str:
    """A hash of the names, sizes and modification times of files; it changes if a file is added, removed or changed."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            stat = os.stat(path)
        except OSError:
            digest.update(f"{path}\0absent\n".encode(errors="surrogateescape"))
        else:
            digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
