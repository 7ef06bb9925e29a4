"""Finds the state dicts of networks in a file of weights, at the top or nested in a checkpoint.

A checkpoint may hold them by name ({'netG': ..., 'netD': ..., 'epoch': 3}), or as one whose names have prefixes, as
Lightning does ('generator.main.0.weight'). The prefixes that wrappers add to names are dropped.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from dcgan_jax.interop import torch_file, torch_layers
from dcgan_jax.runtime import safetensors_file
from dcgan_jax.runtime.errors import UserError, local_path

# First parts of names that tell the networks in one state dict apart.
NETWORKS = ("netG", "netD", "generator", "discriminator", "G", "D", "g", "d", "gen", "disc", "dis", "netG_ema", "g_ema")
# By DataParallel, torch.compile, and classes that hold a network.
WRAPPERS = ("module.", "_orig_mod.", "model.")
# What the names of weights end in, with spectral or weight norm too; an optimizer's state has no such names.
WEIGHTS = ("weight", "weight_orig", "weight_v", "weight.original", "weight.original1")
DEPTH = 3  # of dictionaries within dictionaries that are looked at


def read(files: list[str], keys: list[str]) -> dict[str, dict[str, Any]]:
    """State dicts in files of `torch.save` or of safetensors, by what the user calls them, for error messages.

    keys: names of those wanted; files that hold one of these names give these alone, others all that they hold.
    Raises UserError if a file cannot be read or holds none, or a key is not found.
    """
    found: dict[str, dict[str, Any]] = {}
    missing = set(keys)
    known: list[str] = []
    for file in files:
        path = local_path(file, "--file")
        safe = safetensors_file.is_one(path)
        content = safetensors_file.read(path, "--file") if safe else torch_file.read(path)
        chosen = {key: arrays for key in keys for arrays in [_named(content, key)] if arrays}
        missing -= chosen.keys()
        networks = chosen or find(content, file)
        known += networks
        for name, arrays in networks.items():
            where = f"--file {file!r}" + (f", {name}" if name else "")
            found[where] = arrays
            if safe:
                torch_layers.check_numbered(arrays, where)
    if missing:
        listed = ", ".join(filter(None, known)) or "none: the file is one state dict"
        raise UserError(f"--key: {sorted(missing)[0]!r} is in none of the files, expected one of {listed}")
    return found


def find(content: dict[str, Any], file: str) -> dict[str, dict[str, Any]]:
    """The state dicts in what a file holds, by their names in it, '' for the whole.

    Raises UserError if there is none.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, arrays in _nested(content, "", DEPTH):
        found |= {f"{name}.{part}".strip("."): arrays for part, arrays in _split(arrays).items()}
    if found:
        return found
    for key, value in content.items():
        if torch_file.is_module(value):
            raise UserError(f"--file: {file!r} cannot be read: {torch_file.whole_module(value, file, str(key))}")
    listed = ", ".join(str(key)[:40] for key in list(content)[:9]) or "nothing"
    if {"state", "param_groups"} <= content.keys():
        listed += ", which is an optimizer's state"
    raise UserError(f"--file {file!r}: found {listed}; expected a network's state dict, or dictionaries that hold some")


def _nested(content: dict[str, Any], name: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    if any(str(key).endswith(WEIGHTS) and isinstance(content[key], np.ndarray) for key in content):
        yield name, content
    elif depth:
        for key, value in content.items():
            if isinstance(value, dict):
                yield from _nested(value, f"{name}.{key}".strip("."), depth - 1)


def _split(arrays: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The networks in one state dict, by the first parts of their names; {'': all} unless these tell several apart."""
    arrays = _unwrapped(arrays)
    parts = {name: _below(arrays, name) for name in NETWORKS}
    parts = {name: part for name, part in parts.items() if part}
    return parts if len(parts) > 1 else {"": arrays}


def _named(content: dict[str, Any], key: str) -> dict[str, Any]:
    """The state dict of this name, or of this last part of a name, or those names that begin with it; {} if none."""
    for name, arrays in _nested(content, "", DEPTH):
        if f".{name}".endswith(f".{key}"):
            return _unwrapped(arrays)
        prefix = key.removeprefix(name).removeprefix(".")
        if part := _below(_unwrapped(arrays), prefix) or _below(arrays, prefix):
            return part
    return {}


def _below(arrays: dict[str, Any], prefix: str) -> dict[str, Any]:
    start = f"{prefix}."
    return _unwrapped({name[len(start) :]: value for name, value in arrays.items() if name.startswith(start)})


def _unwrapped(arrays: dict[str, Any]) -> dict[str, Any]:
    """Without prefixes of wrappers, however many and in whatever order, and without counters beside the network."""
    result = {}
    for name, value in arrays.items():
        name = str(name)
        while name.startswith(WRAPPERS):
            name = name.partition(".")[2]
        if "." in name or np.ndim(value):  # a number that belongs to no layer, such as AveragedModel's n_averaged
            result[name] = value
    return result
