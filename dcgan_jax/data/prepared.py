"""Prepared sets: a folder with the images as one array that is mapped into memory, and a card that says what they are.

    card.json        source, crop, size, count, hashes, date
    images.npy       uint8 [N, H, W, C]
    labels.npy       int32 [N], where the source has labels
    attributes.npy   bool [N, A], where it has attributes
    names.txt        what each image was called, a line each

A folder is made under another name and renamed when it is whole, so one of this name is whole.
"""

import errno
import hashlib
import json
import logging
import mmap
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax import lock
from dcgan_jax.errors import UserError, local_path, writable_path

log = logging.getLogger("dcgan_jax")

FORMAT = 1
# Up to this many bytes, images are compared with their hash whenever a set is opened; beyond, by `verify` alone.
CHECKED_WHEN_OPENED = 2**30


class ImageSet(NamedTuple):
    """Prepared images: uint8 [N, H, W, C] mapped from disk, labels int32 [N] or None, attributes bool [N, A] or None,
    and the card that says what they are.
    """

    images: np.ndarray
    labels: np.ndarray | None
    card: dict[str, Any]
    attributes: np.ndarray | None = None


def check_classes(name: str, known: dict[str, Any], found: dict[str, Any]) -> None:
    """Raises UserError of the flag `name` where two cards name their classes differently: labels are their ranks."""
    expected, classes = known.get("classes"), found.get("classes")
    if expected and classes and expected != classes:
        odd = sorted(set(expected) ^ set(classes))[:5]
        raise UserError(
            f"{name}: found {len(classes)} classes, expected the {len(expected)} of the training images; not in both: "
            f"{', '.join(odd)}"
        )


def open_set(path: Path, *, verify: bool = False) -> ImageSet:
    """The prepared set in a folder. `verify` compares all of its bytes with the card's hashes, whatever their number.

    Raises UserError where it is none, or where the card does not match what lies beside it.
    """
    card = read_card(path)
    arrays: dict[str, np.ndarray | None] = {}
    shape = (card["count"], *card["image_size"], card["channels"])
    expected = {
        "images": (shape, np.uint8),
        "labels": (shape[:1], np.int32),
        "attributes": ((card["count"], len(card["attributes"])), np.bool_),
    }
    for name, (wanted, dtype) in expected.items():
        file = path / f"{name}.npy"
        if name not in card["sha256"]:
            arrays[name] = None
            continue
        try:
            array = np.lib.format.open_memmap(file, mode="r")  # refuses pickles
        except Exception as error:  # NumPy raises all kinds on damaged headers
            raise _mismatch(path, f"{name}.npy cannot be read ({' '.join(str(error).split())})") from error
        if array.shape != wanted or array.dtype != dtype:
            raise _mismatch(
                path, f"{name}.npy is {array.dtype} {array.shape}, the card says {np.dtype(dtype)} {wanted}"
            )
        large = file.stat().st_size > CHECKED_WHEN_OPENED
        if (verify or not large) and sha256(file) != card["sha256"][name]:
            raise _mismatch(path, f"{name}.npy has another hash than the card says")
        if large:  # read at random: what lies around an image is not worth reading too
            array._mmap.madvise(mmap.MADV_RANDOM)  # type: ignore[attr-defined]
        arrays[name] = array.view(np.ndarray)  # np.memmap's own indexing is slower
    assert arrays["images"] is not None
    return ImageSet(arrays["images"], arrays["labels"], card, arrays["attributes"])


def read_card(path: Any) -> dict[str, Any]:
    """The card of a prepared set, in a local folder or an etils.epath. Raises UserError where it is none."""
    file = path / "card.json"
    try:
        card = json.loads(file.read_text())
        if card["format"] != FORMAT:
            raise ValueError(f"format {card['format']}, expected {FORMAT}")
        sizes = [card["count"], card["channels"], *card["image_size"]]
        if len(sizes) != 4 or not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError(f"sizes {sizes}")
        hashes = card["sha256"]
        if not {"images"} <= hashes.keys() <= {"images", "labels", "attributes"}:
            raise ValueError(f"hashes of {', '.join(hashes)}")
        if not all(re.fullmatch("[0-9a-f]{64}", value) for value in hashes.values()):
            raise ValueError("sha256 is not of 64 hexadecimal digits")
        if not all(type(name) is str for name in (*card["attributes"], *(card.get("classes") or ()))):
            raise ValueError("attributes or classes are no names")
    except FileNotFoundError as error:
        raise UserError(
            f"config.data.path: {str(path)!r} holds no card.json, expected a prepared set; make one with "
            "launch/prepare.py, or, where the set was one, remove that folder first"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"config.data.path: {str(file)!r} is not the card of a prepared set ({type(error).__name__}: {error}); "
            "remove that folder, and prepare the set again"
        ) from error
    return card


def cards(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The prepared sets in a folder, whole ones, and their cards."""
    for file in sorted(root.glob("*/card.json")):
        if file.parent.suffix != ".partial":
            try:
                yield file.parent, read_card(file.parent)
            except UserError:
                continue  # told when it is wanted


def read_names(path: Path) -> list[str]:
    """What each image of a prepared set was called. Raises UserError where its names.txt is damaged."""
    try:
        return [json.loads(f'"{line}"') for line in (path / "names.txt").read_text("ascii").split("\n")[:-1]]
    except (OSError, ValueError) as error:
        raise _mismatch(path, f"names.txt cannot be read ({error})") from error


def write_names(folder: Path, names: Iterable[str]) -> None:
    """Writes names.txt: a line each, with JSON's escapes, so that a name may hold anything."""
    write_text(folder / "names.txt", "".join(json.dumps(name)[1:-1] + "\n" for name in names))


def write_text(file: Path, text: str) -> None:
    """Writes a file to stay; a kill leaves the old one or the new one, whole."""
    new = file.with_name(file.name + ".new")
    with new.open("w") as writer:
        writer.write(text)
        writer.flush()
        os.fsync(writer.fileno())
    new.replace(file)


def _mismatch(path: Path, what: str) -> UserError:
    return UserError(
        f"config.data.path: {str(path)!r} does not match its card: {what}; remove that folder, and prepare it again"
    )


def open_prepared(config: ConfigDict) -> ImageSet:
    """The set that `config.data.path` names. One in a bucket (gs://, s3://) is copied once into `config.data.prepared`.

    Raises UserError where it does not exist, cannot be copied, or is not of the configuration's size.
    """
    name = config.data.path
    image_set = open_set(prepared_path(config))
    found, expected = image_set.images.shape[1:], (*config.image_size, config.channels)
    if found != expected:
        height, width, channels = found
        raise UserError(
            f"config.data.path: {name!r} holds images of {found} (height, width, channels), expected {expected}; pass "
            f"--config.image_size={height},{width} --config.channels={channels}, or prepare another set"
        )
    return image_set


def prepared_path(config: ConfigDict) -> Path:
    """The local folder of the set that `config.data.path` names, copied from a bucket if need be."""
    name = config.data.path
    if not name:
        raise UserError("config.data.path: missing, expected a prepared set; pass --config.data.path=FOLDER")
    return _copied(name, config.data.prepared) if "://" in name else local_path(name, "config.data.path")


def _copied(url: str, root: str) -> Path:
    from etils import epath  # imported late: only sets in a bucket need it

    folder = writable_path(root, "config.data.prepared")
    try:
        remote = epath.Path(url)
        card = read_card(remote)
        local = folder / f"{remote.name}-{card['sha256']['images'][:12]}"
        with building(local) as partial:
            if partial:
                log.info("copying %s to %s, once", url, local)
                for name in card["sha256"]:
                    _copy(remote / f"{name}.npy", partial / f"{name}.npy")
                if (remote / "names.txt").exists():
                    _copy(remote / "names.txt", partial / "names.txt")
                write_card(partial, card)
                open_set(partial, verify=True)
    except UserError:
        raise
    except Exception as error:  # whatever the bucket's library raises
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"config.data.path: {url!r} cannot be copied ({type(error).__name__}: {reason}); check the name and your "
            "access (gs:// needs the package gcsfs, s3:// needs s3fs), or copy it yourself and pass the folder"
        ) from error
    return local


def _copy(source: Any, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 2**24)
        os.fsync(writer.fileno())


@contextmanager
def building(path: Path) -> Iterator[Path | None]:
    """A folder to build a prepared set in, renamed to `path` when the block ends well; None where `path` is there.

    One process builds, others wait for it. What a killed process left in the folder is still there. Raises UserError
    where the disk is full or fails; the same command then goes on from there.
    """
    writable_path(path, "config.data.prepared")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        guard = path.with_name(f".{path.name}.lock")
        held = lock.acquire(guard, wait=False)
        if held is None:
            log.info("another process is preparing %s: waiting for it", path)
            held = lock.acquire(guard, wait=True)
        assert held is not None
        with held:
            if path.exists():
                yield None
                return
            partial = path.with_name(path.name + ".partial")
            partial.mkdir(exist_ok=True)
            yield partial
            partial.rename(path)
            _flush(path.parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full; make room" if full else f"it cannot be written to ({error}); mend that"
        raise UserError(
            f"config.data.prepared: {str(path.parent)!r}: {what}, and the same command goes on where it was, or pass "
            "another --config.data.prepared=FOLDER"
        ) from error


def check_space(folder: Path, needed: int) -> None:
    """Raises UserError where the disk of a folder has fewer free bytes than `needed`."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"config.data.prepared: {str(folder.parent)!r} has {free / 1e9:.2f} GB free, expected {needed / 1e9:.2f}; "
            "make room, or pass another --config.data.prepared=FOLDER"
        )


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Writes the card of a set, last of all its files."""
    write_text(folder / "card.json", json.dumps(card, indent=2) + "\n")
    _flush(folder)


def write_array(file: Path, array: np.ndarray) -> None:
    """Writes an array to stay, an .npy file."""
    with file.open("wb") as writer:
        np.lib.format.write_array(writer, array, allow_pickle=False)
        writer.flush()
        os.fsync(writer.fileno())


def sha256(file: Path, size: int | None = None) -> str:
    """The SHA-256 of a file, or of its first `size` bytes, as hexadecimal digits."""
    digest = hashlib.sha256()
    left = file.stat().st_size if size is None else size
    with file.open("rb") as reader:
        while left and (block := reader.read(min(left, 2**22))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
