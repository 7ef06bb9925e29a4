"""The flags --data, --test, --prepared: real images, for launchers that look at a trained network."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict

from dcgan_jax.config import validate
from dcgan_jax.errors import UserError, local_path, told_of

if TYPE_CHECKING:
    from dcgan_jax.data import ImageSet

_DATA = flags.DEFINE_string(
    "data",
    None,
    "training images: a name of tfds (cifar10, svhn_cropped), a folder or archive with a folder a class, an "
    "idx file or its folder, a prepared set; by default the run's own",
)
_TEST = flags.DEFINE_string(
    "test", None, "held-out images, of the same kind; by default tfds's, or what lies beside --data"
)
_PREPARED = flags.DEFINE_string("prepared", None, "folder of prepared sets, in place of the run's data.prepared")
TRAINING = ("data", "prepared")  # those of the training images


def located(config: ConfigDict) -> ConfigDict:
    """A configuration with its data where the flags say."""
    config = config.copy_and_resolve_references()
    if _PREPARED.value is not None:
        config.data.prepared = _PREPARED.value
    if _DATA.value is not None:
        config.data.source, config.data.path = _source(_DATA.value), _DATA.value
        config.data.name = config.data.test = ""
        config.data.crop = "center"
        if config.data.source == "tfds":
            config.data.name, config.data.path, config.data.split = _DATA.value, "", "train"
    if _TEST.value is not None:
        config.data.test = _TEST.value
    return config


def open_training(config: ConfigDict) -> "ImageSet":
    """Training images where the flags say, with whatever labels they have, in the size of a configuration."""
    from dcgan_jax import data

    with _told_of_flags():
        return data.load(validate(located(config)), labelled=True)


def open_test(config: ConfigDict) -> "ImageSet":
    """Held-out images where the flags say, likewise. Raises UserError where there are none."""
    from dcgan_jax import data

    with _told_of_flags():
        test = data.held_out(validate(located(config)))
    if test is None:
        raise UserError("--test: found no held-out images beside the training images; name some by --test=PATH")
    return test


@contextmanager
def _told_of_flags() -> Iterator[None]:
    try:
        with (
            told_of("--data", "config.data.path"),
            told_of("--data", "config.data.name"),
            told_of("--test", "config.data.test"),
        ):
            yield
    except UserError as error:  # --data tells a folder from a name by itself
        raise UserError(str(error).replace("--config.data.source=folder ", "")) from error


def hashes(**sets: "ImageSet") -> dict[str, dict]:
    """What tells sets of images from others, by their roles: for the lines of evaluation.jsonl."""
    return {
        role: {"count": len(images.images), "sha256": images.card["sha256"]["images"]} for role, images in sets.items()
    }


def _source(place: str) -> str:
    path = local_path(place, "--data")
    if (path / "card.json").exists():
        return "prepared"
    if "idx3" in path.name or (path.is_dir() and any(path.glob("*idx3*"))):
        return "idx"
    # tfds has names with a slash, such as imagenet_resized/32x32.
    local = path.exists() or place.startswith(("/", ".", "~")) or path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz")
    return "folder" if local else "tfds"
