"""Trains a DCGAN: python launch/train.py --config=configs/NAME.py[:RECIPE] [--workdir=DIR] [--config.KEY=VALUE ...]

Without --workdir the run is in runs/NAME. The same command again resumes.
"""

from pathlib import Path

import cli
from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/NAME.py or configs/NAME.py:RECIPE")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; runs/NAME by default")


def main() -> int:
    from dcgan_jax.errors import UserError
    from dcgan_jax.train import Preempted, train

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
    cli.run(main, __doc__)
