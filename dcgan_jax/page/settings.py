"""How a run was configured: the command that gives its configuration, and what differs from the defaults."""

import shlex
from typing import Any, NamedTuple

from dcgan_jax.config import DATA_SETS, for_data_set, validate
from dcgan_jax.fields import FIELDS, SECTIONS, flatten

Values = dict[str, Any]


class Setting(NamedTuple):
    """A field, with its value and its default as on the command line."""

    name: str
    value: str
    default: str
    help: str


def all_of(config: Values) -> dict[str, list[Setting]]:
    """All fields of a configuration, by the section that they are in."""
    return {title: [_setting(name, config) for name in fields] for title, fields in SECTIONS.items()}


def changed(config: Values) -> list[Setting]:
    """The fields that differ from their defaults."""
    return [_setting(name, config) for name, field in FIELDS.items() if config[name] != field.default]


def differing(configs: list[Values]) -> dict[str, list[str]]:
    """The fields in which several configurations differ, with the value of each."""
    differ = [name for name in FIELDS if any(config[name] != configs[0][name] for config in configs)]
    return {name: [shown(config[name]) for config in configs] for name in differ}


def command(config: Values) -> str | None:
    """A command that trains by this configuration, with as few fields as can be; None if no recipe is its own."""
    starts = {
        name: flatten(validate(for_data_set(name, config["recipe"])).to_dict())
        for name, data_set in DATA_SETS.items()
        if config["recipe"] in data_set.steps
    }
    if not starts:
        return None

    def fields(name: str) -> list[str]:
        return [field for field in FIELDS if config[field] != starts[name][field]]

    nearest = min(starts, key=lambda name: len(fields(name)))
    recipe = "" if config["recipe"] == "default" else f":{config['recipe']}"
    given = [f"--config.{name}={shown(config[name])}" for name in fields(nearest)]
    return shlex.join(["python", "launch/train.py", f"--config=configs/{nearest}.py{recipe}", *given])


def shown(value: Any) -> str:
    """A value as on the command line; of a path that belongs to one machine, what is left on another."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    text = str(value)
    return f".../{last_name(text)}" if text.startswith(("/", "~", "\\")) else text


def last_name(path: str) -> str:
    """The last part of a path, of whatever system."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _setting(name: str, config: Values) -> Setting:
    return Setting(name, shown(config[name]), shown(FIELDS[name].default), FIELDS[name].help)
