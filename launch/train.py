"""Trains a DCGAN: python launch/train.py --config=configs/NAME.py[:RECIPE] [--workdir=DIR] [--config.KEY=VALUE ...]

Without --workdir the run is in runs/NAME. The same command again resumes. dcgan_jax/config.py explains every KEY.
"""

from pathlib import Path

import cli
from absl import flags
from ml_collections import config_flags

from dcgan_jax.config import check_field
from dcgan_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/NAME.py or configs/NAME.py:RECIPE")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; runs/NAME by default")


def check(arguments: list[str]) -> None:
    """Finds the mistakes in --config and --config.KEY that would end in a traceback of config_flags."""
    fields: set[str] = set()
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        name, equals, value = argument.lstrip("-").partition("=")
        value = value if equals else following
        if name.startswith("config."):
            default = check_field(name.removeprefix("config."))
            # The last of two values wins, but ml_collections would join two tuples into a longer one.
            if isinstance(default, tuple) and name in fields:
                raise UserError(f"--{name}: found twice, expected once; remove one")
            fields.add(name)
        if name == "config" and value:
            path = Path(value.partition(":")[0])
            if not path.is_file():
                known = ", ".join(sorted(map(str, Path("configs").glob("*.py"))))
                expected = f"one of {known}" if known else "configs/NAME.py, seen from the folder of the repository"
                raise UserError(f"--config: {str(path)!r} does not exist, expected {expected}")
            if "def get_config(" not in path.read_text(errors="replace"):
                raise UserError(
                    f"--config: {str(path)!r} does not define get_config(), expected a file like configs/digits.py"
                )


def main() -> int:
    from dcgan_jax.train import Preempted, train  # after the flags are checked: JAX takes a second to import

    if CONFIG.value is None:
        raise UserError("--config: missing, expected configs/NAME.py or configs/NAME.py:RECIPE")
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    workdir = WORKDIR.value or f"runs/{Path(path.partition(':')[0]).stem}"
    try:
        train(CONFIG.value, workdir)
    except Preempted as stop:
        print(stop)
        return cli.STOPPED
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, check=check)
