"""The prepared set that `config.data.path` names: a local folder, or one in a bucket (gs://, s3://), copied once."""

import logging
import shutil
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dcgan_jax.data import prepared
from dcgan_jax.runtime import files
from dcgan_jax.runtime.errors import UserError, local_path, writable_path

log = logging.getLogger("dcgan_jax")


def open_prepared(config: ConfigDict, *, resizable: bool = True) -> prepared.ImageSet:
    """Opens the prepared set that `config.data.path` names. resizable: the configuration's size may still be changed.

    Raises UserError if it does not exist, cannot be copied, or its images do not have the configuration's size.
    """
    image_set = prepared.open_set(prepared_path(config))
    shape, expected = image_set.images.shape[1:], (*config.image_size, config.channels)
    if shape != expected:
        height, width, channels = shape
        fitting = f"pass --config.image_size={height},{width} --config.channels={channels}, or " if resizable else ""
        raise UserError(
            f"config.data.path: {config.data.path!r} holds images of {shape} (height, width, channels), "
            f"expected {expected}; {fitting}prepare another set"
        )
    return image_set


def prepared_path(config: ConfigDict) -> Path:
    """The local folder of the set that `config.data.path` names, copied to `config.data.prepared` if it is remote."""
    name = config.data.path
    if not name:
        raise UserError("config.data.path: missing, expected a prepared set; pass --config.data.path=FOLDER")
    return _local_copy(name, config.data.prepared) if "://" in name else local_path(name, "config.data.path")


def _local_copy(url: str, root: str) -> Path:
    from etils import epath  # imported late: only sets in a bucket need it

    folder = writable_path(root, "config.data.prepared")
    try:
        remote = epath.Path(url)
        card = prepared.read_card(remote)
        local = folder / f"{remote.name}-{card['sha256']['images'][:12]}"
        with prepared.building(local) as partial:
            if partial:
                log.info("copying %s to %s, once", url, local)
                for name in card["sha256"]:
                    _copy(remote / f"{name}.npy", partial / f"{name}.npy")
                if (remote / "names.txt").exists():
                    _copy(remote / "names.txt", partial / "names.txt")
                prepared.write_card(partial, card)
                prepared.open_set(partial, verify=True)
    except UserError:
        raise
    except Exception as error:  # the libraries for buckets have errors of their own
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"config.data.path: {url!r} cannot be copied ({type(error).__name__}: {reason}); check the name and your "
            "access (gs:// needs the package gcsfs, s3:// needs s3fs), or copy it yourself and pass the folder"
        ) from error
    return local


def _copy(source: Any, target: Path) -> None:
    with source.open("rb") as reader, files.atomic_write(target) as writer:
        shutil.copyfileobj(reader, writer, 2**24)
