"""Trees of arrays, as in a checkpoint: what their leaves are, a hash of all, and how two trees differ."""

import hashlib
import json
from typing import Any

import jax
import numpy as np

from dcgan_jax.runtime.errors import UserError

Tree = Any


def digest(tree: Tree, meta: dict[str, Any]) -> str:
    """SHA-256 of all leaves with their paths, dtypes and shapes, and of the rest of meta."""
    hashed = hashlib.sha256()
    rest = {name: value for name, value in meta.items() if name != "sha256"}
    hashed.update(json.dumps(rest, sort_keys=True).encode())
    for path, description, leaf in leaves(tree):
        hashed.update(f"\0{path}\0{description}\0".encode())
        hashed.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return hashed.hexdigest()


def leaves(tree: Tree) -> list[tuple[str, str, Any]]:
    """Path, dtype with shape, and value of each leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [("/".join(str(key.key) for key in path), f"{leaf.dtype}{list(leaf.shape)}", leaf) for path, leaf in leaves]


def check_equal_shapes(found: Tree, expected: Tree) -> None:
    """Raises UserError that names each leaf whose path, dtype or shape differs."""
    differing = differences(found, expected)
    if differing:
        raise UserError(
            f"checkpoint: {len(differing)} leaves do not fit the configuration ({'; '.join(differing)}); train this "
            "configuration in another folder"
        )


def differences(found: Tree, expected: Tree) -> list[str]:
    """One text for each leaf whose path, dtype or shape differs."""
    found_leaves = {path: description for path, description, _ in leaves(found)}
    expected_leaves = {path: description for path, description, _ in leaves(expected)}
    return [
        f"{path}: found {found_leaves.get(path, 'nothing')}, expected {expected_leaves.get(path, 'nothing')}"
        for path in sorted(found_leaves.keys() | expected_leaves.keys())
        if found_leaves.get(path) != expected_leaves.get(path)
    ]
