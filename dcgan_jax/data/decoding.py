"""Decodes the pictures of a source into one array, on all cores, in pieces, so that a kill loses a piece at most.

Image i of the source is at index i of images.npy. done.jsonl has a line per finished piece: its range, and which of its
images are unreadable.
"""

import functools
import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from dcgan_jax.data import prepared
from dcgan_jax.data.images import to_pixels
from dcgan_jax.data.sources.source import Source
from dcgan_jax.runtime import files
from dcgan_jax.runtime.errors import UserError

log = logging.getLogger("dcgan_jax")

# A larger share of unreadable images stops the preparation: something must be wrong with all of them.
MAX_UNREADABLE_SHARE = 0.01
MAX_NAMED = 20  # unreadable images that the log names
MAX_PIECE = 256  # images in a piece
HEADER = 128  # bytes of an .npy file before the images


class Piece(NamedTuple):
    """A range of images that is finished, and the reasons why some of them are unreadable."""

    start: int
    stop: int
    unreadable: dict[int, str]


def decode_all(partial: Path, source: Source, request: dict[str, Any], workers: int) -> list[Piece]:
    """Decodes all images that are not yet in images.npy. Returns all pieces."""
    count, size = len(source.names), math.prod(request["image_size"]) * request["channels"]
    file, journal = partial / "images.npy", partial / "done.jsonl"
    done = list(_finished_pieces(journal, count)) if file.exists() else []
    todo = list(_remaining_ranges(count, done, max_size=max(1, min(MAX_PIECE, count // (8 * workers)))))
    remaining = sum(stop - start for start, stop in todo)
    if done:
        log.info("continuing where it stopped: %d of %d images remain", remaining, count)
    elif journal.exists():  # none of its lines is valid, or the images are gone
        journal.unlink()
    present_bytes = file.stat().st_blocks * 512 if done else 0
    prepared.check_space(partial, HEADER + count * size - present_bytes)

    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    pool = ThreadPoolExecutor(workers if source.decoding and count > 100 else 1)
    bar = tqdm(desc="preparing", total=count, initial=count - remaining, unit=" images", disable=None, leave=False)
    try:
        os.ftruncate(descriptor, HEADER + count * size)
        with warnings.catch_warnings():
            # Pillow's, about damaged tags and large pictures: images.decode decides about these.
            warnings.simplefilter("ignore")
            for piece in pool.map(functools.partial(_decode, descriptor, source, request), todo):
                done.append(piece)
                files.append_lines(journal, [piece._asdict()])
                bar.update(piece.stop - piece.start)
                if piece.unreadable:
                    _log_unreadable(source, piece, done)
                    check_unreadable(partial, source, done)
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()
        os.close(descriptor)
    return done


def _decode(descriptor: int, source: Source, request: dict[str, Any], piece: tuple[int, int]) -> Piece:
    """Decodes the images of a piece and writes them into images.npy; they are on disk when it returns."""
    start, stop = piece
    shape = (*request["image_size"], request["channels"])
    pixels = np.zeros((stop - start, *shape), np.uint8)
    unreadable = {}
    for index in range(start, stop):
        try:
            with source.read(index) as image:
                pixels[index - start] = to_pixels(image, shape[:2], shape[2], request["crop"])
        # Pillow's decoders raise many kinds of errors for damaged files, SyntaxError and struct.error among them.
        except Exception as error:
            # The image is not to blame for a failing disk, too many open files, or too little memory.
            if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):
                raise UserError(
                    f"config.data.path: {source.names[index]!r} cannot be read at present ({error!r}); repair that, "
                    "and the same command continues where it stopped"
                ) from error
            unreadable[index] = f"{type(error).__name__}: {error}"
    view, offset = pixels.data.cast("B"), HEADER + start * pixels[0].nbytes
    while view:  # a write may be incomplete, for example just before the disk is full
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
    os.fsync(descriptor)
    return Piece(start, stop, unreadable)


def _log_unreadable(source: Source, piece: Piece, done: list[Piece]) -> None:
    """Logs the unreadable images of the last piece in `done`, up to MAX_NAMED of all pieces."""
    already_logged = sum(len(other.unreadable) for other in done[:-1])
    for index, reason in list(piece.unreadable.items())[: max(0, MAX_NAMED - already_logged)]:
        log.warning("unreadable image, left out: %r (%s)", source.names[index], reason)


def check_unreadable(partial: Path, source: Source, done: list[Piece]) -> None:
    """Removes the folder and raises UserError if too many images are unreadable."""
    reasons = [reason for piece in done for reason in piece.unreadable.values()]
    count = len(source.names)
    if len(reasons) > MAX_UNREADABLE_SHARE * count:
        shutil.rmtree(partial)
        read = sum(piece.stop - piece.start for piece in done)
        raise UserError(
            f"config.data.path: {len(reasons)} of the first {read} images are unreadable (the last: {reasons[-1]}), "
            f"expected at most {MAX_UNREADABLE_SHARE:.0%} of all {count}; repair or remove them, or pass another crop"
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


def _remaining_ranges(count: int, done: list[Piece], max_size: int) -> Iterator[tuple[int, int]]:
    """The images that are in no finished piece, in order, as ranges of at most `max_size` images."""
    start = 0
    for stop, next_start in [*sorted((piece.start, piece.stop) for piece in done), (count, count)]:
        while start < stop:
            yield start, min(start + max_size, stop)
            start = min(start + max_size, stop)
        start = max(start, next_start)
