"""The flags --config and --config.KEY, for every launcher that takes a configuration."""

from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from dcgan_jax.fields import default_of
from dcgan_jax.runtime.errors import UserError

# The project's configurations lie beside launch/, in a checkout and in a wheel.
FILES = {file.stem: file for file in sorted((Path(__file__).resolve().parent.parent / "configs").glob("*.py"))}
EXPECTED = f"NAME or NAME:RECIPE, with NAME one of {', '.join(FILES)}, or the path of a file like them"

flags.DEFINE_bool("help_config", False, "explain every field of a configuration, and exit")
_CONFIG = config_flags.DEFINE_config_file("config", help_string=EXPECTED)


def read(arguments: list[str]) -> list[str]:
    """The arguments with the file of a configuration in place of its name: configs/digits.py for digits.

    Raises UserError for mistakes in --config and --config.KEY that would end in a traceback of config_flags.
    """
    arguments = arguments[:]
    fields: set[str] = set()
    for place, argument in enumerate(arguments):
        name, equals, value = argument.lstrip("-").partition("=")
        if name.startswith("config."):
            default = default_of(name.removeprefix("config."))
            # Of two values the last one wins, but ml_collections joins two tuples into a longer one.
            if isinstance(default, tuple) and name in fields:
                raise UserError(f"--{name}: found twice, expected once; remove one")
            fields.add(name)
        if name == "config.recipe":
            raise UserError(f"--config.recipe: found {value!r}, expected none; write --config=configs/NAME.py:{value}")
        if name != "config" or not argument.startswith("-"):
            continue
        if equals:
            arguments[place] = f"--config={_file(value)}"
        elif place + 1 < len(arguments):
            arguments[place + 1] = _file(arguments[place + 1])
    return arguments


def _file(value: str) -> str:
    """PATH or PATH:RECIPE for a value of --config, which may be a name. Raises UserError if there is no such file."""
    if not value:
        raise UserError(f"--config: missing, expected {EXPECTED}")
    name, colon, recipe = value.partition(":")
    path = FILES.get(name, Path(name))
    if not path.is_file():
        raise UserError(f"--config: {name!r} does not exist, expected {EXPECTED}")
    if "def get_config(" not in path.read_text(errors="replace"):
        raise UserError(f"--config: {name!r} does not define get_config(), expected a file like {FILES['digits']}")
    return f"{path}{colon}{recipe}"


def from_flags() -> tuple[ConfigDict, str]:
    """The configuration from the flags, and the name of its file. Raises UserError if --config is missing."""
    if _CONFIG.value is None:
        raise UserError(f"--config: missing, expected {EXPECTED}")
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    return _CONFIG.value, Path(path.partition(":")[0]).stem


def typed() -> str:
    """What --config names, as short as it can be typed: digits:torch for a configuration of the project's."""
    path, colon, recipe = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    name = next((name for name, file in FILES.items() if file == Path(path).resolve()), path)
    return f"{name}{colon}{recipe}"


def given() -> dict[str, Any]:
    """The fields that the command line sets, --config.KEY=VALUE, with their values."""
    return config_flags.get_override_values(flags.FLAGS["config"])
