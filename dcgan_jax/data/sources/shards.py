"""Sets of images in a few large files, such as parquet files or tars: the files, their splits and classes."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dcgan_jax.data.sources import folder, layout
from dcgan_jax.data.sources.layout import split_of
from dcgan_jax.data.sources.tree import open_tree, parts
from dcgan_jax.runtime.contents import HEAD, described
from dcgan_jax.runtime.errors import UserError, local_path

# NAME-00000-of-00002, as Hugging Face's libraries name the files of a split; NAME may begin with that of the set.
_NUMBERED = re.compile(r"(?:.*-)?([^-]+)-\d+-of-\d+(-\w+)?\..*")
MAX_LISTED = 8


class Place(NamedTuple):
    """The split of a file, '' if its name tells none, and the folder in which the split lies."""

    split: str
    folder: str


def existing_path(name: str, expected: str) -> Path:
    """`config.data.path` as a folder or file that is there. Raises UserError otherwise; expected: what it should be."""
    path = local_path(name, "config.data.path")
    if not name or not path.exists():
        problem = f"{name!r} does not exist" if name else "missing"
        raise UserError(f"config.data.path: {problem}, expected {expected}; pass --config.data.path=...")
    return path


def files(path: Path, endings: Sequence[str]) -> tuple[Path, list[str]]:
    """A folder, and the files with these endings in it, at any depth, sorted; of a file, its folder and its name."""
    if not path.is_dir():
        return path.parent, [path.name]
    return path, [name for name in open_tree(path).names if name.lower().endswith(tuple(endings))]


def check_content(file: Path, expected: str, own: bytes) -> None:
    """Raises UserError if a file cannot be read, is empty, or begins as something known, but for `own` bytes."""
    if not file.is_file():
        raise UserError(f"config.data.path: {str(file)!r} is not a regular file, expected {expected}; pass another")
    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD)
    except OSError as error:
        raise UserError(
            f"config.data.path: {str(file)!r} cannot be read ({error.strerror}); make it readable (chmod u+r), or "
            "download it again"
        ) from error
    known = described(head)
    if not head or (known and not head.startswith(own)):
        what, advice = known or ("empty", "download it again")
        raise UserError(f"config.data.path: {str(file)!r} is {what}, expected {expected}; {advice}")


def place(name: str) -> Place:
    """What a file's name tells: 'data/train-00000-of-00002.parquet' is of the split 'train' in the folder 'data'."""
    *folders, file = parts(name)
    numbered = _NUMBERED.fullmatch(file)
    words = [numbered[1]] if numbered else re.findall("[a-z]+", file.lower())
    named = {split for word in words if (split := split_of(word))}
    if len(named) == 1:
        return Place(named.pop(), "/".join(folders))
    for depth in reversed(range(len(folders))):
        if split := split_of(folders[depth]):
            return Place(split, "/".join(folders[:depth]))
    return Place(numbered[1] if numbered else "", "/".join(folders))


def splits(names: Sequence[str]) -> dict[str, list[str]]:
    """The files of each split, by its name; '' is for those that are of none."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(place(name).split, []).append(name)
    return found


def take_split(names: list[str], wanted: str, path: str) -> layout.Split:
    """The files of a split: all if there are no splits, or if there is one alone, whatever it is.

    wanted: the name of a split. path: `config.data.path`, for advice. Raises UserError if there are several, and this
    is none of them, or if several folders have this split.
    """
    found = splits(names)
    split = next((split for split in (wanted, split_of(wanted) or "") if split in found), None)
    if split is None and len(found) > 1:
        listed = [name for name in found if name]
        raise UserError(
            f"config.data.split: found {wanted!r}, expected one of the splits of config.data.path, "
            f"{', '.join(listed[:MAX_LISTED])}; pass --config.data.split={listed[0]}, or --config.data.path of the "
            "file that you mean"
        )
    split = next(iter(found)) if split is None else split
    taken = found[split]
    folders = sorted({place(name).folder for name in taken})
    if split and len(folders) > 1:
        raise UserError(
            f"config.data.path: {path!r} holds several sets of images, each with files of {split!r}, in "
            f"{', '.join(folders[:MAX_LISTED])}, expected one; pass --config.data.path={path.rstrip('/')}/{folders[-1]}"
        )
    if len(found) > 1:
        others = ", ".join(name or "files of no split" for name in found if name != split)
        return layout.Split(taken, f"taking {_counted(taken)} of the split {split}; {others}: left out")
    if split_of(split) and split != split_of(wanted):
        return layout.Split(taken, f"taking {_counted(taken)} of the split {split}, the only one that is there")
    return layout.Split(taken, "")


def _counted(names: list[str]) -> str:
    return "the file" if len(names) == 1 else f"the {len(names)} files"


def held_out(name: str, path: Path, endings: Sequence[str], taken: str) -> tuple[str, str] | None:
    """The path and split of held-out images: the test split, else that for validation; None if there is neither.

    name: `config.data.path`, which is a folder or file, `path`, here. They lie in a folder beside one called 'train',
    or in the same folder as the training split, `taken`.
    """
    if not path.is_dir():
        return None
    found = splits(files(path, endings)[1])
    split = next((split for split in ("test", "val") if split in found), None)
    if split and split != split_of(taken) and split_of(taken) in found:
        return name, split
    return folder.beside(path)


def by_values(values: Sequence[object]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels int32 [N] for these values, and the names of the classes: numbers in their order, then texts."""
    texts = list(map(str, values))
    classes = sorted(set(texts), key=layout.by_number)
    rank = {text: i for i, text in enumerate(classes)}
    return np.fromiter((rank[text] for text in texts), np.int32, len(texts)), tuple(classes)
