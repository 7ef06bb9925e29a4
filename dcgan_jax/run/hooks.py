"""What the training loop calls every so many steps: report and watch, sample, evaluate, save."""

import json
import logging
import math
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from flax import serialization
from ml_collections import ConfigDict

from dcgan_jax.evaluation import report
from dcgan_jax.evaluation.evaluate import Evaluator
from dcgan_jax.inference import TrainedGAN, recalibrate
from dcgan_jax.run import checkpoint, collapse
from dcgan_jax.run.checkpoint import Checkpoints
from dcgan_jax.run.monitor import Clock, Monitor
from dcgan_jax.run.prepare import Run
from dcgan_jax.runtime import devices, files
from dcgan_jax.runtime.errors import TrainingError
from dcgan_jax.runtime.multihost import run_on_all
from dcgan_jax.runtime.signals import StopVote
from dcgan_jax.runtime.versions import versions
from dcgan_jax.state import GANState

log = logging.getLogger("dcgan_jax")

GRID = 64  # images in a grid of samples


class Snapshot:
    """The state after a step, on the host, with statistics that fit the moving average; made once for all hooks.

    metrics: those of this step, to which an evaluation adds its own; a checkpoint keeps them.
    """

    def __init__(self, config: ConfigDict, state: GANState, metrics: dict[str, float]):
        """state: of one replica, arrays of numpy."""
        self._config, self.step, self.metrics = config, int(state.step), metrics
        self._average = recalibrate(config, jax.device_put(state.ema))
        self.state = state.replace(ema=jax.device_get(self._average))

    @cached_property
    def gan(self) -> TrainedGAN:
        """What `dcgan_jax.load` would give for a checkpoint of this step."""
        return TrainedGAN(self._config, serialization.to_state_dict(self.state.replace(ema=self._average)))


class Hook(NamedTuple):
    """Something to do every `every` steps (several numbers: at multiples of any; 0 is never) and after the last one.

    when_stopping: also if the run stops early.
    """

    act: Callable[[Snapshot], None]
    every: tuple[int, ...]
    when_stopping: bool = False

    def due(self, step: int, *, last: bool, stopping: bool) -> bool:
        """Whether it is to be done after this step."""
        return last or (stopping and self.when_stopping) or any(n and step % n == 0 for n in self.every)


def sample(monitor: Monitor, seed: int, every: int) -> Hook:
    """Writes a grid of samples of a fixed z."""

    def act(snapshot: Snapshot) -> None:
        monitor.images(f"step_{snapshot.step:08d}", snapshot.gan.sample(GRID, seed), snapshot.step)

    return Hook(act, (every,))


def show_reals(monitor: Monitor, images: np.ndarray, seed: int) -> None:
    """Writes a grid of real images, uint8 [N, H, W, C]."""
    # From all over the set: the first ones may all be of one class.
    chosen = np.random.default_rng(seed).permutation(len(images))[:GRID]
    monitor.images("reals", images[np.sort(chosen)], 0)


def evaluate(evaluator: Evaluator, workdir: Path, monitor: Monitor | None, seed: int, every: int) -> Hook:
    """Measures samples, as launch/evaluate.py does; all processes take part, and the one with a monitor writes."""

    def act(snapshot: Snapshot) -> None:
        lines = evaluator(lambda indices: snapshot.gan.sample_at(indices, seed), step=snapshot.step)
        values = {line["metric"]: line["value"] for line in lines}
        snapshot.metrics |= values
        if monitor:
            files.append_lines(workdir / report.NAME, lines)
            monitor.evaluation(snapshot.step, values)
            report.curves(report.read(workdir / report.NAME), workdir / "evaluation")

    return Hook(act, (every,))


def save(checkpoints: Checkpoints, monitor: Monitor, meta: dict[str, Any], every: tuple[int, ...]) -> Hook:
    """Saves a checkpoint, in the background."""

    def act(snapshot: Snapshot) -> None:
        monitor.sync()
        checkpoints.save(snapshot.step, snapshot.state, meta, snapshot.metrics)

    return Hook(act, every, when_stopping=True)


class Output(NamedTuple):
    """What writes to the run directory, on process 0 alone."""

    monitor: Monitor
    checkpoints: Checkpoints

    @classmethod
    def open(cls, run: Run, start: int, opened: ExitStack) -> "Output":
        """Opens both for a run that goes on from step `start`; closed with the stack."""
        config = run.config
        checkpoint.set_aside(run.workdir, newer_than=start)
        checkpoints = Checkpoints(
            run.workdir,
            keep=config.keep,
            keep_best=config.keep_best,
            best_metric=config.best_metric,
            best_is=config.best_is,
        )
        opened.enter_context(closing(checkpoints))
        return cls(opened.enter_context(closing(Monitor(run.workdir, config, start_step=start))), checkpoints)


def of_run(run: Run, output: Output | None, rollbacks: int) -> list[Hook]:
    """The hooks of a run in their order: a checkpoint keeps what an evaluation before it has measured."""
    config, chosen = run.config, []
    if output:
        chosen.append(sample(output.monitor, config.seed, config.sample_every))
    if run.evaluator:
        monitor = output.monitor if output else None
        chosen.append(evaluate(run.evaluator, run.workdir, monitor, config.seed, config.eval_every))
    if output:
        meta = {
            "config": json.loads(config.to_json()),
            "versions": versions(),
            "data": run.image_set.card,
            "rollbacks": rollbacks,
        }
        chosen.append(save(output.checkpoints, output.monitor, meta, (config.checkpoint_every, config.eval_every)))
    return chosen


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
        self._watch = collapse.Watch()
        self._warned = False

    def __call__(self, results: Results) -> dict[str, float]:
        """The metrics of the last step of a call. Raises TrainingError, and Collapsed if the run acts on a collapse."""
        self.stop.count(bool(devices.first_replica(results.any_asked)))
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
        return values

    def _write(self, step: int, values: dict[str, float]) -> None:
        rate, data_wait = self.clock.lap()
        if self._output:
            line = values | {"epoch": round(step * self._config.batch_size / self._epoch_size, 4)}
            self._output.monitor.metrics(step, line, steps_per_second=rate, data_wait=data_wait)

    def check_saves(self) -> None:
        """Raises TrainingError if a checkpoint could not be saved, without waiting for one in progress."""
        if self._output:
            self._output.checkpoints.check()

    def wait_for_saves(self) -> None:
        """Returns when all checkpoints are on disk; raises as `check_saves`."""
        if self._output:
            self._output.checkpoints.wait()

    def check_finite(self, snapshot: Snapshot) -> None:
        """Raises TrainingError if the state holds anything else: a loss stays finite a step longer than weights."""
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
