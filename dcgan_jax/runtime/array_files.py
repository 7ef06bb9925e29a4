"""Arrays from .npz and .npy files that others made, and what a file is that holds none."""

import zipfile
from pathlib import Path

import numpy as np

from dcgan_jax.runtime.contents import HEAD, described

ARRAYS = (b"PK\3\4", b"PK\5\6", b"\x93NUMPY")
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


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by their names, or the array of an .npy by the name ''. No pickle is opened.

    Raises ValueError with what the file is instead ('is a web page (HTML)'), and OSError if it cannot be opened.
    """
    with file.open("rb") as reader:
        head = reader.read(HEAD)
    if not head.startswith(ARRAYS):
        raise ValueError(mistaken_for(file) or "is neither .npz nor .npy")
    try:
        content = np.load(file, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return {"": content}
        with content as archive:
            arrays = {name: archive[name] for name in archive.files}
    except zipfile.BadZipFile as error:
        raise ValueError(f"is cut short, or damaged ({error})") from error
    except Exception as error:  # zipfile and numpy raise many kinds of errors on damaged files
        reason = "it holds Python objects, which are not opened" if "pickle" in str(error).lower() else error
        raise ValueError(f"cannot be read ({reason})") from error
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("holds other things besides arrays")
    return arrays
