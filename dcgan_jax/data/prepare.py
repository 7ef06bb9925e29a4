"""From a source to a prepared set on disk, once: decoded on all cores, in pieces, so that a kill costs a piece at most.

While it is being made, the folder is NAME.partial, images.npy holds image i of the source at place i, and a line of
done.jsonl says of each finished piece what it covers and which of its images were unreadable. At the end the last
images take the places of the unreadable ones, whose number is small, and the card is written.
"""

import datetime
import functools
import hashlib
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
from ml_collections import ConfigDict
from tqdm import tqdm

from dcgan_jax.data import digits, files, idx, lsun, prepared, tfds
from dcgan_jax.data.images import prepare
from dcgan_jax.data.source import Source
from dcgan_jax.errors import UserError, local_path

log = logging.getLogger("dcgan_jax")

SOURCES = {"digits": digits, "folder": files, "idx": idx, "lmdb": lsun, "tfds": tfds}
# More unreadable images than this share stop the preparation: then something is wrong with all, not with an image.
TOLERATED = 0.01
NAMED = 20  # unreadable images that are named in the log
PIECE = 256  # most images in a piece
HEADER = 128  # bytes of an .npy file before the images


def find_or_prepare(config: ConfigDict, workers: int | None = None) -> Path:
    """The folder with the prepared set of a validated configuration, below `config.data.prepared`; made if not there.

    workers: threads that decode; as many as there are cores by default. Pillow lets go of Python's lock as it decodes.

    A set is found again by what it was made from: the source, its files' names, sizes and times of change, the crop and
    the size. Where the source is gone, the newest set made from it is taken.

    Raises UserError where the source does not exist, cannot be read, or has too many unreadable images, and where the
    disk is too small.
    """
    root = local_path(config.data.prepared, "config.data.prepared")
    request = _request(config)
    module = SOURCES[config.data.source]
    old = _made_before(root, request)
    if hasattr(module, "source_fingerprint"):
        if old and not Path(request["path"]).exists():
            log.info("%s is gone; taking what was prepared from it: %s", request["path"], old)
            return old
        request["fingerprint"] = module.source_fingerprint(config)
    elif old:
        return old
    path = root / _title(request)
    if path.exists():
        return path
    source = module.open_source(config)
    with prepared.building(path) as partial:
        if partial:
            log.info("preparing %d images, once: %s", len(source.names), path)
            if source.classes:
                more = ", ..." if len(source.classes) > 10 else ""
                log.info("labels: %d classes, %s%s", len(source.classes), ", ".join(source.classes[:10]), more)
            _build(partial, source, request, workers or os.cpu_count() or 1)
            if "fingerprint" in request and module.source_fingerprint(config) != request["fingerprint"]:
                shutil.rmtree(partial)
                raise UserError(
                    f"config.data.path: {config.data.path!r} changed while it was being prepared, expected it to stay "
                    "as it is; give the command again when it does"
                )
    return path


def _request(config: ConfigDict) -> dict[str, Any]:
    """What a prepared set is made from and how, as its card will say."""
    data = config.data
    request = {
        "source": data.source,
        "path": str(local_path(data.path, "config.data.path").resolve()) if data.path else "",
        "name": data.name if data.source == "tfds" else "",
        "split": data.split if data.source == "tfds" else "",
        "crop": data.crop,
        "resize": "lanczos",
        "image_size": list(config.image_size),
        "channels": config.channels,
    }
    if data.source == "digits":
        request |= {"path": "", "crop": "none", "resize": "bicubic"}
    return request


def _title(request: dict[str, Any]) -> str:
    title = request["name"] or Path(request["path"]).name.partition(".")[0] or request["source"]
    title = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in title)[:60]
    height, width = request["image_size"]
    key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:12]
    return f"{title}-{height}x{width}x{request['channels']}-{key}"


def _made_before(root: Path, request: dict[str, Any]) -> Path | None:
    found = [
        ((path / "card.json").stat().st_mtime, path)
        for path, card in prepared.cards(root)
        if request.items() <= card.items() and not card.get("deduplicated")
    ]
    return max(found)[1] if found else None


class _Piece(NamedTuple):
    start: int
    stop: int
    unreadable: dict[int, str]


def _build(partial: Path, source: Source, request: dict[str, Any], workers: int) -> None:
    shape = (*request["image_size"], request["channels"])
    if not (partial / "card.json").exists():
        done = _decode_all(partial, source, request, workers)
        _judge(partial, source, done)
        unreadable = {index: reason for piece in done for index, reason in piece.unreadable.items()}
        if unreadable:
            log.warning("%d of the %d images are unreadable and left out", len(unreadable), len(source.names))
        _finish(partial, source, request, sorted(unreadable))
    card = prepared.read_card(partial)
    with (partial / "images.npy").open("r+b") as file:
        file.truncate(HEADER + card["count"] * math.prod(shape))
        os.fsync(file.fileno())
    (partial / "done.jsonl").unlink(missing_ok=True)


def _decode_all(partial: Path, source: Source, request: dict[str, Any], workers: int) -> list[_Piece]:
    """Fills images.npy with what is not there yet; returns all pieces."""
    count, size = len(source.names), math.prod(request["image_size"]) * request["channels"]
    file = partial / "images.npy"
    done = list(_finished(partial / "done.jsonl", count)) if file.exists() else []
    waiting = list(_pieces(count, done, most=max(1, min(PIECE, count // (8 * workers)))))
    left = sum(stop - start for start, stop in waiting)
    if done:
        log.info("going on where it was stopped: %d of %d images are left", left, count)
    there = file.stat().st_blocks * 512 if done else 0
    prepared.check_space(partial, HEADER + count * size - there)

    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    pool = ThreadPoolExecutor(workers if source.decoding and count > 100 else 1)
    bar = tqdm(desc="preparing", total=count, initial=count - left, unit=" images", disable=None, leave=False)
    try:
        os.ftruncate(descriptor, HEADER + count * size)
        with (partial / "done.jsonl").open("a" if done else "w") as journal, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of damaged tags and large pictures: images.decode judges
            journal.write("\n" if done else "")  # a line that a kill cut short ends here
            for piece in pool.map(functools.partial(_decode, descriptor, source, request), waiting):
                done.append(piece)
                journal.write(json.dumps(piece._asdict()) + "\n")
                journal.flush()
                bar.update(piece.stop - piece.start)
                if piece.unreadable:
                    _name(source, piece, done)
                    _judge(partial, source, done)
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()
        os.close(descriptor)
    return done


def _decode(descriptor: int, source: Source, request: dict[str, Any], piece: tuple[int, int]) -> _Piece:
    """Decodes the images of a piece, and writes them to their place in images.npy, to stay."""
    start, stop = piece
    shape = (*request["image_size"], request["channels"])
    pixels = np.zeros((stop - start, *shape), np.uint8)
    unreadable = {}
    for index in range(start, stop):
        try:
            with source.read(index) as image:
                pixels[index - start] = prepare(image, shape[:2], shape[2], request["crop"])
        # Pillow's decoders raise all kinds of errors on damaged files, SyntaxError and struct.error among them.
        except Exception as error:
            # But these are not the image's fault: a disk that fails, too many open files, no memory left.
            if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):
                raise UserError(
                    f"config.data.path: {source.names[index]!r} cannot be read at present ({error!r}); mend that, and "
                    "the same command goes on where it was"
                ) from error
            unreadable[index] = f"{type(error).__name__}: {error}"
    view, place = pixels.data.cast("B"), HEADER + start * pixels[0].nbytes
    while view:  # a write may end early, as before a full disk
        written = os.pwrite(descriptor, view, place)
        view, place = view[written:], place + written
    os.fsync(descriptor)
    return _Piece(start, stop, unreadable)


def _name(source: Source, piece: _Piece, done: list[_Piece]) -> None:
    """Names the unreadable images of the piece that was done last, the first ones of all."""
    before = sum(len(other.unreadable) for other in done[:-1])
    for index, reason in list(piece.unreadable.items())[: max(0, NAMED - before)]:
        log.warning("unreadable image, left out: %r (%s)", source.names[index], reason)


def _judge(partial: Path, source: Source, done: list[_Piece]) -> None:
    """Raises UserError, and leaves nothing, where too many images are unreadable."""
    reasons = [reason for piece in done for reason in piece.unreadable.values()]
    count = len(source.names)
    if len(reasons) > TOLERATED * count:
        shutil.rmtree(partial)
        read = sum(piece.stop - piece.start for piece in done)
        raise UserError(
            f"config.data.path: {len(reasons)} of the first {read} images are unreadable (the last: {reasons[-1]}), "
            f"expected at most {TOLERATED:.0%} of all {count}; repair or remove them, or pass another crop"
        )


def _finished(journal: Path, count: int) -> Iterator[_Piece]:
    """The pieces that a journal says are done, of a source of so many images."""
    lines = journal.read_text(errors="replace").splitlines() if journal.exists() else []
    for line in lines:
        try:
            piece = _Piece(**json.loads(line))
            unreadable = {int(index): reason for index, reason in piece.unreadable.items()}
            sound = 0 <= piece.start < piece.stop <= count and unreadable.keys() <= set(range(piece.start, piece.stop))
        except (ValueError, TypeError, AttributeError):
            continue  # cut short by a kill: its piece is done again
        if sound:
            yield piece._replace(unreadable=unreadable)


def _pieces(count: int, done: list[_Piece], most: int) -> Iterator[tuple[int, int]]:
    """What is left to do, in order, as ranges of at most `most` images."""
    start = 0
    for stop, following in [*sorted((piece.start, piece.stop) for piece in done), (count, count)]:
        while start < stop:
            yield start, min(start + most, stop)
            start = min(start + most, stop)
        start = max(start, following)


def _finish(partial: Path, source: Source, request: dict[str, Any], unreadable: list[int]) -> None:
    """Closes the gaps, and writes everything but the images. Doing it again changes nothing."""
    shape = (*request["image_size"], request["channels"])
    size, count = int(np.prod(shape)), len(source.names) - len(unreadable)
    if count == 0:
        shutil.rmtree(partial)
        raise UserError("config.data: the source holds no image that can be read; choose another")
    order = np.arange(count)
    gaps = [index for index in unreadable if index < count]
    movers = sorted(set(range(count, len(source.names))) - set(unreadable))
    with (partial / "images.npy").open("r+b") as file:
        np.lib.format.write_array_header_1_0(file, dict(descr="|u1", fortran_order=False, shape=(count, *shape)))
        if file.tell() != HEADER:
            raise RuntimeError(f"numpy wrote a header of {file.tell()} bytes, expected {HEADER}")
        for gap, mover in zip(gaps, movers, strict=True):
            order[gap] = mover
            file.seek(HEADER + mover * size)
            pixels = file.read(size)
            file.seek(HEADER + gap * size)
            file.write(pixels)
        file.flush()
        os.fsync(file.fileno())

    hashes = {"images": prepared.sha256(partial / "images.npy", HEADER + count * size)}
    for name, array, dtype in (("labels", source.labels, np.int32), ("attributes", source.attributes, np.bool_)):
        if array is not None:
            prepared.write_array(partial / f"{name}.npy", array[order].astype(dtype))
            hashes[name] = prepared.sha256(partial / f"{name}.npy")
    prepared.write_names(partial, (source.names[index] for index in order.tolist()))
    card = {"format": prepared.FORMAT} | request
    card |= {
        "version": source.version,
        "count": count,
        "left_out": len(unreadable),
        "classes": list(source.classes),
        "attributes": list(source.attribute_names),
        "sha256": hashes,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    prepared.write_card(partial, card)
