"""What is known about CelebA's files: how many there are, what they are called, and where to get them by hand."""

from pathlib import Path, PurePosixPath

import numpy as np

from dcgan_jax.errors import UserError

COUNT = 202_599
STEM = "img_align_celeba"
ADVICE = (
    "CelebA has to be fetched by hand: from its page (mmlab.ie.cuhk.edu.hk/projects/CelebA.html, 'Align&Cropped "
    "Images') take img_align_celeba.zip, 1.4 GB, and, for the attributes, list_attr_celeba.txt; put both into data/; "
    "then python launch/prepare.py --config=configs/celeba.py --config.data.path=data/img_align_celeba.zip"
)


def is_celeba(path: Path) -> bool:
    """True for CelebA's own folder or archive, by its name."""
    return path.name.partition(".")[0] == STEM


def check(path: Path, names: list[str]) -> None:
    """Raises UserError where CelebA's folder or archive does not hold exactly 000001.jpg to 202599.jpg."""
    if not is_celeba(path):
        return
    found = {PurePosixPath(name).name for name in names}
    expected = {f"{i:06d}.jpg" for i in range(1, COUNT + 1)}
    if found == expected and len(names) == COUNT:
        return
    difference = sorted(expected - found) or sorted(found - expected) or ["a name twice"]
    what = "missing" if expected - found else "not of CelebA"
    raise UserError(
        f"config.data.path: {str(path)!r} holds {len(names)} images, expected CelebA's {COUNT}, 000001.jpg to "
        f"{COUNT}.jpg ({difference[0]} is {what}); fetch it again, or give a part of it another name to train on that"
    )


def attributes_file(path: Path) -> Path | None:
    """list_attr_celeba.txt in the folder; for CelebA's own, also beside it or in its Anno folder; None if absent."""
    places = (path, path.parent, path.parent.parent / "Anno") if is_celeba(path) else (path,)
    return next((file for place in places if (file := place / "list_attr_celeba.txt").is_file()), None)


def attributes(path: Path, names: list[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The attributes of the images of these names, bool [N, 40], and what they are called; (None, ()) if not known.

    The file: the number of images, the names of the attributes, then a line an image of its name and 1 or -1 for each.
    Raises UserError where it is damaged, or an image is not in it.
    """
    file = attributes_file(path)
    if file is None:
        return None, ()
    try:
        _, header, *lines = file.read_text().splitlines()
        titles = tuple(header.split())
        rows = {}
        for line in lines:
            name, *values = line.split()
            if len(values) != len(titles) or not set(values) <= {"1", "-1"}:
                raise ValueError(f"{name} has {len(values)} attributes, expected {len(titles)}, each 1 or -1")
            rows[name] = np.array(values) == "1"
        wanted = [rows[PurePosixPath(name).name] for name in names]
    except KeyError as error:
        raise UserError(
            f"{str(file)!r}: has no attributes of {error}, expected those of all images in {str(path)!r}; "
            "fetch it again, or move it away"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{str(file)!r}: cannot be read ({error}); fetch it again, or move it away") from error
    return np.stack(wanted), titles
