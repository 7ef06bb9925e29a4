"""Trains a DCGAN: python launch/train.py --config=configs/NAME.py[:RECIPE] [--workdir=DIR] [--config.KEY=VALUE ...]

    python launch/train.py --config=configs/digits.py
    python launch/train.py --config=configs/folder.py --config.data.path=FOLDER --workdir=runs/mine

Without --workdir the run directory is runs/NAME. The same command again resumes the run. --help_config explains every
KEY, and --print_config prints what they come to, without training.

Several processes, on one machine or many, can train together: the project's launch/README.md says how.
"""

import logging

from dcgan_jax.runtime import streams
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.signals import STOPPED, Preempted, StopRequests

streams.open_closed()
# Before the imports, which take a second: a scheduler may ask to stop at any moment.
REQUESTS = StopRequests(exits=True)

import cli  # noqa: E402
import configuration  # noqa: E402
import processes  # noqa: E402
from absl import flags  # noqa: E402

WORKDIR = flags.DEFINE_string("workdir", None, "run directory; runs/NAME by default")
WAIT = flags.DEFINE_integer(
    "wait", 0, "seconds to wait for another process that trains in this directory", lower_bound=0
)
PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "print the whole configuration as JSON, and exit")


def main() -> int:
    config, name = configuration.from_flags()
    if PRINT_CONFIG.value:
        from dcgan_jax.config import validate

        print(validate(config).to_json(indent=2))
        return 0
    from dcgan_jax.runtime import compile_cache, malloc

    malloc.keep_freed_memory()
    from dcgan_jax.train import train  # after the flags are checked: JAX takes a second to import

    if WORKDIR.value == "":  # of an unset variable, perhaps: another run is not to go on instead
        raise UserError(f"--workdir: empty, expected a run directory; leave the flag out to train in runs/{name}")
    compile_cache.enable()
    processes.start()
    try:
        train(config, WORKDIR.value or f"runs/{name}", requests=REQUESTS, wait=WAIT.value)
    except Preempted as stop:
        logging.getLogger("dcgan_jax").warning("%s", stop)
        return STOPPED
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, read=configuration.read)
