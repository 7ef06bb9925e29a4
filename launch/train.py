"""Trains a DCGAN: python launch/train.py --config=configs/NAME.py[:RECIPE] [--workdir=DIR] [--config.KEY=VALUE ...]

Without --workdir the run is in runs/NAME. The same command again resumes. dcgan_jax/config.py explains every KEY.
"""

import cli
import configuration
from absl import flags

WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; runs/NAME by default")


def main() -> int:
    from dcgan_jax.train import Preempted, train  # after the flags are checked: JAX takes a second to import

    config, name = configuration.given()
    try:
        train(config, WORKDIR.value or f"runs/{name}")
    except Preempted as stop:
        print(stop)
        return cli.STOPPED
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, check=configuration.check)
