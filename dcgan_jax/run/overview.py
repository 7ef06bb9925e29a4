"""What a run starts with, as a short table: what differs from the defaults, the sizes of both networks, its samples."""

import textwrap
from pathlib import Path

import jax
from ml_collections import ConfigDict

from dcgan_jax.fields import FIELDS, SECTIONS, flatten, shown
from dcgan_jax.state import GANState

WIDTH = 100


def table(config: ConfigDict, workdir: Path, state: GANState) -> str:
    """The table, without a line's end. Fields that have their default are left out; --print_config has them all."""
    values = flatten(config.to_dict())
    rows = {}
    for title, fields in SECTIONS.items():
        differing = [name for name in fields if values[name] != FIELDS[name].default]
        rows[title.lower()] = [f"{name}={shown(values[name])}" for name in differing]
    sizes = {"generator": state.generator.params, "discriminator": state.discriminator.params}
    rows["parameters"] = [f"{name}={_count(params):,}" for name, params in sizes.items()]
    rows["samples"] = [str(workdir / "samples")]
    return "\n".join(line for name, texts in rows.items() for line in _lines(name, texts))


def _count(params: object) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _lines(name: str, texts: list[str]) -> list[str]:
    # A path with spaces stays one word.
    words = textwrap.wrap("  ".join(text.replace(" ", "\0") for text in texts), WIDTH, break_long_words=False)
    return [f"  {name if i == 0 else '':10}  {line}".replace("\0", " ") for i, line in enumerate(words)]
