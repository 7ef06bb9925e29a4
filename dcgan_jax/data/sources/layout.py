"""What the folders of a set of images mean: splits, classes, or parts of one set. Only names are looked at."""

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from dcgan_jax.data.sources.tree import parts
from dcgan_jax.runtime.errors import UserError

SPLITS = {"train": ("train", "training"), "test": ("test", "testing"), "val": ("val", "valid", "validation", "dev")}
_SPLIT_OF = {folder: split for split, folders in SPLITS.items() for folder in folders}
# One of these words in a longer name, with what is before and after it.
_WORD = re.compile(rf"(|.*[^a-z])({'|'.join(sorted(_SPLIT_OF, key=len, reverse=True))})(|[^a-z].*)", re.IGNORECASE)
_DIGITS = re.compile(r"(\d+)")
# Folders of this form, '00000' among them, hold parts of one set: StyleGAN's tools write them so.
_PART = re.compile("[0-9]{5}")
# Images that lie beside the folders of classes are left out if they are no more than this, or than 1% of all.
MAX_STRAYS = 10


class Split(NamedTuple):
    """The images of one split, and a line for the user: '' if there are no splits."""

    names: list[str]
    told: str


class Classes(NamedTuple):
    """Images with their classes.

    names: without those that lie beside the folders of classes, `strays`. labels: int32 [N], or None. classes: the
    names of the labels. sharded: they look like parts of one set, so they are classes only if the user says so.
    """

    names: list[str]
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    sharded: bool = False


def split_of(folder: str) -> str | None:
    """'train', 'test' or 'val' if a folder's name stands for this split, in any case."""
    return _SPLIT_OF.get(folder.lower())


def _named_splits(folders: Sequence[str]) -> dict[str, list[str]]:
    """The folders of each split, if all beside each other are so named, or a training split and another one are there.

    A word and what all have beside it is a name too: training_set and test_set, train2017 and val2017.
    """
    found: dict[str, list[str]] = {}
    for folder in folders:
        if split := split_of(folder):
            found.setdefault(split, []).append(folder)
    if found and (sum(map(len, found.values())) == len(folders) or ("train" in found and len(found) > 1)):
        return found
    beside: dict[str, dict[str, list[str]]] = {}
    for folder in folders:
        if match := _WORD.fullmatch(folder):
            before, word, after = match.groups()
            beside.setdefault(f"{before}/{after}", {}).setdefault(_SPLIT_OF[word.lower()], []).append(folder)
    return next((named for named in beside.values() if "train" in named and len(named) > 1), {})


def splits(names: Sequence[str]) -> dict[str, list[str]]:
    """The folders of each split; {} if there are none.

    At the first level that has several folders, they are splits if all are so named, or if a training split and another
    one are among them; otherwise their names are those of classes, and splits may lie within every one. Of the levels
    above, with one folder each, the first that is so named is the only split.
    """
    return _splits(names)[1]


def _splits(names: Sequence[str]) -> tuple[int, dict[str, list[str]]]:
    """The level of the splits, and the folders of each."""
    levels = _levels(names)
    if levels and (found := _named_splits(levels[-1])):
        return len(levels) - 1, found
    within: dict[tuple[str, ...], set[str]] = {}  # the folders in each class
    for name in names:
        path = tuple(parts(name)[:-1])
        if len(path) >= len(levels):
            within.setdefault(path[: len(levels)], set()).update(path[len(levels) : len(levels) + 1])
    found = _named_splits(sorted(set().union(*within.values())))
    named = set().union(*found.values())
    if len(found) > 1 and "train" in found and all(named & folders for folders in within.values()):
        return len(levels), found
    for level, folders in enumerate(levels[:-1]):
        if split := split_of(folders[0]):
            return level, {split: folders}
    return 0, {}


def take_split(names: list[str], wanted: str) -> Split:
    """The images of a split: all if there are no splits, or if there is one alone, whatever it is.

    wanted: the name of a split. Raises UserError if there are several, and this is none of them.
    """
    level, found = _splits(names)
    if not found:
        folders = (_levels(names) or [[]])[-1]
        odd = [folder for folder in folders if split_of(folder)]
        others = [folder for folder in folders if not split_of(folder)]
        told = f"{_listed(odd)}: taken for a class, not for a split, as {_listed(others)} beside it are none"
        return Split(names, told if odd else "")
    split = split_of(wanted)
    if len(found) == 1:
        (folders,) = found.values()
        return Split(names, f"taking the images in {_listed(folders)}/, the only split that is there")
    if split not in found:
        raise UserError(
            f"config.data.split: found {wanted!r}, expected one of the splits of config.data.path, {', '.join(found)}; "
            f"pass --config.data.split={next(iter(found))}, or --config.data.path of the folder that you mean"
        )
    taken = [name for name in names if len(parts(name)) > level + 1 and parts(name)[level] in found[split]]
    others = sorted({parts(name)[level] for name in names if len(parts(name)) > level + 1} - set(found[split]))
    return Split(
        taken,
        f"taking the {len(taken)} images in {_listed(found[split])}/, which is a split; the {len(names) - len(taken)} "
        f"others ({_listed(others)}/) are left out",
    )


def by_folders(names: list[str]) -> Classes:
    """The classes of images by the first level of folders that has several; without labels if there is none.

    Numbers are sorted as numbers, before names, and in names too (class_2 before class_10). A few images that lie above
    the folders are left out.
    """
    levels = _levels(names)
    level, folders = len(levels) - 1, levels[-1] if levels else []
    if len(folders) < 2:
        return Classes(names)
    strays = tuple(name for name in names if len(parts(name)) <= level + 1)
    sharded = all(map(_PART.fullmatch, folders)) and any(folder.startswith("0") for folder in folders)
    few = len(strays) <= max(MAX_STRAYS, len(names) // 100) and 2 * len(strays) < len(names)
    if strays and (sharded or not few):
        return Classes(names)
    classes = sorted(folders, key=by_number)
    rank = {folder: i for i, folder in enumerate(classes)}
    kept = [name for name in names if len(parts(name)) > level + 1] if strays else names
    labels = np.fromiter((rank[parts(name)[level]] for name in kept), np.int32, len(kept))
    return Classes(kept, labels, tuple(classes), strays, sharded)


def _levels(names: Sequence[str]) -> list[list[str]]:
    """The folders of each level, up to the first level that has several."""
    folders = [parts(name)[:-1] for name in names]
    levels: list[list[str]] = []
    for level in range(max(map(len, folders), default=0)):
        levels.append(sorted({path[level] for path in folders if len(path) > level}))
        if len(levels[-1]) > 1:
            break
    return levels


def by_number(folder: str) -> tuple[bool, list[str | int], str]:
    """The key to sort names of classes by: numbers in their order, then names, in which numbers count as such."""
    pieces: list[str | int] = [int(piece) if piece.isdecimal() else piece for piece in _DIGITS.split(folder)]
    return not folder.isdecimal(), pieces, folder


def _listed(folders: Collection[str]) -> str:
    more = f" and {len(folders) - 5} more" if len(folders) > 5 else ""
    return ", ".join(list(folders)[:5]) + more
