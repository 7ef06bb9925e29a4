"""What every source of images provides: pictures by number, and their names, labels and attributes."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Picture(NamedTuple):
    """A picture that any thread may open, once. If `open` raises an error, the picture counts as unreadable.

    open: gives Pillow's, or an array as `images.to_pixels` takes it.
    size: the bytes of memory that it holds until then.
    """

    open: Callable[[], AbstractContextManager[Any]]
    size: int = 0


@dataclass(frozen=True)
class Source:
    """Pictures that are not prepared yet.

    names: the name of each picture in the source.
    read: opens the picture of a number, in any order and from several threads at once.
    stream: in place of `read`, where pictures are best read in their order: those from a number up to another. One
        thread at a time iterates, and raises UserError if it cannot go on.
    labels: int [N] or None; `classes` are the names of the labels.
    attributes: bool [N, A] or None; `attribute_names` are the names of its columns.
    version: the version of the source, if it has one.
    sharded: True if the labels are those of folders that look like parts of one set and not like classes.
    decoding: True if pictures have to be decoded, so that several threads are faster than one.
    """

    names: Sequence[str]
    read: Callable[[int], AbstractContextManager[Any]] | None = None
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    attributes: np.ndarray | None = None
    attribute_names: tuple[str, ...] = ()
    version: str = ""
    sharded: bool = False
    decoding: bool = True
    stream: Callable[[int, int], Iterator[Picture]] | None = None

    def pictures(self, start: int, stop: int) -> Iterator[Picture]:
        """The pictures from number `start` up to `stop`, in order. Raises UserError if the source cannot be read."""
        if self.stream:
            return self.stream(start, stop)
        assert self.read
        return map(Picture, (partial(self.read, index) for index in range(start, stop)))


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
