"""Decodes the pictures of a source into one array, on all cores, in pieces, so that a kill loses a piece at most.

Image i of the source is at index i of images.npy. done.jsonl has a line per finished piece: its range, and which of its
images are unreadable.
"""

import errno
import functools
import json
import logging
import math
import os
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from dcgan_jax.data import prepared
from dcgan_jax.data.images import is_enlarged, largest_of_16_bits, to_pixels
from dcgan_jax.data.sources.source import Picture, Source
from dcgan_jax.runtime import files
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.progress import Progress

log = logging.getLogger("dcgan_jax")
T = TypeVar("T")

MAX_NAMED = 20  # unreadable images that are named
# 16-bit greys that reach no further are nearly black when they are scaled to 8 bits: cameras fill 10 to 14 bits.
DARK_GREY = 2**14
MANY = 0.1  # of all images, that it is worth telling
MAX_PIECE = 256  # images in a piece
MAX_HELD = 2**23  # bytes of a piece that are in memory before it is decoded; its last image may exceed them
CLOSED = (errno.EACCES, errno.EPERM)  # a file that this user may not read
HEADER = 128  # bytes of an .npy file before the images


class Piece(NamedTuple):
    """A range of images that is finished, why some are unreadable, its largest 16-bit grey, how many were enlarged."""

    start: int
    stop: int
    unreadable: dict[int, str]
    largest: int = 0
    enlarged: int = 0


def decode_all(partial: Path, source: Source, request: dict[str, Any], workers: int) -> list[Piece]:
    """Decodes all images that are not yet in images.npy. Returns all pieces."""
    count, size = len(source.names), math.prod(request["image_size"]) * request["channels"]
    file, journal = partial / "images.npy", partial / "done.jsonl"
    done = list(_finished_pieces(journal, count)) if file.exists() else []
    todo = list(_remaining_ranges(count, done))
    remaining = sum(stop - start for start, stop in todo)
    if done:
        log.info("continuing where it stopped: %d of %d images remain", remaining, count)
    elif journal.exists():  # none of its lines is valid, or the images are gone
        journal.unlink()
    present_bytes = file.stat().st_blocks * 512 if done else 0
    prepared.check_space(partial, HEADER + count * size - present_bytes)

    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    threads = workers if source.decoding and count > 100 else 1
    pool = ThreadPoolExecutor(threads)
    try:
        os.ftruncate(descriptor, HEADER + count * size)
        with warnings.catch_warnings(), Progress("preparing", count, "images", done=count - remaining) as shown:
            # Pillow's, about damaged tags and large pictures: images.decode decides about these.
            warnings.simplefilter("ignore")
            decode = functools.partial(_decode, descriptor, source, request)
            pieces = _pieces(source, todo, max_count=max(1, min(MAX_PIECE, count // (8 * workers))))
            for piece in _map_ahead(pool, decode, pieces, ahead=2 * threads):
                done.append(piece)
                files.append_lines(journal, [piece._asdict()])
                shown.update(piece.stop - piece.start)
    finally:
        pool.shutdown(cancel_futures=True)
        os.close(descriptor)
    return done


def _pieces(source: Source, todo: list[tuple[int, int]], max_count: int) -> Iterator[tuple[int, list[Picture]]]:
    """The first number and the pictures of each piece of these ranges, read from the source as it is iterated."""
    for start, stop in todo:
        pictures, held = [], 0
        for end, picture in enumerate(source.pictures(start, stop), start + 1):
            pictures.append(picture)
            held += picture.size
            if len(pictures) == max_count or held >= MAX_HELD or end == stop:
                yield end - len(pictures), pictures
                pictures, held = [], 0


def _map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[Any], T], items: Iterable[Any], *, ahead: int
) -> Iterator[T]:
    """As the pool's map, but takes no more than `ahead` items before their turn: they may hold much memory."""
    waiting: deque[Future[T]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _decode(descriptor: int, source: Source, request: dict[str, Any], piece: tuple[int, list[Picture]]) -> Piece:
    """Decodes the pictures of a piece and writes them into images.npy; they are on disk when it returns."""
    start, pictures = piece
    stop = start + len(pictures)
    shape = (*request["image_size"], request["channels"])
    pixels = np.zeros((stop - start, *shape), np.uint8)
    unreadable, largest, enlarged = {}, 0, 0
    for index, picture in enumerate(pictures, start):
        try:
            with picture.open() as image:
                largest = max(largest, largest_of_16_bits(image))
                pixels[index - start] = to_pixels(image, shape[:2], shape[2], request["crop"])
                enlarged += is_enlarged(image, shape[:2], request["crop"])
        # Pillow's decoders raise many kinds of errors for damaged files, SyntaxError and struct.error among them.
        except Exception as error:
            # The image is not to blame for a failing disk, too many open files, or too little memory.
            if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in (None, *CLOSED)):
                raise UserError(
                    f"config.data.path: {source.names[index]!r} cannot be read at present ({error!r}); repair that, "
                    "and the same command continues where it stopped"
                ) from error
            unreadable[index] = _reason(error)
    view, offset = pixels.data.cast("B"), HEADER + start * pixels[0].nbytes
    while view:  # a write may be incomplete, for example just before the disk is full
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
    os.fsync(descriptor)
    return Piece(start, stop, unreadable, largest, enlarged)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in CLOSED:
        return "permission denied"
    return " ".join(str(error).split()) or type(error).__name__


def check_unreadable(partial: Path, source: Source, done: list[Piece], share: float) -> None:
    """Warns of the unreadable images, or if they are more than this share, removes the folder and raises UserError."""
    reasons = {index: reason for piece in done for index, reason in piece.unreadable.items()}
    count = len(source.names)
    if not reasons:
        return
    named = ", ".join(f"{source.names[index]} ({reasons[index]})" for index in sorted(reasons)[:MAX_NAMED])
    named += f" and {len(reasons) - MAX_NAMED} more" if len(reasons) > MAX_NAMED else ""
    if len(reasons) / count <= share:
        log.warning("%d of the %d images are unreadable and left out: %s", len(reasons), count, named)
        return
    shutil.rmtree(partial)
    crop = "pass another --config.data.crop, " if any("crop=" in reason for reason in reasons.values()) else ""
    more = f", or pass --config.data.unreadable={-(-100 * len(reasons) // count) / 100}" if len(reasons) < count else ""
    raise UserError(
        f"config.data.path: {len(reasons)} of {count} images cannot be read: {named}; expected at most {share:.3g} of "
        f"all; {crop}remove or repair them{more}"
    )


def warn_of_dark_greys(done: list[Piece]) -> None:
    """Warns if 16-bit greys reach no further than a small part of their range."""
    largest = max((piece.largest for piece in done), default=0)
    if 0 < largest < DARK_GREY:
        log.warning(
            "the 16-bit greys have values up to %d of 65535, so they are dark, with at most %d of 255; if that is not "
            "meant, scale them to the whole range and prepare them again",
            largest,
            largest // 257,
        )


def tell_enlarged(done: list[Piece], count: int, image_size: tuple[int, int]) -> None:
    """Tells if many of `count` images were smaller than `image_size`: they are blurred, and so will be the samples."""
    enlarged, (height, width) = sum(piece.enlarged for piece in done), image_size
    if enlarged > MANY * count:
        log.warning(
            "%d of the %d images are smaller than %dx%d and were enlarged, so they are blurred; a smaller "
            "--config.image_size, or larger images, would show more",
            *(enlarged, count, height, width),
        )


def _finished_pieces(journal: Path, count: int) -> Iterator[Piece]:
    """The valid lines of done.jsonl, for a source of `count` images."""
    lines = journal.read_text(errors="replace").splitlines() if journal.exists() else []
    for line in lines:
        try:
            piece = Piece(**json.loads(line))
            unreadable = {int(index): reason for index, reason in piece.unreadable.items()}
            valid = 0 <= piece.start < piece.stop <= count and unreadable.keys() <= set(range(piece.start, piece.stop))
        except (ValueError, TypeError, AttributeError):
            continue  # cut short by a kill: this piece is done again
        if valid:
            yield piece._replace(unreadable=unreadable)


def _remaining_ranges(count: int, done: list[Piece]) -> Iterator[tuple[int, int]]:
    """The ranges of images that are in no finished piece, in order."""
    start = 0
    for stop, next_start in [*sorted((piece.start, piece.stop) for piece in done), (count, count)]:
        if start < stop:
            yield start, stop
        start = max(start, next_start)
