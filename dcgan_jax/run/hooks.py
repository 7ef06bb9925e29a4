"""What the training loop calls every so many steps: sample, evaluate, save; each is given the same snapshot."""

import json
import logging
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import serialization
from ml_collections import ConfigDict

from dcgan_jax.evaluation import report
from dcgan_jax.evaluation.evaluate import Evaluator
from dcgan_jax.inference import TrainedGAN, recalibrate
from dcgan_jax.run import checkpoint
from dcgan_jax.run.checkpoint import Checkpoints
from dcgan_jax.run.monitor import Monitor
from dcgan_jax.run.prepare import Run
from dcgan_jax.runtime import files
from dcgan_jax.runtime.versions import versions
from dcgan_jax.state import GANState

log = logging.getLogger("dcgan_jax")

GRID = 64  # images in a grid of samples


class Snapshot:
    """A host copy of the state after a step, with the moving average recalibrated; made once, shared by all hooks.

    metrics: of this step. `evaluate_hook` adds to them, and `save_hook`, which must come later, puts them into the
    checkpoint.
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

    when_stopping: also if the run stops early. All processes have the same hooks, due at the same steps, since they
    agree on stopping by the results that they have read until then; only the one with an output writes.
    """

    act: Callable[[Snapshot], None]
    every: tuple[int, ...]
    when_stopping: bool = False

    def due(self, step: int, *, last: bool, stopping: bool) -> bool:
        """Whether it is to be done after this step."""
        return last or (stopping and self.when_stopping) or any(n and step % n == 0 for n in self.every)


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


def sample_hook(output: Output | None, seed: int, every: int) -> Hook:
    """Writes a grid of samples of a fixed z."""

    def act(snapshot: Snapshot) -> None:
        if output:
            images = snapshot.gan.sample(GRID, seed)
            output.monitor.write_images(f"step_{snapshot.step:08d}", images, snapshot.step)

    return Hook(act, (every,))


def show_reals(monitor: Monitor, images: np.ndarray, seed: int) -> None:
    """Writes a grid of real images, uint8 [N, H, W, C]."""
    # From all over the set: the first ones may all be of one class.
    chosen = np.random.default_rng(seed).permutation(len(images))[:GRID]
    monitor.write_images("reals", images[np.sort(chosen)], 0)


def evaluate_hook(evaluator: Evaluator, workdir: Path, output: Output | None, seed: int, every: int) -> Hook:
    """Measures samples, as launch/evaluate.py does; all processes take part."""

    def act(snapshot: Snapshot) -> None:
        lines = evaluator(lambda indices: snapshot.gan.sample_at(indices, seed), step=snapshot.step)
        values = {line["metric"]: line["value"] for line in lines}
        snapshot.metrics |= values
        if output:
            files.append_lines(workdir / report.NAME, lines)
            output.monitor.write_evaluation(snapshot.step, values)
            report.curves(report.read(workdir / report.NAME), workdir / "evaluation")

    return Hook(act, (every,))


def save_hook(output: Output | None, meta: dict[str, Any], every: tuple[int, ...]) -> Hook:
    """Saves a checkpoint, in the background."""

    def act(snapshot: Snapshot) -> None:
        if output:
            output.monitor.sync()
            output.checkpoints.save(snapshot.step, snapshot.state, meta, snapshot.metrics)

    return Hook(act, every, when_stopping=True)


def make_hooks(run: Run, output: Output | None, rollbacks: int) -> list[Hook]:
    """The hooks of a run. Evaluating comes before saving, so that its values get into the checkpoint."""
    config = run.config
    chosen = [sample_hook(output, config.seed, config.sample_every)]
    if run.evaluator:
        chosen.append(evaluate_hook(run.evaluator, run.workdir, output, config.seed, config.eval_every))
    meta = {
        "config": json.loads(config.to_json()),
        "versions": versions(),
        "data": run.image_set.card,
        "rollbacks": rollbacks,
    }
    chosen.append(save_hook(output, meta, (config.checkpoint_every, config.eval_every)))
    return chosen
