"""Arrays that are slow to compute, cached on disk under a hash of everything they depend on."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dcgan_jax.runtime.files import atomic_write

log = logging.getLogger("dcgan_jax")

Tree = Any


def folder() -> Path:
    """$XDG_CACHE_HOME/dcgan_jax/evaluation, by default ~/.cache/dcgan_jax/evaluation."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dcgan_jax" / "evaluation"


def save(kind: str, key: str, arrays: Tree, about: dict[str, Any]) -> None:
    """Writes nested dictionaries of arrays, and a description in JSON, atomically.

    If the file cannot be written, this is logged and nothing is raised.
    """
    file = _file(kind, key)
    flat = {"/".join(path): np.asarray(array) for path, array in flatten_dict(arrays).items()}
    card = json.dumps({"key": key, "about": about})
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as writer:
            np.savez(writer, allow_pickle=False, card=np.array(card), **flat)
    except OSError as error:
        log.info("%s cannot be cached (%s)", kind, error)


def load(kind: str, key: str, expected: Tree) -> tuple[Tree, dict[str, Any]] | None:
    """The arrays and the description that `save` wrote under this key.

    None if there is no such file, or if names, shapes or dtypes are not those of `expected`.
    """
    file = _file(kind, key)
    try:
        with np.load(file, allow_pickle=False) as archive:
            flat = {name: archive[name] for name in archive.files}
        card = json.loads(str(flat.pop("card")))
        shapes = {"/".join(path): (leaf.shape, leaf.dtype) for path, leaf in flatten_dict(expected).items()}
        if card["key"] != key or {name: (array.shape, array.dtype) for name, array in flat.items()} != shapes:
            raise ValueError("it was computed for something else")
        return unflatten_dict({tuple(name.split("/")): array for name, array in flat.items()}), card["about"]
    except FileNotFoundError:
        return None
    except Exception as error:  # zipfile and numpy raise many kinds of errors on damaged files
        log.warning("%s cannot be used (%s); computing it again", file, error)
        return None


def exists(kind: str, key: str) -> bool:
    """Whether something was saved under this key."""
    return _file(kind, key).exists()


def _file(kind: str, key: str) -> Path:
    return folder() / f"{kind}-{key[:32]}.npz"
