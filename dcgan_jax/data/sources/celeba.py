"""CelebA's own files: their number and names, their attributes, and where to download them by hand."""

from pathlib import Path, PurePosixPath

import numpy as np

from dcgan_jax.runtime.errors import UserError

COUNT = 202_599
STEM = "img_align_celeba"
ADVICE = (
    "CelebA has to be downloaded by hand: from its page (mmlab.ie.cuhk.edu.hk/projects/CelebA.html, 'Align&Cropped "
    "Images') take img_align_celeba.zip, 1.4 GB, and, for the attributes, list_attr_celeba.txt; put both into data/; "
    "then python launch/prepare.py --config=configs/celeba.py --config.data.path=data/img_align_celeba.zip"
)


def is_celeba(path: Path) -> bool:
    """True if the name is that of CelebA's own folder or archive."""
    return path.name.partition(".")[0] == STEM


def check(path: Path, names: list[str]) -> None:
    """Raises UserError if CelebA's folder or archive does not hold exactly 000001.jpg to 202599.jpg."""
    if not is_celeba(path):
        return
    present = {PurePosixPath(name).name for name in names}
    expected = {f"{i:06d}.jpg" for i in range(1, COUNT + 1)}
    if present == expected and len(names) == COUNT:
        return
    difference = sorted(expected - present) or sorted(present - expected) or ["a name twice"]
    what = "missing" if expected - present else "not of CelebA"
    raise UserError(
        f"config.data.path: {str(path)!r} holds {len(names)} images, expected CelebA's {COUNT}, 000001.jpg to "
        f"{COUNT}.jpg ({difference[0]} is {what}); download it again, or rename it to train on a part of CelebA"
    )


def attributes_file(path: Path) -> Path | None:
    """list_attr_celeba.txt in the folder; for CelebA's own, also beside it or in the folder Anno. None if absent."""
    folders = (path, path.parent, path.parent.parent / "Anno") if is_celeba(path) else (path,)
    return next((file for folder in folders if (file := folder / "list_attr_celeba.txt").is_file()), None)


def attributes(path: Path, names: list[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The attributes of these images, bool [N, 40], and the names of the columns; (None, ()) if there is no file.

    The file has the number of images, the names of the attributes, and a line per image: its name and 1 or -1 for each
    attribute. Raises UserError if it is damaged or lacks an image.
    """
    file = attributes_file(path)
    if file is None:
        return None, ()
    try:
        _, header, *lines = file.read_text().splitlines()
        attribute_names = tuple(header.split())
        rows = {}
        for line in lines:
            name, *values = line.split()
            if len(values) != len(attribute_names) or not set(values) <= {"1", "-1"}:
                raise ValueError(f"{name} has {len(values)} attributes, expected {len(attribute_names)}, each 1 or -1")
            rows[name] = np.array(values) == "1"
        chosen = [rows[PurePosixPath(name).name] for name in names]
    except KeyError as error:
        raise UserError(
            f"{str(file)!r}: has no attributes of {error}, expected those of all images in {str(path)!r}; "
            "download it again, or move it away"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{str(file)!r}: cannot be read ({error}); download it again, or move it away") from error
    return np.stack(chosen), attribute_names
