"""CelebA's own files: their number and names, their attributes, and where to download them by hand."""

import csv
from pathlib import Path, PurePosixPath

import numpy as np

from dcgan_jax.data.sources.tree import parts
from dcgan_jax.runtime.errors import UserError

COUNT = 202_599
STEM = "img_align_celeba"
ATTRIBUTE_FILES = ("list_attr_celeba.txt", "list_attr_celeba.csv")  # the authors' and Kaggle's
# The values of attributes, in the authors' file and in copies of it.
VALUES = {"1": True, "1.0": True, "true": True} | dict.fromkeys(("-1", "-1.0", "0", "0.0", "false"), False)
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

    file: the name of the file, for errors. The text has the number of images, the names of the attributes, and a line
    per image: its name and 1 or -1 for each attribute. Kaggle's table has a header with the names, then the same lines
    by commas; copies of it may have 0 for -1, or the images' names in another column. Images are found by their names
    without endings. Raises UserError if it is damaged or lacks an image.
    """
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        lines = [line for line in text.splitlines() if line.strip()]
        table = _separated(lines) if any(mark in lines[0] for mark in ",;\t") else _table(lines)
        attribute_names = tuple(table[0][1:])
        rows = {}
        for name, *values in table[1:]:
            if len(values) != len(attribute_names) or not {value.lower() for value in values} <= VALUES.keys():
                raise ValueError(
                    f"{name} has {len(values)} attributes, expected {len(attribute_names)}, each 1 or -1 (or 0)"
                )
            rows[_stem(name)] = np.array([VALUES[value.lower()] for value in values])
        chosen = [rows[_stem(name)] for name in names]
    except KeyError as error:
        raise UserError(
            f"{file!r}: has no attributes of {error}, expected those of all images; download it again, or move it away"
        ) from error
    except (IndexError, ValueError) as error:
        raise UserError(f"{file!r}: cannot be read ({error}); download it again, or move it away") from error
    return np.stack(chosen), attribute_names


def _stem(name: str) -> str:
    return PurePosixPath(parts(name)[-1]).stem


def _separated(lines: list[str]) -> list[list[str]]:
    """The header and rows of a table, with the names of images in the first column, and without one of row numbers."""
    reader = csv.reader(lines, delimiter=max(",;\t", key=lines[0].count), skipinitialspace=True)
    table = [[cell.strip() for cell in row] for row in reader]
    header, first = table[0], table[1] if len(table) > 1 else []
    image = next((column for column, cell in enumerate(first) if cell.lower() not in VALUES), 0)
    numbers = [column for column, title in enumerate(header) if not title or title.lower().startswith("unnamed")]
    left_out = {image, *numbers}
    return [
        [row[image], *(cell for column, cell in enumerate(row) if column not in left_out)]
        for row in table
        if len(row) > image
    ]


def _table(lines: list[str]) -> list[list[str]]:
    """The header and rows of the text, whose header has no column for the names of images."""
    _, header, *rows = (line.split() for line in lines)
    return [["", *header], *rows]
