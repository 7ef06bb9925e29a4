"""A folder of weights, to hand on: trained networks without optimizers, checkpoints, or anything that could be run.

    generator.safetensors      its moving average: arrays named 'params/project/kernel', 'batch_stats/norm_0/mean', ...
    generator.json             the card: what rebuilds the networks, and what is known about them
    discriminator.safetensors  the discriminator, if it is there

The card has `format`, `step`, `latent_dim`, `prior`, `image_size`, `channels`, `num_classes`, `classes`, `config`,
`data` (the card of the training images), `metrics` (of its step), `versions`, and `sha256`: a hash for each network, of
its arrays and the configuration.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from dcgan_jax.fields import FIELDS
from dcgan_jax.run import trees
from dcgan_jax.runtime import safetensors_file
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import write_text

Tree = dict[str, Any]

FORMAT = 1
CARD = "generator.json"
FILES = {"ema": "generator.safetensors", "discriminator": "discriminator.safetensors"}
# Fields that describe the networks by themselves, for readers other than this package.
DESCRIBING = ("latent_dim", "prior", "image_size", "channels", "num_classes")
NEEDED = {"step": int, "config": dict, "sha256": dict}


def is_one(folder: Path) -> bool:
    """Whether a folder holds weights as they are described above; a run's directory does not."""
    return any((folder / name).is_file() for name in (CARD, FILES["ema"])) and not (folder / "checkpoints").exists()


def write(folder: Path, tree: Tree, meta: dict[str, Any], networks: Iterable[str] = ("ema",)) -> None:
    """Writes networks of a checkpoint's tree, some of `FILES`, and the card, to a folder that exists.

    meta: the checkpoint's. Absolute paths are left out of it: they mean nothing on another machine.
    """
    config = portable(meta["config"])
    data = {name: value for name, value in (meta.get("data") or {}).items() if name not in ("path", "fingerprint")}
    card: dict[str, Any] = {"format": FORMAT, "step": int(tree["step"])}
    card |= {name: config.get(name, FIELDS[name].default) for name in DESCRIBING}
    card |= {"classes": data.get("classes", []), "config": config, "data": data}
    card |= {name: meta.get(name) or {} for name in ("metrics", "versions")}
    hashes = {}
    for network in networks:
        collections = {name: part for name, part in tree[network].items() if name != "opt_state"}
        arrays = flatten_dict(collections, sep="/")
        safetensors_file.write(folder / FILES[network], arrays)
        hashes[network] = _digest(arrays, card)
    write_text(folder / CARD, json.dumps(card | {"sha256": hashes}, indent=2) + "\n")


def read(folder: Path, step: int | str | None = None) -> tuple[Tree, dict[str, Any]]:
    """The networks in a folder, as `checkpoint.read` gives a run's: `step`, `ema`, and `discriminator` if it is there.

    Raises UserError if a file is missing, damaged or changed, or a step is asked for that is not the folder's.
    """
    card = _card(folder / CARD)
    if step is not None and step != card["step"]:
        raise UserError(
            f"step: found {step!r}, expected none: {str(folder)!r} holds no checkpoints, but one network, of step "
            f"{card['step']}"
        )
    tree: Tree = {"step": card["step"]}
    for network, name in FILES.items():
        path = folder / name
        if not path.is_file():
            continue
        arrays = safetensors_file.read(path, "workdir")
        if card["sha256"].get(network) != _digest(arrays, card):
            raise UserError(
                f"workdir: {str(path)!r} is not what {CARD} describes: one of them was changed, or belongs to other "
                "networks; export them again, or copy both again"
            )
        tree[network] = {"batch_stats": {}} | unflatten_dict(arrays, sep="/")
    if "ema" not in tree:
        raise UserError(f"workdir: {str(folder)!r} holds {CARD} without {FILES['ema']}, expected both; copy both again")
    return tree, card


def portable(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration with its defaults in place of absolute paths, which name folders of one machine."""
    result = {}
    for name, value in config.items():
        if isinstance(value, dict):
            value = portable(value, f"{prefix}{name}.")
        elif isinstance(value, str) and value.startswith(("/", "~", "\\")) and prefix + name in FIELDS:
            value = FIELDS[prefix + name].default
        result[name] = value
    return result


def _digest(arrays: Tree, card: dict[str, Any]) -> str:
    return trees.digest(arrays, json.loads(json.dumps({"config": card["config"]})))


def _card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(
            f"workdir: {str(path.parent)!r} holds {FILES['ema']} without {CARD}, expected both; copy both again"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"workdir: {str(path)!r} cannot be read ({error}), expected JSON; copy it again") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = repr(card["format"]) if isinstance(card, dict) and "format" in card else "none"
        raise UserError(
            f"workdir: {str(path)!r} is of format {found}, expected {FORMAT}; use the version that wrote it"
        )
    odd = [name for name, kind in NEEDED.items() if not isinstance(card.get(name), kind)]
    if odd:
        raise UserError(f"workdir: {str(path)!r} has no {', '.join(odd)}, expected a generator's card; export it again")
    return card
