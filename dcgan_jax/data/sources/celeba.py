"""CelebA's own files: their number and names, their attributes, and where to download them by hand."""

from pathlib import Path

import numpy as np

from dcgan_jax.data.sources.tree import parts
from dcgan_jax.runtime.errors import UserError

COUNT = 202_599
STEM = "img_align_celeba"
ATTRIBUTE_FILES = ("list_attr_celeba.txt", "list_attr_celeba.csv")  # the authors' and Kaggle's
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
    present = {parts(name)[-1] for name in names}
    expected = {f"{i:06d}.jpg" for i in range(1, COUNT + 1)}
    if present == expected and len(names) == COUNT:
        return
    difference = sorted(expected - present) or sorted(present - expected) or ["a name twice"]
    what = "missing" if expected - present else "not of CelebA"
    raise UserError(
        f"config.data.path: {str(path)!r} holds {len(names)} images, expected CelebA's {COUNT}, 000001.jpg to "
        f"{COUNT}.jpg ({difference[0]} is {what}); download it again, or rename it to train on a part of CelebA"
    )


def attributes_beside(path: Path) -> Path | None:
    """The file of attributes beside CelebA's own folder or archive, or in Anno, as it is shared; None if absent."""
    if not is_celeba(path):
        return None
    folders = (path.parent, path.parent / "Anno", path.parent.parent, path.parent.parent / "Anno")
    return next((file for folder in folders for name in ATTRIBUTE_FILES if (file := folder / name).is_file()), None)


def attributes(file: str, content: bytes, names: list[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The attributes of these images, bool [N, 40], and the names of the columns.

    file: the name of the file, one of `ATTRIBUTE_FILES`, with this content. The text has the number of images, the
    names of the attributes, and a line per image: its name and 1 or -1 for each attribute. Kaggle's table has a header
    with the names, then the same lines by commas. Raises UserError if it is damaged or lacks an image.
    """
    try:
        lines = [line for line in content.decode("utf-8-sig").splitlines() if line.strip()]
        table = [line.split(",") for line in lines] if file.endswith(".csv") else _table(lines)
        attribute_names = tuple(table[0][1:])
        rows = {}
        for name, *values in table[1:]:
            if len(values) != len(attribute_names) or not set(values) <= {"1", "-1"}:
                raise ValueError(f"{name} has {len(values)} attributes, expected {len(attribute_names)}, each 1 or -1")
            rows[name] = np.array(values) == "1"
        chosen = [rows[parts(name)[-1]] for name in names]
    except KeyError as error:
        raise UserError(
            f"{file!r}: has no attributes of {error}, expected those of all images; download it again, or move it away"
        ) from error
    except (IndexError, ValueError) as error:
        raise UserError(f"{file!r}: cannot be read ({error}); download it again, or move it away") from error
    return np.stack(chosen), attribute_names


def _table(lines: list[str]) -> list[list[str]]:
    """The header and rows of the text, whose header has no column for the names of images."""
    _, header, *rows = (line.split() for line in lines)
    return [["", *header], *rows]
