"""What every source of images gives: images by number, and what is known about them."""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Source:
    """Images that are not prepared yet, by number.

    names: what each image is called where it comes from, in order.
    read: opens one image. Called from several threads at once; whatever it raises makes that image an unreadable one.
    labels: int [N], or None; `classes` names them.
    attributes: bool [N, A], or None; `attribute_names` names them.
    version: of the source, where it has one.
    decoding: True where images are decoded, so that several threads are faster than one.
    """

    names: Sequence[str]
    read: Callable[[int], Image.Image]
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    attributes: np.ndarray | None = None
    attribute_names: tuple[str, ...] = ()
    version: str = ""
    decoding: bool = True


def fingerprint(paths: Iterable[Path]) -> str:
    """A hash of names, sizes and times of change: another one tells that files are not those of the last time."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            stat = os.stat(path)
        except OSError:
            digest.update(f"{path}\0absent\n".encode(errors="surrogateescape"))
        else:
            digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
