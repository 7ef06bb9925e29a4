"""All files below a folder, or in a zip or tar archive that is read without unpacking it."""

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

from dcgan_jax.runtime.errors import UserError

log = logging.getLogger("dcgan_jax")

# Files in an archive are held in memory while they are decoded.
MAX_MEMBER_BYTES = 2**28
# What systems and file servers leave among files, besides what begins with a dot; in lower case.
LEFT_BEHIND = frozenset({"__macosx", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"})
# What tarfile raises for damaged archives.
TAR_ERRORS = (OSError, EOFError, tarfile.TarError, zlib.error, LZMAError)


class Tree(NamedTuple):
    """Files by name, without hidden ones and those that systems leave behind.

    names: with folders, in the order in which they are best read.
    open: a file by its name, for `images.decode`, from any thread. Raises OSError or ValueError if it cannot be read.
    """

    names: list[str]
    open: Callable[[str], Path | BytesIO]


class BrokenLink(OSError):
    """A link to something that is not there."""


def parts(name: str) -> tuple[str, ...]:
    """The folders of a file, and its own name. Backslashes separate too: archives made on Windows have them."""
    return PurePosixPath(name.replace("\\", "/")).parts


def content(tree: Tree, name: str) -> bytes:
    """The content of a file. Raises as `Tree.open` does."""
    file = tree.open(name)
    return file.read_bytes() if isinstance(file, Path) else file.read()


def open_tree(path: Path) -> Tree:
    """The tree of a folder or of an archive, as `is_archive` recognises them.

    Raises UserError if it cannot be read, or if a name in an archive leads out of it.
    """
    if path.is_dir():
        return _folder(path)
    return _zip(path) if zipfile.is_zipfile(path) else _tar(path)


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or tar archive, so far as its beginning or end tells."""
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except TAR_ERRORS:  # compressed, but cut short
        return False


def _passed_over(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) or part.lower() in LEFT_BEHIND for part in parts(name))


def _folder(root: Path) -> Tree:
    def open_file(name: str) -> Path:
        path = root / name
        if not path.is_file() and os.path.lexists(path):
            raise (
                OSError("not a regular file") if path.exists() else BrokenLink("a link to something that is not there")
            )
        if path.stat().st_size == 0:
            raise OSError("empty file")
        return path

    return Tree(sorted(_names(root)), open_file)


def _names(root: Path) -> Iterator[str]:
    """The names of all files below a folder, relative to it."""

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
        subfolders[:] = sorted(name for name in subfolders if not _passed_over(name) and not name.endswith(".partial"))
        relative = os.path.relpath(folder, root)
        for name in files:
            if not _passed_over(name):
                yield name if relative == "." else f"{relative}/{name}"


def _check_member_name(archive: Path, name: str) -> None:
    if name.startswith(("/", "\\")) or ".." in parts(name):
        raise UserError(
            f"config.data.path: {str(archive)!r} holds {name!r}, a name that leads out of the archive, expected names "
            "below it; pack it again, or unpack it with care and pass the folder"
        )


def check_member_size(size: int) -> None:
    """Raises OSError or ValueError for a file in an archive that is empty, or too large to be held in memory."""
    if size == 0:
        raise OSError("empty file")
    if size > MAX_MEMBER_BYTES:
        raise ValueError(f"{size} bytes, expected at most {MAX_MEMBER_BYTES}")


def _zip(path: Path) -> Tree:
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise UserError(
            f"config.data.path: {str(path)!r} cannot be read ({error}), expected a complete zip; download it again"
        ) from error
    members = {}
    for member in archive.infolist():
        _check_member_name(path, member.filename)
        if not member.filename.endswith(("/", "\\")) and not _passed_over(member.filename):
            members[member.filename] = member

    def open_member(name: str) -> BytesIO:
        member = members[name]
        check_member_size(member.file_size)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"compressed by method {member.compress_type}, expected stored or deflated")
        with archive.open(member) as file:
            return BytesIO(file.read(member.file_size))  # no more than the size that was checked

    return Tree(sorted(members), open_member)


def _tar(path: Path) -> Tree:
    places, skipped = tar_places(path)
    if skipped:
        log.warning("%s: %d links and other members that are not files are left out", path, skipped)
    per_thread = threading.local()

    def open_member(name: str) -> BytesIO:
        if not hasattr(per_thread, "file"):  # each thread has its own position in the file
            per_thread.file = tarfile.open(path).fileobj  # noqa: SIM115
        offset, size = places[name]
        check_member_size(size)
        per_thread.file.seek(offset)
        return BytesIO(per_thread.file.read(size))

    # In the order in which they are stored: a compressed archive can only be read forwards.
    return Tree(sorted(places, key=lambda name: places[name][0]), open_member)


def tar_places(path: Path) -> tuple[dict[str, tuple[int, int]], int]:
    """The offset and size of each file in a tar archive, and the number of members that are neither file nor folder.

    Raises UserError if it cannot be read, or if a name leads out of it.
    """
    places: dict[str, tuple[int, int]] = {}
    skipped = 0
    try:
        with tarfile.open(path) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all members in memory
                _check_member_name(path, member.name)
                if member.isdir() or _passed_over(member.name):
                    continue
                if member.isreg():
                    places[member.name] = (member.offset_data, member.size)
                elif member.islnk() and member.linkname in places:
                    places[member.name] = places[member.linkname]
                else:
                    skipped += 1
            _check_end(archive)
    except TAR_ERRORS as error:
        raise UserError(
            f"config.data.path: {str(path)!r} cannot be read ({error}), expected a complete tar; download it again"
        ) from error
    return places, skipped


def _check_end(archive: tarfile.TarFile) -> None:
    """Raises tarfile.ReadError if the archive is cut short or has a damaged header; tarfile takes both for its end."""
    file = archive.fileobj
    assert file is not None
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no end of archive at byte {archive.offset}")
    while file.read(2**20):  # to the end, where a compressed archive has its checksum
        pass
