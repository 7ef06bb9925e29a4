"""Reports the results of each call of the devices: finite or not, collapsed or not, and a line every so many steps."""

import json
import logging
import math
from typing import NamedTuple, NoReturn

import jax
import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.run import collapse
from dcgan_jax.run.hooks import Output, Snapshot
from dcgan_jax.run.monitor import Clock
from dcgan_jax.runtime import devices
from dcgan_jax.runtime.errors import TrainingError
from dcgan_jax.runtime.multihost import gather, run_on_all
from dcgan_jax.runtime.signals import StopVote

log = logging.getLogger("dcgan_jax")


class Results(NamedTuple):
    """What one call of the devices gave."""

    steps: range
    metrics: dict[str, jax.Array]  # [devices], or [devices, steps]
    any_asked: jax.Array  # whether a process has asked to stop
    spread: jax.Array | None  # after a step that is logged
    compiled: bool  # it was the first call of its program, and compiled it


class Reporter:
    """Reports the results of each call: refuses numbers that are not finite, watches for a collapse, writes lines."""

    def __init__(self, config: ConfigDict, images: np.ndarray, output: Output | None, stop: StopVote):
        """images: the training images, uint8 [N, H, W, C]."""
        self.clock, self.stop = Clock(), stop
        self._config, self._epoch_size, self._output = config, len(images), output
        self._real_spread = collapse.spread_of_images(images)
        history = collapse.history(output.monitor.lines()) if output else None
        self._watch = collapse.Watch(**json.loads(gather(json.dumps(history))[0]))
        self._warned = False

    def __call__(self, results: Results) -> dict[str, float]:
        """The metrics of the last step of a call. Raises TrainingError, and Collapsed if the run acts on a collapse."""
        self.stop.record(bool(devices.first_replica(results.any_asked)))
        values = self._finite_values(results)
        self.clock.count(len(results.steps), in_pause=results.compiled)
        if results.spread is not None:
            step = results.steps.stop
            values["spread"] = float(devices.first_replica(results.spread)) / self._real_spread
            collapsed = self._watch(step, values)
            values["collapsed"] = float(collapsed is not None)
            self._write(step, values)
            if collapsed and self._config.on_collapse != "warn":
                raise collapsed
            if collapsed and not self._warned:
                log.warning(
                    "%s. Checkpoints from before step %d may be better; --config.on_collapse=rollback goes back by "
                    "itself",
                    collapsed,
                    collapsed.since,
                )
            self._warned = collapsed is not None
        return values

    def _finite_values(self, results: Results) -> dict[str, float]:
        columns = {name: np.atleast_1d(column) for name, column in devices.first_replica(results.metrics).items()}
        for row, step in enumerate(results.steps):
            values = {name: float(column[row]) for name, column in columns.items()}
            if not all(map(math.isfinite, values.values())):
                self._diverged(step + 1, ", ".join(f"{name} is {value}" for name, value in sorted(values.items())))
            if self._output:
                self._output.monitor.advance()
        return values  # of the last step

    def _write(self, step: int, values: dict[str, float]) -> None:
        rate, data_wait = self.clock.lap()
        if self._output:
            line = values | {"epoch": round(step * self._config.batch_size / self._epoch_size, 4)}
            self._output.monitor.write_metrics(step, line, steps_per_second=rate, data_wait=data_wait)

    def check_saves(self) -> None:
        """Raises TrainingError if a checkpoint could not be saved, without waiting for one in progress."""
        if self._output:
            self._output.checkpoints.check()

    def wait_for_saves(self) -> None:
        """Returns when all checkpoints are on disk; raises as `check_saves`."""
        if self._output:
            self._output.checkpoints.wait()

    def check_finite(self, snapshot: Snapshot) -> None:
        """Raises TrainingError unless all of the state is: weights can be NaN while the last loss was still finite."""
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(snapshot.state)):
            self._diverged(snapshot.step, "the state holds numbers that are not finite")

    def _diverged(self, step: int, what: str) -> NoReturn:
        kept = "process 0 tells which checkpoint is the last good one"
        run_on_all(self.wait_for_saves)
        if self._output:
            last = self._output.checkpoints.latest_step()
            kept = f"the checkpoint of step {last} is the last good one" if last else "there is no checkpoint yet"
        raise TrainingError(
            f"step {step}: {what}; {kept}. Try lower learning rates (--config.discriminator_lr, "
            "--config.generator_lr), another --config.seed, or --config.dtype=float32, in another --workdir"
        )
