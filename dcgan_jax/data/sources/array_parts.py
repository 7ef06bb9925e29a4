"""Finds the arrays of images in an .npy, an .npz or a folder of .npy files, and their labels."""

import functools
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.data.sources import array_labels, array_names, array_pixels, layout
from dcgan_jax.data.sources.array_labels import Labels
from dcgan_jax.data.sources.tree import open_tree
from dcgan_jax.runtime.array_files import Header, open_array, read_headers

log = logging.getLogger("dcgan_jax")

OPEN_FILES = 64  # of a folder that are mapped at a time


class Part(NamedTuple):
    """One array of images, [N, ...]; `open` gives it, from any thread. name: of its file, '' if there is one alone."""

    name: str
    header: Header
    open: Callable[[], np.ndarray]


class Found(NamedTuple):
    """The arrays that are images, the name of each image, and labels. what: which arrays these are, for the user."""

    what: str
    parts: list[Part]
    names: list[str]
    labels: Labels


def arrays_in(folder: Path) -> list[str]:
    """The names of all .npy files below a folder, in their order: numbers in them as numbers, 2.npy before 10.npy."""
    return sorted((name for name in open_tree(folder).names if name.lower().endswith(".npy")), key=_by_numbers)


def _by_numbers(name: str) -> list[tuple[bool, int, str]]:
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def labels_beside(path: Path) -> Path | None:
    """The labels of an .npy, in a file beside it."""
    if path.suffix.lower() != ".npy":
        return None
    files = {file.stem: file for file in sorted(path.parent.glob("*.npy")) if file != path}
    return files.get(array_names.labels(files, path.stem) or "")


def in_file(path: Path, config: ConfigDict) -> Found:
    """The array of an .npy, or the one that is meant of an .npz. Raises ValueError if there is none, or several are."""
    try:
        headers = read_headers(path)
    except ValueError as error:
        raise ValueError(f"{error}; expected an .npy, an .npz, or a folder of .npy files") from error
    if "" in headers:
        name, beside = "", labels_beside(path)
        labels = [(beside, "")] if beside else []
    else:
        name = array_names.images(headers, config.data.split, config.data.name)
        key = array_names.labels([other for other in headers if other != name], name)
        # Of two arrays without names, the second may be anything.
        named = key and (key != "arr_1" or len(headers[key].shape) == 1)
        labels = [(path, key)] if key and named else []
    header = headers[name]
    _check_stack(header, name)
    count = header.shape[0]
    read = array_labels.read(labels, count) if labels else Labels()
    part = Part("", header, functools.cache(lambda: open_array(path, name)))
    return Found(name, [part], [str(i) for i in range(count)], read)


def _check_stack(header: Header, name: str) -> None:
    """Raises ValueError unless an array has the shape and the dtype of several images."""
    what, shape = f"holds {name and f'{name} '}{header.dtype} {header.shape}", header.shape
    expected = "expected images [N, H, W] or [N, H, W, C]"
    array_pixels.check_dtype(header.dtype)
    if len(shape) == 2:
        raise ValueError(f"{what}, {expected}; rows of pixels are images.reshape(-1, H, W), one image is image[None]")
    if len(shape) not in (3, 4):
        raise ValueError(f"{what}, {expected}; save such an array")
    if not np.prod(shape):
        raise ValueError(f"{what}, {expected}, at least one")
    if len(shape) == 3 and shape[2] <= 4 and shape[2] < min(shape[:2]):
        raise ValueError(f"{what}, one image, {expected}; one is image[None], and a folder may hold one in each file")


def in_folder(path: Path, config: ConfigDict) -> Found:
    """The arrays in the .npy files of a folder: one image in each file, or several. Raises ValueError as `in_file`."""
    files = arrays_in(path)
    if not files:
        raise ValueError(
            "holds no .npy file; pass the .npz, or for pictures such as .jpg or .png --config.data.source=folder "
            f"--config.data.path={path}"
        )
    headers: dict[str, Header] = {}
    for name in files:
        with _named(name):
            headers[name] = next(iter(read_headers(path / name).values()))
    flat = {name for name in files if len(headers[name].shape) == 1 or headers[name].shape[1:] == (1,)}
    label_files = {
        Path(name).stem: path / name for name in files if name in flat and array_names.is_label(Path(name).stem)
    }
    names, told = layout.take_split(
        [name for name in files if path / name not in label_files.values()], config.data.split
    )
    if told:
        log.info("%s: %s", path, told)
    kinds = {name: array_pixels.is_one_image(headers[name].shape, config.channels) for name in names}
    differing = next((name for name in names if kinds[name] != kinds[names[0]]), None)
    if differing:
        pair = array_names.listed({name: headers[name] for name in (names[0], differing)})
        raise ValueError(f"holds {pair}, expected one image in each file, or several in each; move the others away")
    if not names:
        raise ValueError("holds labels alone, expected images beside them")
    return (
        _single_images(path, names, headers, label_files)
        if kinds[names[0]]
        else _stacks(path, names, headers, label_files, config)
    )


def _single_images(path: Path, names: list[str], headers: dict[str, Header], label_files: dict[str, Path]) -> Found:
    """A file for each image: labels are those of a file of labels, or of the folders."""
    by_folders = layout.by_folders(names)
    file = label_files.get(array_names.labels(label_files, "") or "")
    labels = Labels(by_folders.labels, by_folders.classes)
    if file:
        labels = array_labels.read([(file, "")], len(names))
    elif not by_folders.sharded:
        names = by_folders.names
    for name in names:
        with _named(name):
            array_pixels.check_dtype(headers[name].dtype)
            if not np.prod(headers[name].shape):
                raise ValueError("has no pixels")
    opened = _opener(path)
    parts = [
        Part(name, headers[name]._replace(shape=(1, *headers[name].shape)), functools.partial(_as_one, opened, name))
        for name in names
    ]
    return Found("one image in each file,", parts, names, Labels() if by_folders.sharded and not file else labels)


def _as_one(opened: Callable[[str], np.ndarray], name: str) -> np.ndarray:
    return opened(name)[None]


def _stacks(
    path: Path, names: list[str], headers: dict[str, Header], label_files: dict[str, Path], config: ConfigDict
) -> Found:
    """Several images in each file: one file by its name, or all one after the other."""
    by_stem = {Path(name).stem: name for name in names}
    usual = len(by_stem) == len(names) and any(
        split or kind in array_names.IMAGES for split, kind in map(array_names.parsed, by_stem)
    )
    if config.data.name or usual:
        stem = array_names.images(
            {stem: headers[name] for stem, name in by_stem.items()}, config.data.split, config.data.name
        )
        names = [by_stem[stem]]
    for name in names:
        _check_stack(headers[name], name)
    count = sum(headers[name].shape[0] for name in names)
    own = [label_files.get(array_names.labels(label_files, Path(name).stem) or "") for name in names]
    files = [file for file in dict.fromkeys(own) if file]
    labels = array_labels.read([(file, "") for file in files], count) if files else Labels()
    opened = _opener(path)
    parts = [Part(name, headers[name], functools.partial(opened, name)) for name in names]
    numbered = [f"{name}[{i}]" for name in names for i in range(headers[name].shape[0])]
    return Found(", ".join(names[:3]) + (", ..." if len(names) > 3 else ""), parts, numbered, labels)


def _opener(path: Path) -> Callable[[str], np.ndarray]:
    @functools.lru_cache(OPEN_FILES)
    def opened(name: str) -> np.ndarray:
        with _named(name):
            return open_array(path / name)

    return opened


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"holds {name!r}, which {error}; mend it, or move it away") from error
