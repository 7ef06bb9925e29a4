"""What a file is, by its first bytes, where it is not the images, arrays or weights that it should be."""

from typing import NamedTuple

HEAD = 512  # bytes to look at


class Content(NamedTuple):
    """What a file is, and what can be done about it."""

    what: str
    advice: str


UNPACK, EXPORT = "unpack it", "export what it holds"
SIGNATURES = (
    (b"version https://git-lfs", Content("a pointer of git-lfs", "run git lfs pull in its repository")),
    (b"Rar!\x1a\x07", Content("a RAR archive", UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", Content("a 7-Zip archive", UNPACK)),
    (b"\x28\xb5\x2f\xfd", Content("a file compressed by zstd", UNPACK)),
    (b"\x04\x22\x4d\x18", Content("a file compressed by lz4", UNPACK)),
    (b"PK\7\x08", Content("one part of a zip archive in several", "unpack it with all its parts")),
    (b"\x1f\x8b", Content("a file compressed by gzip", UNPACK)),
    (b"%PDF", Content("a PDF document", EXPORT)),
    (b"PAR1", Content("a Parquet file", EXPORT)),
    (b"\x89HDF", Content("an HDF5 file", EXPORT)),
    (b"<?xml", Content("an XML document", "download it again")),
)
WEB_PAGE = Content("a web page (HTML)", "download it again, with a browser if it needs a login or a confirmation")
VIDEO = Content("a video", "export its frames as images")
HEIC = Content("a HEIC image", "pip install --editable '.[heic]'")


def described(head: bytes) -> Content | None:
    """What the file with these first bytes is; None if it is nothing that is known here."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return WEB_PAGE
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return HEIC
    if head[4:8] == b"ftyp" and head[8:12] in (b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"M4V ", b"qt  "):
        return VIDEO
    return next((content for signature, content in SIGNATURES if head.startswith(signature)), None)
