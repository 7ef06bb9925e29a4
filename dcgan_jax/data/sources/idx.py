"""MNIST's own format: idx files of unsigned bytes (yann.lecun.com/exdb/mnist), gzipped or not."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dcgan_jax.data.sources.source import Source, fingerprint
from dcgan_jax.runtime.errors import UserError, local_path

# A file is held in memory. MNIST has 47 million bytes, its largest relatives some hundred million.
MAX_BYTES = 2**31
# Sets of this format that tfds has, by the last part of the path of their configurations.
IN_TFDS = ("mnist", "fashion_mnist")


def open_source(config: ConfigDict) -> Source:
    """The images of an idx file of 3 dimensions, with the labels of the file beside it, if there is one.

    For a folder, its train-images-idx3-ubyte is read. Raises UserError if a file is missing, damaged or of another
    kind, or if the numbers of labels and images differ.
    """
    images_path, labels_path = _paths(config)
    images = _read(images_path, dimensions=3)
    labels = None
    if labels_path:
        labels = _read(labels_path, dimensions=1).astype(np.int32)
        if len(labels) != len(images):
            raise UserError(
                f"config.data.path: {str(labels_path)!r} holds {len(labels)} labels for {len(images)} images, expected "
                "one each; download both again"
            )
    return Source(
        names=[str(i) for i in range(len(images))],
        read=lambda index: Image.fromarray(images[index]),
        labels=labels,
        classes=tuple(map(str, np.unique(labels))) if labels is not None else (),
        decoding=False,
    )


def source_fingerprint(config: ConfigDict) -> str:
    """Changes when one of the files is written again. Raises UserError if there is none."""
    return fingerprint([path for path in _paths(config) if path])


def _paths(config: ConfigDict) -> tuple[Path, Path | None]:
    """The files of the images and of the labels."""
    name = config.data.path
    path = local_path(name, "config.data.path")
    if not name or not path.exists():
        raise UserError(
            f"config.data.path: {name!r} does not exist, expected an idx file such as train-images-idx3-ubyte.gz or "
            f"its folder; pass --config.data.path=...{_elsewhere(config)}"
        )
    if path.is_dir():
        image_files = sorted(path.glob("train-images*idx3-ubyte*"))
        if not image_files:
            raise UserError(f"config.data.path: {str(path)!r} holds no train-images-idx3-ubyte[.gz]; pass the file")
        path = image_files[0]
    name = path.name.replace("images", "labels").replace("idx3", "idx1")
    names = {name, name.removesuffix(".gz"), name.removesuffix(".gz") + ".gz"} - {path.name}
    return path, next((file for file in map(path.with_name, sorted(names)) if file.exists()), None)


def _elsewhere(config: ConfigDict) -> str:
    """Where else the data set of a configuration's own folder, such as data/fashion_mnist, is to be had."""
    known = Path(config.data.path).name
    return f", or --config.data.source=tfds --config.data.name={known}" if known in IN_TFDS else ""


def _read(path: Path, dimensions: int) -> np.ndarray:
    """Reads an idx file: the bytes 0 0 8 d, d sizes (big-endian), the data."""
    magic = bytes([0, 0, 8, dimensions])
    try:
        with path.open("rb") as plain:
            compressed = plain.read(2) == b"\x1f\x8b"
        with gzip.open(path) if compressed else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            if header[:4] != magic or len(header) < 4 + 4 * dimensions:
                raise UserError(
                    f"config.data.path: {str(path)!r} begins with {header[:4].hex(' ')}, expected {magic.hex(' ')}, an "
                    f"idx file of {dimensions} dimensions; pass the right file"
                )
            shape = tuple(int(size) for size in np.frombuffer(header[4:], ">u4"))
            expected = math.prod(shape)
            limit = min(expected, MAX_BYTES)
            content = file.read(limit + 1)  # no more: a small gzip file can unpack to more than the memory holds
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"config.data.path: {str(path)!r} cannot be read ({error}); download the file again") from error
    if expected == 0:
        raise UserError(f"config.data.path: {str(path)!r} holds nothing, sizes {shape}; pass the right file")
    if len(content) != expected:
        size = f"more than {limit}" if len(content) > limit else len(content)
        raise UserError(
            f"config.data.path: {str(path)!r} holds {size} bytes of data, expected {expected}; download it again"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)
