"""The flags --config and --config.KEY, for every launcher that takes a configuration."""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from dcgan_jax.fields import default_of
from dcgan_jax.runtime.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/NAME.py or configs/NAME.py:RECIPE")


def check(arguments: list[str]) -> None:
    """Raises UserError for mistakes in --config and --config.KEY that would end in a traceback of config_flags."""
    fields: set[str] = set()
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        name, equals, value = argument.lstrip("-").partition("=")
        value = value if equals else following
        if name.startswith("config."):
            default = default_of(name.removeprefix("config."))
            # Of two values the last one wins, but ml_collections joins two tuples into a longer one.
            if isinstance(default, tuple) and name in fields:
                raise UserError(f"--{name}: found twice, expected once; remove one")
            fields.add(name)
        if name == "config.recipe":
            raise UserError(f"--config.recipe: found {value!r}, expected none; write --config=configs/NAME.py:{value}")
        if name == "config" and equals and not value:
            raise UserError("--config: missing, expected configs/NAME.py or configs/NAME.py:RECIPE")
        if name == "config" and value:
            path = Path(value.partition(":")[0])
            if not path.is_file():
                known = ", ".join(sorted(map(str, Path("configs").glob("*.py"))))
                expected = f"one of {known}" if known else "configs/NAME.py, relative to the folder of the repository"
                raise UserError(f"--config: {str(path)!r} does not exist, expected {expected}")
            if "def get_config(" not in path.read_text(errors="replace"):
                raise UserError(
                    f"--config: {str(path)!r} does not define get_config(), expected a file like configs/digits.py"
                )


def from_flags() -> tuple[ConfigDict, str]:
    """The configuration from the flags, and the name of its file. Raises UserError if --config is missing."""
    if _CONFIG.value is None:
        raise UserError("--config: missing, expected configs/NAME.py or configs/NAME.py:RECIPE")
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    return _CONFIG.value, Path(path.partition(":")[0]).stem
