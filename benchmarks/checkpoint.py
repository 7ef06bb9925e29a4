"""What saving costs the training loop, as a share of its time at the default interval.

    python benchmarks/checkpoint.py [--config=configs/digits.py] [--saves=5] [--every=100] [--KEY=VALUE ...]

Trains with a checkpoint every `every` steps and without samples. A save costs the time of the 50 steps after it minus
50 median steps: this includes the copy to the host, recalibrated batch norm statistics, and what the background thread
takes from the cores. The share is that cost in 1,000 steps, the default interval. KEY is a field of the configuration,
such as data.path.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measure
import numpy as np

from dcgan_jax import train
from dcgan_jax.config import default_config
from dcgan_jax.runtime import devices

STEPS_AFTER_SAVE = 50


def record_calls(moments: list[float]) -> None:
    """Makes every call of a training step append its moment."""
    map_step = devices.map_step

    def map_recorded(step: Callable, **options) -> Callable:
        mapped = map_step(step, **options)

        def recorded(*arguments):
            moments.append(time.perf_counter())
            return mapped(*arguments)

        return recorded

    devices.map_step = map_recorded


def main() -> None:
    parser = measure.plain_parser(__doc__, config="configs/digits.py", saves=5, every=100)
    options, fields = parser.parse_known_args()
    every = options.every
    config = measure.load_config(options.config)
    config.update(
        num_steps=every * (options.saves + 1),
        checkpoint_every=every,
        sample_every=every * (options.saves + 1),
        log_every=every,
        steps_per_call=1,
    )
    measure.set_fields(config, fields)
    moments: list[float] = []
    record_calls(moments)
    with tempfile.TemporaryDirectory() as folder:
        train.train(config, Path(folder) / "run")
    durations = np.diff(moments)
    median = np.median(durations)
    # The first save also compiles; the last one ends the run.
    starts = [every * save - 1 for save in range(2, options.saves + 1)]
    costs = [np.sum(durations[start : start + STEPS_AFTER_SAVE] - median) for start in starts]
    interval = default_config().checkpoint_every
    print(
        f"{options.config}, batch {config.batch_size}: median step {1e3 * median:.1f} ms; a save costs "
        f"{np.median(costs) / median:.1f} steps (from {min(costs) / median:.1f} to {max(costs) / median:.1f}), "
        f"{100 * np.median(costs) / (interval * median):.2f}% of {interval} steps"
    )


if __name__ == "__main__":
    main()
