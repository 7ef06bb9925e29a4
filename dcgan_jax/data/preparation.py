"""Makes a prepared set from a source, once.

The folder is called NAME.partial until it is complete. First, `decoding` writes all pictures into images.npy. Then the
last images are moved to the indices of the unreadable ones, which are few. The card is written last.
"""

import datetime
import hashlib
import json
import logging
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.data import decoding, prepared
from dcgan_jax.data.images import PICTURE_CHANNELS
from dcgan_jax.data.sources import SOURCES
from dcgan_jax.data.sources.source import Source
from dcgan_jax.runtime import files, hub
from dcgan_jax.runtime.errors import UserError, local_path
from dcgan_jax.runtime.progress import Progress

log = logging.getLogger("dcgan_jax")

# The rules by which a folder or archive is read: which files are images, and what their labels are. Sets of earlier
# rules stay as they are, and are not taken for new ones.
READING = 3


def find_or_prepare(config: ConfigDict, workers: int | None = None) -> Path:
    """The folder of the prepared set of a validated configuration, in `config.data.prepared`; made if it is not there.

    workers: threads that decode; by default one per core. Pillow releases Python's global lock while it decodes.

    A set is identified by what it was made from: the source, its files' names, sizes and modification times, the crop
    and the size. If the source no longer exists, the newest set made from it is taken.

    Raises UserError if the source does not exist, cannot be read or has too many unreadable images, or if the disk is
    too small.
    """
    if config.channels not in PICTURE_CHANNELS and config.data.source != "array":
        raise UserError(
            f"config.channels: found {config.channels} for pictures (config.data.source is {config.data.source!r}), "
            "expected 1 (grey), 3 (colour) or 4 (with transparency); --config.data.source=array takes others"
        )
    root = local_path(config.data.prepared, "config.data.prepared")
    request = _request(config)
    module = SOURCES[config.data.source]
    earlier = _newest_match(root, request)  # by whatever rules of reading
    if config.data.source == "folder":
        request["reading"] = READING
    if earlier and hub.is_remote(request["path"]):
        return earlier
    if hasattr(module, "source_fingerprint"):
        if earlier and not Path(request["path"]).exists():
            log.info("%s no longer exists; taking what was prepared from it: %s", request["path"], earlier)
            return earlier
        with Progress("opening the source"):
            request["fingerprint"] = module.source_fingerprint(config)
    elif earlier:
        return earlier
    path = root / _folder_name(request)
    if path.exists():
        return path
    with Progress("opening the source"):
        source = module.open_source(config)
    with prepared.building(path) as partial:
        if partial:
            _log_start(source, path)
            _build(partial, source, request, workers or os.cpu_count() or 1, config.data.unreadable)
            if "fingerprint" in request and module.source_fingerprint(config) != request["fingerprint"]:
                shutil.rmtree(partial)
                raise UserError(
                    f"config.data.path: {config.data.path!r} changed while it was being prepared, expected it to stay "
                    "as it is; run the command again when it is complete"
                )
    return path


def check_path(config: ConfigDict) -> None:
    """Raises UserError, as `find_or_prepare`, if the source is a local one that is not there; makes nothing."""
    path = config.data.path
    if not hasattr(SOURCES[config.data.source], "source_fingerprint") or hub.is_remote(path):
        return
    if not path or not local_path(path, "config.data.path").exists():
        find_or_prepare(config)


def find(config: ConfigDict) -> Path | None:
    """The newest prepared set of a validated configuration's source; None if there is none. Nothing is made."""
    return _newest_match(local_path(config.data.prepared, "config.data.prepared"), _request(config))


def _log_start(source: Source, path: Path) -> None:
    log.info("preparing %d images, once: %s", len(source.names), path)
    if source.classes and not source.sharded:
        more = ", ..." if len(source.classes) > 10 else ""
        log.info("labels: %d classes, %s%s", len(source.classes), ", ".join(source.classes[:10]), more)


def _request(config: ConfigDict) -> dict[str, Any]:
    """What a set is made from and how: the first fields of its card."""
    data = config.data
    has_splits = hasattr(SOURCES[data.source], "held_out")
    local = data.path and not hub.is_remote(data.path)
    request = {
        "source": data.source,
        "path": str(local_path(data.path, "config.data.path").resolve()) if local else data.path,
        "name": data.name if data.source == "tfds" or has_splits else "",
        "split": data.split if data.source == "tfds" or (has_splits and data.split != "train") else "",
        "crop": data.crop,
        "resize": "lanczos",
        "image_size": list(config.image_size),
        "channels": config.channels,
    }
    if data.source == "digits":
        request |= {"path": "", "crop": "none", "resize": "bicubic"}
    return request


def _folder_name(request: dict[str, Any]) -> str:
    title = request["name"] if request["source"] == "tfds" else Path(request["path"]).name.partition(".")[0]
    title = title or request["source"]
    title = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in title)[:60]
    height, width = request["image_size"]
    key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:12]
    return f"{title}-{height}x{width}x{request['channels']}-{key}"


def _newest_match(root: Path, request: dict[str, Any]) -> Path | None:
    """The newest set in `root` that was made from the same source in the same way; None if there is none."""
    matches = [
        ((path / "card.json").stat().st_mtime, path)
        for path, card in prepared.cards(root)
        if request.items() <= card.items() and not card.get("deduplicated")
    ]
    return max(matches)[1] if matches else None


def _build(partial: Path, source: Source, request: dict[str, Any], workers: int, unreadable_share: float) -> None:
    shape = (*request["image_size"], request["channels"])
    if not (partial / "card.json").exists():
        done = decoding.decode_all(partial, source, request, workers)
        decoding.check_unreadable(partial, source, done, unreadable_share)
        decoding.warn_of_dark_greys(done)
        decoding.tell_enlarged(done, len(source.names), request["image_size"])
        _finish(partial, source, request, sorted(index for piece in done for index in piece.unreadable))
    card = prepared.read_card(partial)
    with (partial / "images.npy").open("r+b") as file:
        file.truncate(decoding.HEADER + card["count"] * math.prod(shape))
        os.fsync(file.fileno())
    (partial / "done.jsonl").unlink(missing_ok=True)


def _finish(partial: Path, source: Source, request: dict[str, Any], unreadable: list[int]) -> None:
    """Fills the gaps and writes all other files. After a kill, doing it again gives the same result."""
    count = len(source.names) - len(unreadable)
    if count == 0:
        shutil.rmtree(partial)
        raise UserError("config.data: the source holds no image that can be read; choose another")
    shape = (count, *request["image_size"], request["channels"])
    order = _fill_gaps(partial / "images.npy", shape, len(source.names), unreadable)
    hashes = {"images": files.sha256(partial / "images.npy", decoding.HEADER + math.prod(shape))}
    for name, array, dtype in (("labels", source.labels, np.int32), ("attributes", source.attributes, np.bool_)):
        if array is not None:
            files.write_array(partial / f"{name}.npy", array[order].astype(dtype))
            hashes[name] = files.sha256(partial / f"{name}.npy")
    prepared.write_names(partial, (source.names[index] for index in order.tolist()))
    card = {"format": prepared.FORMAT} | request
    card |= {
        "version": source.version,
        "count": count,
        "left_out": len(unreadable),
        "classes": list(source.classes),
        **({"sharded": True} if source.sharded else {}),
        "attributes": list(source.attribute_names),
        "sha256": hashes,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    prepared.write_card(partial, card)


def _fill_gaps(file: Path, shape: tuple[int, ...], total: int, unreadable: list[int]) -> np.ndarray:
    """Writes the header of images.npy and moves the last images to the indices of the unreadable ones.

    shape: of the array without the unreadable images. total: images in the source, the unreadable ones included.
    Returns the index in the source of each image that stays, int [N].
    """
    count, size = shape[0], math.prod(shape[1:])
    order = np.arange(count)
    gaps = [index for index in unreadable if index < count]
    moved = sorted(set(range(count, total)) - set(unreadable))
    with file.open("r+b") as images:
        np.lib.format.write_array_header_1_0(images, dict(descr="|u1", fortran_order=False, shape=shape))
        if images.tell() != decoding.HEADER:
            raise RuntimeError(f"numpy wrote a header of {images.tell()} bytes, expected {decoding.HEADER}")
        for gap, index in zip(gaps, moved, strict=True):
            order[gap] = index
            images.seek(decoding.HEADER + index * size)
            pixels = images.read(size)
            images.seek(decoding.HEADER + gap * size)
            images.write(pixels)
        images.flush()
        os.fsync(images.fileno())
    return order
