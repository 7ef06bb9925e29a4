"""Images in arrays, as scientists keep them: an .npy, an .npz, or a folder of .npy files.

An .npy is mapped into memory, and its images are read one by one; an array of an .npz is held in memory.
"""

import itertools
import logging
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.data.sources import array_names, array_pixels, layout
from dcgan_jax.data.sources.array_parts import Part, arrays_in, in_file, in_folder, labels_beside
from dcgan_jax.data.sources.source import Source, fingerprint
from dcgan_jax.runtime.array_files import read_headers, release
from dcgan_jax.runtime.errors import UserError, local_path

log = logging.getLogger("dcgan_jax")

RELEASE_EVERY_BYTES = 2**28  # pages of a mapped file count as memory of this process until they are released


def open_source(config: ConfigDict) -> Source:
    """The images [N, H, W] or [N, H, W, C] of arrays, in their order, with labels beside them.

    What was taken for what is logged in a line: the axes ([N, C, H, W] where that is clear), and the range of floats.
    Raises UserError if there is no such file, if several arrays could be meant, for other numbers than those of
    `array_pixels.values_of`, if the channels are not those of the configuration, or if the number of labels is wrong.
    """
    path, channels = _path(config.data.path), config.channels
    with _told_of(path):
        found = in_folder(path, config) if path.is_dir() else in_file(path, config)
        first, told = _layout(found.parts, channels)
        dtype = found.parts[0].header.dtype
        values = array_pixels.values_of(
            dtype, lambda: array_pixels.extremes((part.name, part.open()) for part in found.parts)
        )
        found.parts[0].open()  # before several threads would
    shapes = sorted({part.header.shape[1:] for part in found.parts})
    shape = str((len(found.names), *shapes[0])) if len(shapes) == 1 else f"of {len(shapes)} sizes"
    log.info(
        "%s: %s",
        path,
        "; ".join(filter(None, (f"{found.what} {dtype} {shape} {told}".strip(), values.told, found.labels.told))),
    )
    starts = [0, *itertools.accumulate(part.header.shape[0] for part in found.parts)]

    def read(index: int) -> nullcontext[np.ndarray]:
        number = bisect_right(starts, index) - 1
        array = found.parts[number].open()
        image = array[index - starts[number]]
        if index % max(1, RELEASE_EVERY_BYTES // image.nbytes) == 0:
            release(array)
        image = image[..., None] if image.ndim == 2 else np.moveaxis(image, 0, -1) if first else image
        return nullcontext(array_pixels.to_channels(values.convert(image), channels))

    return Source(names=found.names, read=read, labels=found.labels.labels, classes=found.labels.classes)


def source_fingerprint(config: ConfigDict) -> str:
    """Changes when one of the files is written again. Raises UserError if there is none."""
    path = _path(config.data.path)
    if path.is_dir():
        return fingerprint([path / name for name in arrays_in(path)])
    return fingerprint([path, labels_beside(path) or Path("no labels")])


def held_out(config: ConfigDict) -> tuple[str, str] | None:
    """The path and split of held-out images: the test split, else that for validation; None if there is neither.

    They are an array of the same .npz or folder (`test_images`), or a file beside an .npy (x_test.npy by x_train.npy).
    Raises UserError as `open_source` does.
    """
    path = _path(config.data.path)
    for split in ("test", "val"):
        if split == layout.split_of(config.data.split):
            continue
        with _told_of(path):
            if path.is_dir():
                names = arrays_in(path)
                there = split in layout.splits(names) or split in {
                    array_names.parsed(Path(name).stem)[0] for name in names
                }
            elif path.suffix.lower() == ".npy":
                own, kind = array_names.parsed(path.stem)
                files = sorted(path.parent.glob("*.npy")) if own == "train" else []
                beside = next((file for file in files if array_names.parsed(file.stem) == (split, kind)), None)
                if beside:
                    return str(beside), split
                continue
            else:
                named = (array_names.parsed(name) for name in read_headers(path))
                there = any(own == split and kind in array_names.IMAGES for own, kind in named)
        if there:
            return config.data.path, split
    return None


def _path(name: str) -> Path:
    expected = "expected an .npy, an .npz, or a folder of .npy files; pass --config.data.path=..."
    path = local_path(name, "config.data.path")
    if not name:
        raise UserError(f"config.data.path: missing, {expected}")
    if not path.exists():
        raise UserError(f"config.data.path: {name!r} does not exist, {expected}")
    return path


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        reason = error if isinstance(error, ValueError) else f"cannot be read ({error.strerror}); make it readable"
        raise UserError(f"config.data.path: {str(path)!r} {reason}") from error


def _layout(parts: list[Part], channels: int) -> tuple[bool, str]:
    """Whether channels come first in the images of all parts, and a text that tells.

    Raises ValueError if parts differ in this or in their dtype, or have other channels than are asked for.
    """
    known: dict[tuple[bool, int, np.dtype], Part] = {}
    for part in parts:
        shape = part.header.shape[1:]
        first = len(shape) == 3 and array_pixels.channels_first(shape, channels)
        count = 1 if len(shape) == 2 else shape[0 if first else -1]
        known.setdefault((first, count, part.header.dtype), part)
    if len(known) > 1:
        pair = array_names.listed({part.name: part.header for part in list(known.values())[:2]})
        raise ValueError(f"holds {pair}, expected arrays of one kind, with equally many channels; move the others away")
    ((first, count, _),) = known
    axes = "[N, C, H, W]" if first else "[N, H, W]" if len(parts[0].header.shape) == 3 else "[N, H, W, C]"
    if count != channels and (count, channels) not in array_pixels.CONVERTED:
        raise ValueError(
            f"has {count} channels as {axes}, expected {channels}, config.channels; pass --config.channels={count}"
        )
    converted = "" if count == channels else f", {array_pixels.CONVERTED[count, channels]}"
    return first, f"as {axes}{converted}"
