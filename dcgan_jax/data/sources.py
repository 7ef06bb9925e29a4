"""Where images come from: scikit-learn's digits, a folder, MNIST-style idx files, tensorflow-datasets."""

import gzip
import logging
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dcgan_jax.data import folder
from dcgan_jax.data.images import prepare
from dcgan_jax.errors import UserError, local_path

log = logging.getLogger("dcgan_jax")


class ImageSet(NamedTuple):
    """Prepared images: uint8 [N, H, W, C], labels int32 [N] where wanted, and a card that says what they are."""

    images: np.ndarray
    labels: np.ndarray | None
    card: dict[str, Any]


def load(config: ConfigDict) -> ImageSet:
    """The images of a validated configuration, with labels where it has classes.

    Raises UserError where the source does not exist, cannot be read, holds no image, or has no fitting labels.
    """
    source = config.data.source
    readers = {"digits": _digits, "folder": _folder, "idx": _idx, "tfds": _tfds}
    images, labels = readers[source](config)
    if len(images) == 0:
        raise UserError(f"config.data: the {source} source holds no image; choose another with --config.data.source")
    if config.num_classes:
        labels = _check_labels(labels, len(images), config.num_classes)
    labels = labels if config.num_classes else None
    # A checksum is enough to notice that the images are not those that a run was started with.
    checksum = zlib.crc32(images.data, 0 if labels is None else zlib.crc32(labels.data))
    card = {
        "source": source,
        "path": config.data.path,
        "name": config.data.name,
        "split": config.data.split if source == "tfds" else "",
        "count": len(images),
        "crc32": checksum,
    }
    return ImageSet(images, labels, card)


def _check_labels(labels: np.ndarray | None, count: int, num_classes: int) -> np.ndarray:
    if labels is None:
        raise UserError(
            f"config.num_classes: found {num_classes}, but the images have no labels, expected a folder for each class "
            "(folder) or a labels file beside the images (idx); or pass --config.num_classes=0"
        )
    if len(labels) != count:
        raise UserError(f"config.data.path: found {len(labels)} labels for {count} images, expected one each")
    found = np.unique(labels)
    if (len(found), found[0], found[-1]) != (num_classes, 0, num_classes - 1):
        whole = len(found) > 1 and found[-1] == len(found) - 1
        advice = f"pass --config.num_classes={len(found)}" if whole else "number the classes from 0 without a gap"
        raise UserError(
            f"config.num_classes: found {num_classes}, but the images have {len(found)} labels from {found[0]} to "
            f"{found[-1]}, expected all from 0 to {num_classes - 1}; {advice}"
        )
    return labels.astype(np.int32)


def _digits(config: ConfigDict) -> tuple[np.ndarray, np.ndarray]:
    """1,797 handwritten digits of 8x8 pixels (UCI's optical recognition test set, in scikit-learn), upscaled."""
    from sklearn.datasets import load_digits  # imported late: only this source needs it

    digits = load_digits()
    height, width = config.image_size
    images = np.empty((len(digits.images), height, width, config.channels), np.uint8)
    for i, digit in enumerate(digits.images):
        enlarged = Image.fromarray(digit.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
        images[i] = np.clip(np.rint(np.asarray(enlarged) * (255 / 16)), 0, 255)[..., None]
    return images, digits.target


def _folder(config: ConfigDict) -> tuple[np.ndarray, np.ndarray | None]:
    return folder.read(config.data.path, tuple(config.image_size), config.channels, num_classes=config.num_classes)


def _idx(config: ConfigDict) -> tuple[np.ndarray, np.ndarray | None]:
    """MNIST's own format, gzipped or not; a folder stands for its train-images-idx3-ubyte."""
    path = local_path(config.data.path, "config.data.path")
    if not config.data.path or not path.exists():
        raise UserError(
            f"config.data.path: {config.data.path!r} does not exist, expected an idx file such as "
            "train-images-idx3-ubyte.gz or its folder; pass --config.data.path=..."
        )
    if path.is_dir():
        found = sorted(path.glob("train-images*idx3-ubyte*"))
        if not found:
            raise UserError(f"config.data.path: {str(path)!r} holds no train-images-idx3-ubyte[.gz]; pass the file")
        path = found[0]
    raw = _read_idx(path, dimensions=3)
    height, width = config.image_size
    if raw.shape[1:] == (height, width) and config.channels == 1:
        images = raw[..., None]
    else:
        images = np.stack([prepare(Image.fromarray(image), (height, width), config.channels) for image in raw])
    labels_path = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    has_labels = config.num_classes and labels_path != path and labels_path.exists()
    return images, _read_idx(labels_path, dimensions=1) if has_labels else None


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An idx file of unsigned bytes (yann.lecun.com/exdb/mnist): magic 0 0 8 d, d big-endian sizes, the bytes."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"config.data.path: {str(path)!r} cannot be read ({error}); fetch the file again") from error
    magic = bytes([0, 0, 8, dimensions])
    header = 4 + 4 * dimensions
    if content[:4] != magic or len(content) < header:
        raise UserError(
            f"config.data.path: {str(path)!r} begins with {content[:4].hex(' ')}, expected {magic.hex(' ')}, an idx "
            f"file of {dimensions} dimensions; name the right file"
        )
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], ">u4"))
    expected, found = math.prod(shape), len(content) - header
    if expected == 0:
        raise UserError(f"config.data.path: {str(path)!r} holds nothing, sizes {shape}; name the right file")
    if found != expected:
        raise UserError(
            f"config.data.path: {str(path)!r} holds {found} bytes of data, expected {expected}; fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _tfds(config: ConfigDict) -> tuple[np.ndarray, np.ndarray | None]:
    """An image data set of tensorflow-datasets, read as array records, without TensorFlow."""
    import tensorflow_datasets as tfds  # imported late: only this source needs it

    name = config.data.name
    try:
        builder = tfds.builder(name, data_dir=config.data.path or None, file_format="array_record")
        if "image" not in builder.info.features:
            raise ValueError(f"it has {', '.join(builder.info.features)}, and no image")
        builder.download_and_prepare()
        source = builder.as_data_source(split=config.data.split)
    except Exception as error:  # no such set, a failed download, no TensorFlow
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"config.data.name: tfds cannot give {name!r} ({reason}); check the name, install the extra 'tfds' for "
            "sets that need TensorFlow to be prepared, or use your copy with --config.data.source=folder"
        ) from error
    log.info("reading %d images of %s", len(source), name)
    images = np.empty((len(source), *config.image_size, config.channels), np.uint8)
    labels = np.full(len(source), -1)
    for i, example in enumerate(source):
        pixels = example["image"]
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        images[i] = prepare(image, tuple(config.image_size), config.channels)
        labels[i] = example.get("label", -1)
    return images, labels if (labels >= 0).all() else None
