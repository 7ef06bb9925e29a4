"""A tree of image files: a folder, or a zip or tar archive that is read without unpacking it."""

import logging
import os
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dcgan_jax.data.images import decode
from dcgan_jax.data.sources import celeba
from dcgan_jax.data.sources.source import Source, fingerprint
from dcgan_jax.runtime.errors import UserError, local_path

log = logging.getLogger("dcgan_jax")

EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# Files in an archive are held in memory while they are decoded.
MAX_MEMBER_BYTES = 2**28


class _Tree(NamedTuple):
    names: list[str]
    read: Callable[[int], Image.Image]


def open_source(config: ConfigDict) -> Source:
    """All images below a folder or in an archive, in the order of their names.

    The label of an image is the rank of its folder's name, at the first level with more than one folder. CelebA's
    attributes are read from `list_attr_celeba.txt` beside the images, if it is there.

    Raises UserError if the folder or archive does not exist or has no image, if a name in an archive leads out of it,
    or if CelebA is incomplete.
    """
    path = _source_path(config.data.path)
    if path.is_dir():
        tree = _folder(path)
    elif zipfile.is_zipfile(path):
        tree = _zip(path)
    else:
        tree = _tar(path)
    if not tree.names:
        raise UserError(
            f"config.data.path: {config.data.path!r} holds no image, expected files such as "
            f"{', '.join(sorted(EXTENSIONS))} at any depth; pass another --config.data.path=FOLDER"
        )
    celeba.check(path, tree.names)
    labels, classes = _labels(tree.names)
    attributes, attribute_names = celeba.attributes(path, tree.names)
    return Source(tree.names, tree.read, labels, classes, attributes, attribute_names)


def source_fingerprint(config: ConfigDict) -> str:
    """Changes when a file is added, removed or written again. Raises UserError if the path does not exist."""
    path = _source_path(config.data.path)
    images = [path / name for name in sorted(_image_names(path))] if path.is_dir() else [path]
    return fingerprint([*images, celeba.attributes_file(path) or Path("no attributes")])


def _source_path(name: str) -> Path:
    path = local_path(name, "config.data.path")
    if not name:
        raise UserError(
            "config.data.path: missing, expected a folder of images, a zip or a tar; pass --config.data.path=..."
        )
    if not path.exists():
        raise UserError(
            f"config.data.path: {name!r} does not exist, expected a folder of images, a zip or a tar; "
            f"{celeba.ADVICE if celeba.is_celeba(path) else 'pass --config.data.path=...'}"
        )
    if not path.is_dir() and not (path.is_file() and (zipfile.is_zipfile(path) or _is_tar(path))):
        raise UserError(
            f"config.data.path: {name!r} is not a folder, nor a complete zip or tar archive, expected one of images; "
            "pass another --config.data.path, or download the archive again"
        )
    return path


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error, LZMAError):  # compressed, but cut short
        return False


def _is_image(name: str) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)
    return not hidden and PurePosixPath(name).suffix.lower() in EXTENSIONS


def _folder(root: Path) -> _Tree:
    names = sorted(_image_names(root))

    def read(index: int) -> Image.Image:
        path = root / names[index]
        if not path.is_file() and os.path.lexists(path):
            raise OSError("not a regular file")
        if path.stat().st_size == 0:
            raise OSError("empty file")
        return decode(path)

    return _Tree(names, read)


def _image_names(root: Path) -> Iterator[str]:
    """The names of all image files below a folder, relative to it."""

    def refuse(error: OSError) -> None:
        raise UserError(
            f"config.data.path: {error.filename!r} cannot be read ({error.strerror}); make it readable, or remove it"
        )

    visited: set[str] = set()
    for folder, subfolders, files in os.walk(root, onerror=refuse, followlinks=True):
        # Links are followed, but each folder is read once only: links may form a circle.
        if os.path.realpath(folder) in visited:
            subfolders.clear()
            continue
        visited.add(os.path.realpath(folder))
        if {"card.json", "images.npy"} <= set(files):  # a prepared set, perhaps with pictures of near-duplicates
            subfolders.clear()
            continue
        subfolders[:] = sorted(
            name for name in subfolders if not name.startswith(".") and not name.endswith(".partial")
        )
        relative = os.path.relpath(folder, root)
        for name in files:
            if _is_image(name):
                yield name if relative == "." else f"{relative}/{name}"


def _check_member_name(archive: Path, name: str) -> None:
    inner = PurePosixPath(name.replace("\\", "/"))  # archives made on Windows
    if inner.is_absolute() or ".." in inner.parts:
        raise UserError(
            f"config.data.path: {str(archive)!r} holds {name!r}, a name that leads out of the archive, expected names "
            "below it; pack it again, or unpack it with care and pass the folder"
        )


def _check_member_size(size: int) -> None:
    if size == 0:
        raise OSError("empty file")
    if size > MAX_MEMBER_BYTES:
        raise ValueError(f"{size} bytes, expected at most {MAX_MEMBER_BYTES}")


def _zip(path: Path) -> _Tree:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UserError(
            f"config.data.path: {str(path)!r} cannot be read ({error}), expected a complete zip; download it again"
        ) from error
    members = {}
    for member in archive.infolist():
        _check_member_name(path, member.filename)
        if not member.is_dir() and _is_image(member.filename):
            members[member.filename] = member
    names = sorted(members)

    def read(index: int) -> Image.Image:
        member = members[names[index]]
        _check_member_size(member.file_size)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"compressed by method {member.compress_type}, expected stored or deflated")
        with archive.open(member) as file:
            return decode(BytesIO(file.read(member.file_size)))  # no more than the size that was checked

    return _Tree(names, read)


def _tar(path: Path) -> _Tree:
    offsets, skipped = _tar_images(path)
    if skipped:
        log.warning("%s: %d links and other members that are not files are left out", path, skipped)
    # In the order in which they are stored: a compressed archive can only be read forwards.
    names = sorted(offsets, key=lambda name: offsets[name][0])
    per_thread = threading.local()

    def read(index: int) -> Image.Image:
        if not hasattr(per_thread, "file"):  # each thread has its own position in the file
            per_thread.file = tarfile.open(path).fileobj  # noqa: SIM115
        offset, size = offsets[names[index]]
        _check_member_size(size)
        per_thread.file.seek(offset)
        return decode(BytesIO(per_thread.file.read(size)))

    return _Tree(names, read)


def _tar_images(path: Path) -> tuple[dict[str, tuple[int, int]], int]:
    """The offset and size of each image in a tar archive, and the number of images that are not files."""
    offsets: dict[str, tuple[int, int]] = {}
    skipped = 0
    try:
        with tarfile.open(path) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all members in memory
                _check_member_name(path, member.name)
                if not _is_image(member.name):
                    continue
                if member.isreg():
                    offsets[member.name] = (member.offset_data, member.size)
                elif member.islnk() and member.linkname in offsets:
                    offsets[member.name] = offsets[member.linkname]
                else:
                    skipped += 1
            _check_end(archive)
    except (OSError, EOFError, tarfile.TarError, zlib.error, LZMAError) as error:
        raise UserError(
            f"config.data.path: {str(path)!r} cannot be read ({error}), expected a complete tar; download it again"
        ) from error
    return offsets, skipped


def _check_end(archive: tarfile.TarFile) -> None:
    """Raises tarfile.ReadError if the archive is cut short or has a damaged header; tarfile takes both for its end."""
    file = archive.fileobj
    assert file is not None
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no end of archive at byte {archive.offset}")
    while file.read(2**20):  # to the end, where a compressed archive has its checksum
        pass


def _labels(names: list[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels by the first level of folders that has several; (None, ()) if no level that all images share has."""
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    for level in zip(*folders, strict=False):  # ends with the shortest path
        classes = sorted(set(level))
        if len(classes) > 1:
            rank = {name: i for i, name in enumerate(classes)}
            return np.fromiter((rank[name] for name in level), np.int32, len(level)), tuple(classes)
    return None, ()
