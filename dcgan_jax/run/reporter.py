"""Reports the results of each call of the devices: finite or not, collapsed or not, and a line every so many steps."""

import json
import logging
import math
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import jax
import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.config import best_by
from dcgan_jax.run import beside, collapse
from dcgan_jax.run.beside import Worker
from dcgan_jax.run.hooks import Output, Snapshot
from dcgan_jax.run.monitor import Clock, Lap, has_line
from dcgan_jax.runtime import devices
from dcgan_jax.runtime.errors import TrainingError
from dcgan_jax.runtime.multihost import gather, run_on_all
from dcgan_jax.runtime.signals import StopVote
from dcgan_jax.state import GANState

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
        self.clock, self.stop, self.worker = Clock(), stop, Worker(beside.suits())
        self._config, self._epoch_size, self._output = config, len(images), output
        self._real_spread = collapse.spread_of_images(images)
        history = collapse.history(config, output.monitor.lines()) if output else None
        self._watch = collapse.Watch(config, json.loads(gather(json.dumps(history))[0]))
        self._warned = False
        self.last_state: GANState  # of the newest snapshot

    def logs(self, step: int) -> bool:
        """Whether a line is written after this step."""
        return step == self._config.num_steps or has_line(self._config, step)

    def read(self, results: Results) -> dict[str, float]:
        """The metrics of the last step of a call, in the training loop. Raises TrainingError if one is not finite."""
        self.stop.record(bool(devices.first_replica(results.any_asked)))
        values = self._finite_values(results)
        self.clock.count(len(results.steps), in_pause=results.compiled)
        if results.spread is not None:
            values["spread"] = float(results.spread) / self._real_spread
        return values

    def write(self, step: int, values: dict[str, float], lap: Callable[[], Lap]) -> None:
        """Writes the line of a step, if it has one. Raises Collapsed if the run acts on a collapse."""
        if not self.logs(step):
            return
        collapsed = self._watch(step, values)
        values["collapsed"] = float(collapsed is not None)
        if self._output:
            seen = step * self._config.batch_size * self._config.discriminator_steps
            line = values | {"epoch": round(seen / self._epoch_size, 4)}
            self._output.monitor.write_metrics(step, line, lap())
            self._output.checkpoints.check()
        if collapsed and self._acts(step):
            raise collapsed
        if collapsed and not self._warned and self._output:
            log.warning("%s. %s", collapsed, self._advice(collapsed, self._output))
        self._warned = collapsed is not None

    def _acts(self, step: int) -> bool:
        action = self._config.on_collapse
        return action == "rollback" or (action == "stop" and step < self._config.num_steps)  # at the end it has stopped

    def _advice(self, collapsed: collapse.Collapsed, output: Output) -> str:
        if not any(step < collapsed.since for step in output.checkpoints.steps()):
            return "Lower learning rates (--config.discriminator_lr) may help, in another --workdir"
        best = " (--step=best)" if best_by(self._config)[0] else ""
        better = f"Checkpoints from before step {collapsed.since} may be better{best}"
        return f"{better}; --config.on_collapse=rollback goes back by itself"

    def best_so_far(self) -> str:
        """For the last line of a run: which checkpoint is the best; on process 0, once all are on disk."""
        return self._output.best_so_far(self._config) if self._output else ""

    def _finite_values(self, results: Results) -> dict[str, float]:
        columns = {name: np.atleast_1d(column) for name, column in devices.first_replica(results.metrics).items()}
        for row, step in enumerate(results.steps):
            values = {name: float(column[row]) for name, column in columns.items()}
            if not all(map(math.isfinite, values.values())):
                self._diverged(step + 1, ", ".join(f"{name} is {value}" for name, value in sorted(values.items())))
            if self._output:
                self._output.monitor.advance()
        return values  # of the last step

    def check_saves(self) -> None:
        """Raises TrainingError if a checkpoint could not be saved, without waiting for one in progress.

        Beside training, the thread that saves looks itself, at each line.
        """
        self.worker.check()
        if self._output and not self.worker.beside:
            self._output.checkpoints.check()

    def wait_for_saves(self) -> None:
        """Returns when all checkpoints are on disk; raises as `check_saves`."""
        self.worker.wait()
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
