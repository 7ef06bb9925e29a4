"""Labels from an array beside images: numbers or text, one for each image."""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dcgan_jax.runtime.array_files import Header, open_array, read_headers

log = logging.getLogger("dcgan_jax")


class Labels(NamedTuple):
    """labels: int32 [N], the rank of each class, or None. classes: their names, numbers as text. told: for the user."""

    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    told: str = ""


def read(places: list[tuple[Path, str]], count: int) -> Labels:
    """The labels in arrays, one after the other, each at a file and a name in it ('' in an .npy), of `count` images.

    Labels that are no classes, such as several numbers for each image, are told and left out. Raises ValueError if
    their number is not that of the images.
    """
    name = ", ".join(key or file.name for file, key in places)
    headers = [read_headers(file)[key] for file, key in places]
    found = sum(header.shape[0] if header.shape else 1 for header in headers)
    if found != count:
        raise ValueError(f"has {count} images, but {found} labels in {name}; expected one each, or none")
    reason = next(filter(None, map(_no_classes, headers)), "")
    values = np.array([]) if reason else np.concatenate([open_array(*place).reshape(-1) for place in places])
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        reason = reason or "numbers that are not whole"
    if reason:
        log.warning("%s: %s, expected whole numbers or text, one for each image; not used as labels", name, reason)
        return Labels()
    if values.dtype.kind == "f":
        values = values.astype(np.int64)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    classes, labels = np.unique(values, return_inverse=True)
    return Labels(labels.reshape(-1).astype(np.int32), tuple(map(str, classes.tolist())), f"labels {name}")


def _no_classes(header: Header) -> str:
    """Why an array cannot be labels; '' if it can, so far as its header tells."""
    if header.dtype.hasobject:
        return "Python objects, which are not opened (save labels.astype(str))"
    if len(header.shape) != 1 and header.shape[1:] != (1,):
        return f"an array of {header.shape}"
    return "" if header.dtype.kind in "biufUS" else f"an array of {header.dtype}"
