"""Images: a source is prepared once as an array on disk, and batches are a function of (seed, step)."""

from pathlib import Path

from ml_collections import ConfigDict

from dcgan_jax.data import checks, classes
from dcgan_jax.data.batches import Batches, prefetch
from dcgan_jax.data.buckets import open_prepared, prepared_path
from dcgan_jax.data.classes import check_classes, label_of
from dcgan_jax.data.preparation import check_path, find, find_or_prepare
from dcgan_jax.data.prepared import ImageSet, cards, open_set
from dcgan_jax.data.sources import SOURCES
from dcgan_jax.data.sources.local import open_source
from dcgan_jax.runtime.errors import UserError, rename_fields

__all__ = [
    "Batches",
    "ImageSet",
    "cards",
    "check_classes",
    "check_source",
    "find",
    "find_or_prepare",
    "for_training",
    "held_out",
    "label_of",
    "load",
    "load_any",
    "open_set",
    "open_source",
    "prefetch",
    "prepared_path",
]


def check_source(config: ConfigDict) -> None:
    """Raises UserError, as `load_any`, if the source is a local one that is not there; prepares nothing."""
    if config.data.source != "prepared":
        check_path(config)
    elif "://" not in config.data.path:
        open_prepared(config)


def load(config: ConfigDict, *, labelled: bool = False) -> ImageSet:
    """The prepared images of a validated configuration; they are prepared first if necessary.

    They have labels only if the configuration has classes, and what is odd about them is told. With `labelled`, for
    measures of quality, they have the labels of the source, whatever these are.

    Raises UserError if the source does not exist, cannot be read, has no image, or has labels that do not fit.
    """
    image_set = load_any(config, resizable=not labelled)
    return classes.labelled(image_set, config.num_classes) if labelled else for_training(image_set, config)


def load_any(config: ConfigDict, *, resizable: bool = True) -> ImageSet:
    """The prepared images of a validated configuration, with the labels that their source has. Raises as `load`.

    resizable: whether advice may be to change the configuration's size; not where a network's images have it.
    """
    if config.data.source == "prepared":
        return open_prepared(config, resizable=resizable)
    return open_set(find_or_prepare(config))


def for_training(image_set: ImageSet, config: ConfigDict) -> ImageSet:
    """Images of `load_any` with the labels that the configuration asks for; their classes and what is odd are told.

    Raises UserError if the labels do not fit.
    """
    image_set = classes.conditioned(image_set, config.num_classes)
    checks.tell(image_set, config.batch_size)
    return image_set


def held_out(config: ConfigDict) -> ImageSet | None:
    """The held-out images of a validated configuration, with their labels; None if there are none.

    `config.data.test` takes the place of `data.path` (for tfds, of `data.split`). If it is empty, they are the split
    'test' of tfds, the files t10k-... of idx, or the split 'test', else 'val', of folders, of the files or arrays in
    them, or beside one.

    Raises UserError as `load` does, about `config.data.test`.
    """
    config = ConfigDict(config.to_dict())
    name, path = config.data.test, Path(config.data.path).expanduser()
    if name and config.data.source == "digits":
        raise UserError(
            f"config.data.test: found {name!r}, expected '': digits has no images beside those it trains on"
        )
    if config.data.source == "tfds":
        config.data.split = name or "test"
        return load(config, labelled=True)
    if not name and config.data.source == "idx":
        place = path if path.is_dir() else path.parent
        name = next((str(file) for file in sorted(place.glob("t10k-images*"))), "")
    module = SOURCES.get(config.data.source)
    if config.data.source == "array":
        config.data.name = ""
    if module and hasattr(module, "held_out"):
        name, config.data.split = (name, "test") if name else module.held_out(config) or ("", "")
    if not name:
        return None
    config.data.path = name
    with rename_fields({"config.data.path": "config.data.test"}):
        return load(config, labelled=True)
