"""What saving costs the training loop, as a share of its time at the default interval.

    python benchmarks/checkpoint.py [--config=configs/digits.py] [--saves=5] [--every=100] [--KEY=VALUE ...]

Trains with a checkpoint every `every` steps and no samples. The cost of a save is the time of the 50 steps from it on
beyond 50 median steps, copying, calibration and what the background thread takes from the cores included; the share is
that cost in 1,000 steps, the default interval. KEY is a field of the configuration, such as data.path.
"""

import argparse
import importlib.util
import tempfile
import time
from pathlib import Path

import numpy as np

from dcgan_jax import train
from dcgan_jax.config import check_field, default_config

AFTER = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/digits.py")
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--every", type=int, default=100)
    arguments, fields = parser.parse_known_args()
    file, _, recipe = arguments.config.partition(":")
    spec = importlib.util.spec_from_file_location("configured", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(recipe or "default")
    steps = arguments.every * (arguments.saves + 1)
    config.update(
        dict(num_steps=steps, checkpoint_every=arguments.every, sample_every=10**9, log_every=arguments.every)
    )
    for field in fields:
        name, _, value = field.lstrip("-").partition("=")
        config.update_from_flattened_dict({name: type(check_field(name))(value)})

    moments = []
    report = train._Run._report

    def timed(self, *reported):
        moments.append(time.perf_counter())
        return report(self, *reported)

    train._Run._report = timed
    with tempfile.TemporaryDirectory() as folder:
        train.train(config, Path(folder) / "run")
    durations = np.diff(moments)
    median = np.median(durations)
    # The first save compiles the calibration; the last ends the run.
    starts = [arguments.every * save - 1 for save in range(2, arguments.saves + 1)]
    costs = [np.sum(durations[start : start + AFTER] - median) for start in starts]
    interval = default_config().checkpoint_every
    print(
        f"{arguments.config}, batch {config.batch_size}: median step {1e3 * median:.1f} ms; a save costs "
        f"{np.median(costs) / median:.1f} steps (from {min(costs) / median:.1f} to {max(costs) / median:.1f}), "
        f"{100 * np.median(costs) / (interval * median):.2f}% of {interval} steps"
    )


if __name__ == "__main__":
    main()
