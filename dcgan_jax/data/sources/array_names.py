"""Which of several arrays are the images of a split, and which are their labels, by the names that are usual."""

import re
from collections.abc import Iterable, Mapping

from dcgan_jax.data.sources.layout import SPLITS, split_of
from dcgan_jax.runtime.array_files import Header

IMAGES = ("images", "image", "imgs", "x", "data", "arr_0", "")  # '': the name is that of the split alone
LABELS = ("labels", "label", "y", "targets", "target", "classes", "arr_1")
MAX_LISTED = 12

_WORDS = "|".join(sorted((word for words in SPLITS.values() for word in words), key=len, reverse=True))
_JOINED = re.compile(rf"({_WORDS})?([xy])({_WORDS})?")  # xtrain
_SEPARATE = re.compile(rf"(?:({_WORDS})[_.-])?(.+?)(?:[_.-]({_WORDS}))?")  # x_train, train_images


def parsed(name: str) -> tuple[str, str]:
    """The split that a name tells, '' if it tells none, and what else it says: 'X_train' gives ('train', 'x')."""
    name = name.lower()
    if split := split_of(name):
        return split, ""
    match = _JOINED.fullmatch(name) or _SEPARATE.fullmatch(name)
    if not match:
        return "", name
    before, rest, after = match.groups()
    return split_of(before or after or "") or "", rest


def images(headers: Mapping[str, Header], split: str, wanted: str = "") -> str:
    """The name of the array that holds the images of a split. wanted: the one that the user asks for, '' if none.

    It is the one with a usual name and the split's, or with a usual name and no split's; or the only one that can be
    images. Raises ValueError, with all names and shapes, if there is none, or if there are several.
    """
    if wanted:
        if wanted not in headers:
            raise ValueError(f"holds no {wanted!r}, but {listed(headers)}; pass --config.data.name=NAME of one of them")
        return wanted
    if not headers:
        raise ValueError(
            "holds no arrays, expected some, as numpy.savez writes them; pictures in a zip are "
            "--config.data.source=folder --config.data.path=FILE"
        )
    possible = [name for name, header in headers.items() if len(header.shape) in (3, 4)]
    if not possible and len(headers) == 1:
        return next(iter(headers))  # what is wrong with it is told later
    if not possible:
        raise ValueError(f"holds no array of images, but {listed(headers)}; expected [N, H, W, C] or [N, H, W]")
    for splits in ((split,), ("",)):
        usual = [name for name in possible if parsed(name)[0] in splits and parsed(name)[1] in IMAGES]
        if len(usual) == 1:
            return usual[0]
        if usual:
            possible = usual
            break
    own = [name for name in possible if parsed(name)[0] in ("", split)] or possible
    if len(own) == 1:
        return own[0]
    raise ValueError(
        f"holds several arrays that could be the images: {listed({name: headers[name] for name in own})}; pass "
        "--config.data.path=FILE --config.data.name=NAME with one of them"
    )


def labels(names: Iterable[str], image: str) -> str | None:
    """The name of the labels of an array: 'NAME_labels', or a usual name with the same split; None if absent."""
    by_meaning: dict[tuple[str, str], str] = {}
    for name in names:
        by_meaning.setdefault(parsed(name), name)
    by_name = {name.lower(): name for name in by_meaning.values()}
    own = [by_name.get(f"{image.lower()}{separator}{word}") for separator in "_-." for word in LABELS]
    split = parsed(image)[0]
    return next((name for name in [*own, *(by_meaning.get((split, word)) for word in LABELS)] if name), None)


def is_label(name: str) -> bool:
    """Whether this is a usual name of labels, of whatever images."""
    rest = parsed(name)[1]
    return rest in LABELS or rest.endswith(tuple(f"_{word}" for word in LABELS))


def listed(headers: Mapping[str, Header]) -> str:
    """'x uint8 (10, 8, 8), y int64 (10,)'."""
    texts = [f"{name} {header.dtype} {header.shape}" for name, header in headers.items()]
    more = f" and {len(texts) - MAX_LISTED} more" if len(texts) > MAX_LISTED else ""
    return ", ".join(texts[:MAX_LISTED]) + more
