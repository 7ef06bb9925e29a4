"""Arrays from .npz and .npy files that others made, and what a file is that holds none."""

import mmap
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from dcgan_jax.runtime.contents import HEAD, described

NPY = b"\x93NUMPY"
ARRAYS = (b"PK\3\4", b"PK\5\6", NPY)
OTHERS = {
    b"\x89PNG": "is a PNG image",
    b"\xff\xd8\xff": "is a JPEG image",
    b"\x80": "is a pickle, which is not opened, as it could run code",
}


def mistaken_for(file: Path) -> str:
    """What a file is, from its first bytes: 'is a web page (HTML)', say; '' if that is not known."""
    try:
        with file.open("rb") as reader:
            head = reader.read(HEAD)
    except OSError:
        return ""
    if not head:
        return "is empty"
    if known := described(head):
        return f"is {known.what}; {known.advice}"
    return next((kind for beginning, kind in OTHERS.items() if head.startswith(beginning)), "")


class Header(NamedTuple):
    """What an array is, without its values."""

    shape: tuple[int, ...]
    dtype: np.dtype


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by their names, or the array of an .npy by the name ''. No pickle is opened.

    Raises ValueError with what the file is instead ('is a web page (HTML)'), and OSError if it cannot be opened.
    """
    _check_kind(file)
    with _told():
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {"": content}
        with content as archive:
            arrays = {name: archive[name] for name in archive.files}
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("holds other things besides arrays")
    return arrays


def read_headers(file: Path) -> dict[str, Header]:
    """What the arrays of `read_arrays` are; their values are not read, and may be of any kind. Raises as it does."""
    _check_kind(file)
    with _told(), file.open("rb") as reader:
        if reader.read(len(NPY)) == NPY:
            reader.seek(0)
            return {"": _header(reader)}
        with zipfile.ZipFile(reader) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            headers = {}
            for name in names:
                with archive.open(name) as member:
                    headers[name.removesuffix(".npy")] = _header(member)
            return headers


def open_array(file: Path, name: str = "") -> np.ndarray:
    """One array of `read_arrays`: that of an .npy is mapped into memory, and only what is used of it is read.

    Raises as `read_arrays` does.
    """
    _check_kind(file)
    with _told():
        if not name:
            # Indexing an np.memmap is slower. Its base keeps the file mapped.
            return np.load(file, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        with np.load(file, allow_pickle=False) as archive:
            return archive[name]


def release(array: np.ndarray) -> None:
    """Gives back the memory of what was read of a mapped array so far; it is read again if need be."""
    mapped = getattr(array.base, "base", None)
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)


def _check_kind(file: Path) -> None:
    with file.open("rb") as reader:
        head = reader.read(HEAD)
    if not head.startswith(ARRAYS):
        raise ValueError(mistaken_for(file) or "is neither .npz nor .npy")


def _header(reader: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(reader)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(reader)
    return Header(shape, dtype)


@contextmanager
def _told() -> Iterator[None]:
    """Turns the many kinds of errors of numpy and zipfile on damaged files into ValueError that says what is wrong."""
    try:
        yield
    except zipfile.BadZipFile as error:
        raise ValueError(f"is cut short, or damaged ({error})") from error
    except Exception as error:
        if "mmap length" in str(error):
            raise ValueError("is cut short") from error
        reason = "it holds Python objects, which are not opened" if "pickle" in str(error).lower() else error
        raise ValueError(f"cannot be read ({reason})") from error
