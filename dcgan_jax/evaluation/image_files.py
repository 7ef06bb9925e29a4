"""Images to be measured from any source: a folder or archive of image files, an array, or a prepared set."""

from contextlib import suppress
from pathlib import Path

import numpy as np

from dcgan_jax.config import default_config
from dcgan_jax.data import ImageSet, find_or_prepare, open_set, open_source
from dcgan_jax.fields import MAX_CHANNELS
from dcgan_jax.runtime.array_files import read_arrays
from dcgan_jax.runtime.errors import UserError, local_path, rename_fields
from dcgan_jax.runtime.files import digest

# What errors name in place of a configuration's fields.
NAMES = {"config.data": "--images", "config.data.path": "--images", "config.data.prepared": "--prepared"}
ARRAY_NAMES = ("images", "arr_0")  # of the images in an .npz: as launch/sample.py and np.savez write them


def open_images(path: str, prepared: str) -> ImageSet:
    """The images at a path, with labels if they lie in a folder for each class.

    path: a folder, zip or tar of image files of one size, an .npz or .npy of uint8 [N, H, W, C], or a prepared set.
    prepared: the folder for prepared sets; image files are prepared there.
    Raises UserError if there are no images, or images of several sizes.
    """
    file = local_path(path, "--images")
    if file.suffix.lower() in (".npz", ".npy") and not file.is_dir():
        return _open_array(file)
    with rename_fields(NAMES):
        return open_set(file) if (file / "card.json").exists() else _open_files(path, prepared)


def _open_files(path: str, prepared: str) -> ImageSet:
    config = default_config()
    config.data.source, config.data.path, config.data.prepared, config.data.crop = "folder", path, prepared, "none"
    source = open_source(config)
    sizes: dict[tuple[int, int], str] = {}
    modes = set()
    for name, picture in zip(source.names, source.pictures(0, len(source.names)), strict=True):
        with suppress(Exception), picture.open() as image:  # preparing the set reports a file that cannot be read
            sizes.setdefault(image.size, name)
            modes.add(image.mode)
    if len(sizes) > 1:
        (first, first_name), (second, second_name) = list(sizes.items())[:2]
        raise UserError(
            f"--images: {path!r} holds images of {first[0]}x{first[1]} ({first_name}) and {second[0]}x{second[1]} "
            f"({second_name}), expected one size; make one set of them with launch/prepare.py, and pass its folder"
        )
    for width, height in sizes:
        config.image_size = (height, width)
    config.channels = 1 if modes and modes <= {"1", "L", "LA", "I;16"} else 3
    try:
        return open_set(find_or_prepare(config))
    except UserError as error:  # there is no flag for a field here
        raise UserError(str(error).partition(", or pass --")[0]) from error


def _open_array(file: Path) -> ImageSet:
    try:
        arrays = read_arrays(file)
        names = [name for name in ("", *ARRAY_NAMES) if name in arrays]
        if not names:
            raise ValueError(f"holds {', '.join(arrays) or 'nothing'}, none of {', '.join(ARRAY_NAMES)}")
        content = arrays[names[0]]
        if content.dtype != np.uint8 or content.ndim != 4 or not content.size or not _channels_last(content.shape):
            raise ValueError(f"holds {content.dtype} {content.shape}")
    except FileNotFoundError:
        raise UserError(f"--images: {str(file)!r} does not exist; pass another path") from None
    except (OSError, ValueError) as error:
        reason = error if isinstance(error, ValueError) else f"cannot be read ({error})"
        raise UserError(
            f"--images: {str(file)!r} {reason}; expected uint8 [N, H, W, C], at least one image, no more "
            "channels than pixels a side"
        ) from error
    card = {"count": len(content), "sha256": {"images": digest(content)}}
    return ImageSet(content, None, card)


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Whether [N, H, W, C] is what a shape can mean, and not [N, C, H, W]."""
    return shape[-1] in (1, 3) or shape[-1] <= min(MAX_CHANNELS, *shape[1:3])
