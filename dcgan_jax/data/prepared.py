"""Prepared sets: a folder with all images as one array, which is mapped into memory, and a card that describes it.

    card.json        source, crop, size, count, hashes, date
    images.npy       uint8 [N, H, W, C]
    labels.npy       int32 [N], if the source has labels
    attributes.npy   bool [N, A], if it has attributes
    names.txt        the name of each image in the source, one per line

The folder is built under another name (NAME.partial) and renamed at the end, so a folder NAME is always complete.
"""

import errno
import json
import logging
import mmap
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dcgan_jax.runtime import files
from dcgan_jax.runtime.errors import UserError, writable_path

log = logging.getLogger("dcgan_jax")

FORMAT = 1
# Arrays up to this size are compared with their hashes whenever a set is opened; larger ones only with `verify`.
MAX_BYTES_HASHED_ON_OPEN = 2**30


class ImageSet(NamedTuple):
    """Prepared images: uint8 [N, H, W, C] mapped from disk, labels int32 [N] or None, the card, and attributes
    bool [N, A] or None.
    """

    images: np.ndarray
    labels: np.ndarray | None
    card: dict[str, Any]
    attributes: np.ndarray | None = None


def open_set(path: Path, *, verify: bool = False) -> ImageSet:
    """Opens the prepared set in a folder. `verify` compares arrays of any size with the hashes on the card.

    Raises UserError if there is no prepared set, or if its card does not match the arrays.
    """
    card = read_card(path)
    count = card["count"]
    layout = {
        "images": ((count, *card["image_size"], card["channels"]), np.uint8),
        "labels": ((count,), np.int32),
        "attributes": ((count, len(card["attributes"])), np.bool_),
    }
    arrays = {
        name: _open_array(path, name, card, *layout[name], verify=verify) for name in layout if name in card["sha256"]
    }
    return ImageSet(arrays["images"], arrays.get("labels"), card, arrays.get("attributes"))


def _open_array(
    folder: Path, name: str, card: dict[str, Any], shape: tuple[int, ...], dtype: type, *, verify: bool
) -> np.ndarray:
    file = folder / f"{name}.npy"
    try:
        array = np.lib.format.open_memmap(file, mode="r")  # refuses pickles
    except Exception as error:  # NumPy raises many kinds of errors for damaged headers
        raise _mismatch(folder, f"{name}.npy cannot be read ({' '.join(str(error).split())})") from error
    if array.shape != shape or array.dtype != dtype:
        raise _mismatch(folder, f"{name}.npy is {array.dtype} {array.shape}, the card says {np.dtype(dtype)} {shape}")
    large = file.stat().st_size > MAX_BYTES_HASHED_ON_OPEN
    if (verify or not large) and files.sha256(file) != card["sha256"][name]:
        raise _mismatch(folder, f"{name}.npy has another hash than the card says")
    if large:  # images are read in random order: reading ahead of them would be wasted
        array._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
    return array.view(np.ndarray)  # indexing an np.memmap is slower


def read_card(path: Any) -> dict[str, Any]:
    """The card of the prepared set in a folder, a local path or an etils.epath. Raises UserError if it is not valid."""
    file = path / "card.json"
    try:
        card = json.loads(file.read_text())
        _check_card(card)
    except FileNotFoundError as error:
        raise UserError(
            f"config.data.path: {str(path)!r} holds no card.json, expected a prepared set; make one with "
            "launch/prepare.py (if this was one, remove the folder first)"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"config.data.path: {str(file)!r} is not the card of a prepared set ({type(error).__name__}: {error}); "
            "remove that folder, and prepare the set again"
        ) from error
    return card


def _check_card(card: dict[str, Any]) -> None:
    if card["format"] != FORMAT:
        raise ValueError(f"format {card['format']}, expected {FORMAT}")
    sizes = [card["count"], card["channels"], *card["image_size"]]
    if len(sizes) != 4 or not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(f"sizes {sizes}")
    hashes = card["sha256"]
    if not {"images"} <= hashes.keys() <= {"images", "labels", "attributes"}:
        raise ValueError(f"hashes of {', '.join(hashes)}")
    if not all(re.fullmatch("[0-9a-f]{64}", value) for value in hashes.values()):
        raise ValueError("a sha256 without 64 hexadecimal digits")
    if not all(type(name) is str for name in (*card["attributes"], *(card.get("classes") or ()))):
        raise ValueError("attributes or classes that are not names")


def cards(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders and cards of all complete prepared sets in a folder."""
    for file in sorted(root.glob("*/card.json")):
        if file.parent.suffix != ".partial":
            try:
                yield file.parent, read_card(file.parent)
            except UserError:
                continue  # the error is raised when this set is opened


def read_names(path: Path) -> list[str]:
    """The name in the source of each image of a prepared set. Raises UserError if names.txt is damaged."""
    try:
        return [json.loads(f'"{line}"') for line in (path / "names.txt").read_text("ascii").split("\n")[:-1]]
    except (OSError, ValueError) as error:
        raise _mismatch(path, f"names.txt cannot be read ({error})") from error


def write_names(folder: Path, names: Iterable[str]) -> None:
    """Writes names.txt, one name per line, escaped as in JSON because a name may hold any character."""
    files.write_text(folder / "names.txt", "".join(json.dumps(name)[1:-1] + "\n" for name in names))


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Writes the card of a set; all its other files must be there."""
    files.write_text(folder / "card.json", json.dumps(card, indent=2) + "\n")
    files.flush_folder(folder)


def _mismatch(path: Path, problem: str) -> UserError:
    return UserError(
        f"config.data.path: {str(path)!r} does not match its card: {problem}; remove that folder, and prepare it again"
    )


@contextmanager
def building(path: Path) -> Iterator[Path | None]:
    """A folder in which to build a prepared set, renamed to `path` when the block ends without an error.

    One process builds while others wait; they then get None, as `path` exists. If the process was killed, the next one
    gets the same folder with what is in it. Raises UserError if the disk is full or fails.
    """
    writable_path(path, "config.data.prepared")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_file = path.with_name(f".{path.name}.lock")
        lock = files.lock(lock_file, wait=False)
        if lock is None:
            log.info("another process is preparing %s: waiting for it", path)
            lock = files.lock(lock_file, wait=True)
        assert lock is not None
        with lock:
            if path.exists():
                yield None
                return
            partial = path.with_name(path.name + ".partial")
            partial.mkdir(exist_ok=True)
            for unfinished in partial.glob("*.partial"):  # atomic writes that a kill cut short
                unfinished.unlink()
            yield partial
            partial.rename(path)
            files.flush_folder(path.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        problem = "the disk is full; make room" if full else f"it cannot be written to ({error}); repair that"
        raise UserError(
            f"config.data.prepared: {str(path.parent)!r}: {problem}, and the same command continues where it stopped, "
            "or pass another --config.data.prepared=FOLDER"
        ) from error


def check_space(folder: Path, needed: int) -> None:
    """Raises UserError if the disk of a folder has fewer than `needed` free bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"config.data.prepared: {str(folder.parent)!r} has {free / 1e9:.2f} GB free, expected {needed / 1e9:.2f}; "
            "make room, or pass another --config.data.prepared=FOLDER"
        )
