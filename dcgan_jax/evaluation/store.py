"""What is computed once and kept in the user's cache folder, under a hash of all that it follows from."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

log = logging.getLogger("dcgan_jax")

Tree = Any


def folder() -> Path:
    """$XDG_CACHE_HOME/dcgan_jax/evaluation, or below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dcgan_jax" / "evaluation"


def keep(kind: str, key: str, arrays: Tree, about: dict[str, Any]) -> None:
    """Writes nested dictionaries of arrays, with what is known about them. A kill leaves no half file in its place."""
    file = _file(kind, key)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    flat = {"/".join(path): np.asarray(array) for path, array in flatten_dict(arrays).items()}
    card = json.dumps({"key": key, "about": about})
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as writer:
            np.savez(writer, allow_pickle=False, card=np.array(card), **flat)
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        log.info("%s is not kept for the next time (%s)", kind, error)


def kept(kind: str, key: str, expected: Tree) -> tuple[Tree, dict[str, Any]] | None:
    """What `keep` wrote under this key, where it has the shapes and dtypes of `expected`; otherwise None."""
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
    except Exception as error:  # zipfile and numpy raise all kinds on damaged files
        log.warning("%s cannot be used (%s); computing it again", file, error)
        return None


def _file(kind: str, key: str) -> Path:
    return folder() / f"{kind}-{key[:32]}.npz"
