"""The flags --data, --test, --prepared: the real images that a trained network is measured or shown with."""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict

from dcgan_jax.config import validate
from dcgan_jax.runtime import hub
from dcgan_jax.runtime.errors import UserError, local_path, rename_fields

if TYPE_CHECKING:
    from dcgan_jax.data import ImageSet

DATA = flags.DEFINE_string(
    "data",
    None,
    "training images: a name of tfds (cifar10, svhn_cropped), 'digits', a folder or archive with a folder for each "
    "class, an idx file or its folder, LSUN's lmdb, an .npy or .npz, a prepared set; by default those of the run. "
    "launch/evaluate.py: only their new place, if they moved",
)
TEST = flags.DEFINE_string(
    "test", None, "held-out images, in the same forms; by default those of tfds, or those beside --data"
)
PREPARED = flags.DEFINE_string("prepared", None, "folder of prepared sets, in place of the run's data.prepared")
TRAINING = ("data", "prepared")  # the flags that say where training images are
# What errors name in place of a configuration's fields. There is no flag for the source: it follows from --data.
NAMES = {
    "config.data": "--data",
    "config.data.path": "--data",
    "config.data.name": "--data",
    "config.data.source": "",
    "config.data.test": "--test",
    "config.data.prepared": "--prepared",
}


def moved(config: ConfigDict) -> ConfigDict:
    """A configuration with the same images, in the places that the flags name."""
    config = config.copy_and_resolve_references()
    for field, flag in (("path", DATA), ("test", TEST), ("prepared", PREPARED)):
        if flag.value is not None:
            config.data[field] = flag.value
    return config


def replaced(config: ConfigDict) -> ConfigDict:
    """A configuration with the images that the flags name, of any kind."""
    new = moved(config)
    if DATA.value is None:
        return new
    new.data.source, new.data.name, new.data.crop, new.data.test = _source(DATA.value), "", "center", TEST.value or ""
    if new.data.source == "tfds":
        new.data.name, new.data.path, new.data.split = DATA.value, "", "train"
    return new


def open_training(config: ConfigDict) -> "ImageSet":
    """The training images that the flags name, with their labels if they have some, in the size of a configuration."""
    from dcgan_jax import data

    config = replaced(config)
    with rename_fields(_names(config)):
        return data.load(validate(config), labelled=True)


def open_test(config: ConfigDict) -> "ImageSet":
    """The held-out images that the flags name, in the size of a configuration. Raises UserError if there are none."""
    from dcgan_jax import data

    config = replaced(config)
    if config.data.source == "digits":
        raise UserError("--data: digits has no held-out images; pass another set by --data, and --test")
    with rename_fields(_names(config)):
        test = data.held_out(validate(config))
    if test is None:
        raise UserError("--test: found no held-out images beside the training images; name some by --test=PATH")
    return test


def hashes(**sets: "ImageSet") -> dict[str, dict]:
    """What identifies sets of images, by their roles, in the lines of evaluation.jsonl."""
    return {
        role: {"count": len(images.images), "sha256": images.card["sha256"]["images"]} for role, images in sets.items()
    }


def _names(config: ConfigDict) -> dict[str, str]:
    """As `NAMES`; of arrays, no flag names one in a file."""
    return NAMES | ({"config.data.name": ""} if config.data.source == "array" else {})


def _source(place: str) -> str:
    if hub.is_remote(place):
        return "parquet"
    if place == "digits" and not Path(place).exists():
        return place
    path = local_path(place, "--data")
    if (path / "card.json").exists():
        return "prepared"
    if path.suffix.lower() in (".npy", ".npz") or (path.is_dir() and any(path.glob("*.npy"))):
        return "array"
    if (path / "data.mdb").exists():
        return "lmdb"
    if "idx3" in path.name or (path.is_dir() and any(path.glob("*idx3*"))):
        return "idx"
    # tfds has names with a slash, such as imagenet_resized/32x32.
    local = path.exists() or place.startswith(("/", ".", "~")) or path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz")
    return "folder" if local else "tfds"
