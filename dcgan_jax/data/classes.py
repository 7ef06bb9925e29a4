"""The classes of prepared images: a label is the rank of a class on their card."""

import operator
import reprlib
from contextlib import suppress
from typing import Any

import numpy as np

from dcgan_jax.data.prepared import ImageSet
from dcgan_jax.runtime.errors import UserError

MAX_LISTED = 20


def labelled(image_set: ImageSet, num_classes: int) -> ImageSet:
    """The images with the labels of their source, if these are of classes.

    Folders that look like parts of one set are classes only if the user asks for as many.
    """
    sharded = image_set.card.get("sharded") and num_classes != len(image_set.card["classes"])
    return image_set._replace(labels=None) if sharded else image_set


def conditioned(image_set: ImageSet, num_classes: int) -> ImageSet:
    """The images with labels from 0 to num_classes - 1; without labels if that is 0.

    Raises UserError if the images have others.
    """
    if not num_classes:
        return image_set._replace(labels=None)
    conditional = labelled(image_set, num_classes)
    labels = conditional.labels
    if labels is None:
        raise UserError(_no_labels(image_set, num_classes))
    present = np.unique(labels)
    if (len(present), present[0], present[-1]) != (num_classes, 0, num_classes - 1):
        without_gap = len(present) > 1 and present[-1] == len(present) - 1
        advice = (
            f"pass --config.num_classes={len(present)}" if without_gap else "number the classes from 0 without a gap"
        )
        raise UserError(
            f"config.num_classes: found {num_classes}, but the images have {len(present)} labels from {present[0]} to "
            f"{present[-1]} ({counted(image_set)}), expected all from 0 to {num_classes - 1}; {advice}"
        )
    return conditional


def _no_labels(image_set: ImageSet, num_classes: int) -> str:
    text = f"config.num_classes: found {num_classes}, but the images have no labels, expected "
    if image_set.labels is None:
        return (
            f"{text}a folder for each class and few images beside these (folder), labels beside the images (array, "
            "idx), a column of labels (parquet), or a KEY.cls for each (webdataset); or pass --config.num_classes=0"
        )
    classes = image_set.card["classes"]
    return (
        f"{text}a dataset.json with them: the folders {classes[0]} to {classes[-1]} look like parts of one set; if "
        f"they are classes, pass --config.num_classes={len(classes)}, otherwise --config.num_classes=0"
    )


def names(card: dict[str, Any]) -> tuple[str, ...]:
    """The names of the classes on a card, in the order of labels; () if it has none."""
    return tuple(card.get("classes") or ())


def counted(image_set: ImageSet) -> str:
    """'cats (120), dogs (118)' for labelled images: the classes in the order of their labels, with their sizes."""
    assert image_set.labels is not None
    counts = np.bincount(image_set.labels)
    known = names(image_set.card)
    titles = known if len(known) == len(counts) else tuple(map(str, range(len(counts))))
    shown = ", ".join(f"{title} ({count})" for title, count in zip(titles[:MAX_LISTED], counts.tolist(), strict=False))
    left = counts[MAX_LISTED:]
    return f"{shown}, and {len(left)} more with {left.min()} to {left.max()} each" if len(left) else shown


def check_classes(name: str, known: dict[str, Any], other: dict[str, Any]) -> None:
    """Raises UserError about the flag `name` if the classes on two cards differ."""
    expected, found = names(known), names(other)
    if not expected or not found or expected == found:
        return
    difference = sorted(set(expected) ^ set(found))[:5]
    if not difference:
        raise UserError(
            f"{name}: found the classes of the training images in another order, {', '.join(found[:MAX_LISTED])}, "
            f"expected {', '.join(expected[:MAX_LISTED])}; pass a prepared set in which they are so"
        )
    raise UserError(
        f"{name}: found {len(found)} classes, expected the {len(expected)} of the training images; not in both: "
        f"{', '.join(difference)}"
    )


def label_of(text: str, num_classes: int, known: tuple[str, ...], name: str) -> int:
    """The label that a user means by a class's name or, where no class has a number for its name, by the label.

    known: the names of the classes, or () if there are none. name: the flag. Raises UserError for anything else.
    """
    if text in known:
        return known.index(text)
    if not _numbered(known) and text.isdecimal() and len(text) < 10 and int(text) < num_classes:
        return int(text)
    raise UserError(f"{name}: found {text!r}, expected {expected(num_classes, known)}")


def expected(num_classes: int, known: tuple[str, ...]) -> str:
    """'a class from 0 to 1, or one of cats, dogs': what `label_of` takes."""
    listed = ", ".join(known[:MAX_LISTED]) + (", ..." if len(known) > MAX_LISTED else "")
    numbers = "" if _numbered(known) else f"a class from 0 to {num_classes - 1}"
    return ", or ".join(filter(None, (numbers, f"one of {listed}" if listed else "")))


def labels_of(given: Any, count: int, num_classes: int, known: tuple[str, ...]) -> np.ndarray:
    """The labels, int32 [count], that a caller means by whole numbers or names of classes, `count` of them or one.

    Raises UserError for anything else.
    """
    if given is None:
        raise UserError(f"labels: missing, expected {count}, each {expected(num_classes, known)}")
    labels: list[int | None] = [None]
    with suppress(ValueError):  # of lists that differ in length
        entries = np.asarray(given, object)
        if entries.ndim == 0:
            labels = [_label(entries.item(), num_classes, known)] * max(1, count)
        elif entries.shape == (count,):
            labels = [_label(entry, num_classes, known) for entry in entries]
    if None in labels:
        found, names = " ".join(reprlib.repr(given).split()), " or names" if known else ""
        raise UserError(f"labels: found {found}, expected {count} whole numbers from 0 to {num_classes - 1}{names}")
    return np.array(labels[:count], np.int32)


def _label(entry: Any, num_classes: int, known: tuple[str, ...]) -> int | None:
    """The label that one entry stands for; None if that is none. Raises UserError for an unknown name."""
    if isinstance(entry, str):
        return label_of(entry, num_classes, known, "labels")
    with suppress(TypeError):
        number = operator.index(entry)
        if 0 <= number < num_classes and not isinstance(entry, bool | np.bool_):
            return number
    return None


def _numbered(known: tuple[str, ...]) -> bool:
    """Whether a class has a number for its name, so that a number alone does not say whether it is name or label."""
    return any(title.isdecimal() for title in known)
