"""A folder of images: any nesting, any mix of sizes and modes."""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from dcgan_jax.data.images import prepare
from dcgan_jax.errors import UserError, local_path

log = logging.getLogger("dcgan_jax")

EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
# More unreadable images than this share stop the run: then something is wrong with the folder, not with an image.
TOLERATED = 0.01


def read(
    path: str, image_size: tuple[int, int], channels: int, *, num_classes: int = 0
) -> tuple[np.ndarray, np.ndarray | None]:
    """All images below a folder, in the order of their names: uint8 [N, H, W, C], and labels int64 [N] or None.

    With `num_classes` the label of an image is the rank of the first-level folder that holds it.

    An unreadable image is named in the log and left out. Raises UserError where there is no such folder, no image in
    it, or where more than 1% are unreadable.
    """
    root = local_path(path, "config.data.path")
    if not path or not root.is_dir():
        what = "is not a folder" if path and root.exists() else "does not exist"
        found = f"{path!r} {what}" if path else "missing"
        raise UserError(f"config.data.path: {found}, expected a folder of images; pass --config.data.path=FOLDER")
    names = sorted(_image_names(root))
    if not names:
        raise UserError(
            f"config.data.path: {path!r} holds no image, expected files such as {', '.join(sorted(EXTENSIONS))} at any "
            "depth; pass another --config.data.path=FOLDER"
        )

    def decode(name: str) -> np.ndarray | str:
        try:
            if not (root / name).is_file():
                raise OSError("not a regular file")
            with Image.open(root / name) as image:
                return prepare(image, image_size, channels)
        # Pillow's decoders raise all kinds of errors on damaged files, SyntaxError and struct.error among them.
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    images = np.empty((len(names), *image_size, channels), np.uint8)
    kept: list[int] = []
    unreadable = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = tqdm(pool.map(decode, names), "reading images", len(names), unit=" images", disable=None, leave=False)
        for i, result in enumerate(results):
            if isinstance(result, np.ndarray):
                images[len(kept)] = result
                kept.append(i)
                continue
            unreadable += 1
            log.warning("unreadable image, left out: %r (%s)", str(root / names[i]), result)
            if unreadable > TOLERATED * len(names):
                pool.shutdown(wait=False, cancel_futures=True)
                raise UserError(
                    f"config.data.path: {unreadable} of the first {i + 1} images in {path!r} are unreadable, expected "
                    f"at most {TOLERATED:.0%} of all {len(names)}; remove or repair the files named above"
                )
    if unreadable:
        log.warning("%d of the %d images in %s are unreadable and left out", unreadable, len(names), path)
    labels = _labels([names[i] for i in kept]) if num_classes else None
    return images[: len(kept)], labels


def _image_names(root: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise UserError(
            f"config.data.path: {error.filename!r} cannot be read ({error.strerror}); open it, or remove it"
        )

    seen: set[str] = set()
    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        # Links are followed, but no folder is read twice: they may go in circles.
        if os.path.realpath(folder) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(folder))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS:
                yield (Path(folder) / name).relative_to(root).as_posix()


def _labels(names: list[str]) -> np.ndarray | None:
    folders = [name.split("/")[0] if "/" in name else None for name in names]
    if None in folders:
        return None
    return np.unique(np.array(folders), return_inverse=True)[1]
