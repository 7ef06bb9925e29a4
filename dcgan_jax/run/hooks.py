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

from dcgan_jax.config import best_by
from dcgan_jax.evaluation import report
from dcgan_jax.evaluation.evaluate import Evaluator
from dcgan_jax.evaluation.features import NotFinite
from dcgan_jax.evaluation.quality import Quality
from dcgan_jax.inference import TrainedGAN, recalibrate
from dcgan_jax.run import checkpoint
from dcgan_jax.run.aside import set_damaged_aside
from dcgan_jax.run.best import best_step
from dcgan_jax.run.checkpoint import Checkpoints
from dcgan_jax.run.monitor import Monitor
from dcgan_jax.run.prepare import Run
from dcgan_jax.runtime import files
from dcgan_jax.runtime.versions import versions
from dcgan_jax.state import GANState

log = logging.getLogger("dcgan_jax")

GRID = 64  # images in a grid of samples


class Snapshot:
    """The state after a step, with the moving average recalibrated; made once, shared by all hooks.

    state: arrays of numpy. metrics: of this step. Hooks that measure add to them; then they are written, and put into
    the checkpoint.
    """

    def __init__(self, config: ConfigDict, state: GANState, metrics: dict[str, float]):
        """state: of one replica, in the memory of a device (`devices.copy_of_replica`)."""
        self._config, self.metrics = config, metrics
        self._average = recalibrate(config, state.ema)
        self.state: GANState = jax.device_get(state.replace(ema=self._average))
        self.step = int(self.state.step)

    @cached_property
    def gan(self) -> TrainedGAN:
        """What `dcgan_jax.load` would give for a checkpoint of this step."""
        return TrainedGAN(self._config, serialization.to_state_dict(self.state.replace(ema=self._average)))


class Hook(NamedTuple):
    """Something to do every `every` steps (several numbers: at multiples of any; 0 is never) and after the last one.

    when_stopping: also if the run stops early. measures: it adds to the metrics of the step, and so comes before they
    are written. All processes have the same hooks, due at the same steps, since they agree on stopping by the results
    that they have read until then; only the one with an output writes.
    """

    act: Callable[[Snapshot], None]
    every: tuple[int, ...]
    when_stopping: bool = False
    measures: bool = False

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
        set_damaged_aside(run.workdir, newer_than=start)
        metric, best_is = best_by(config)
        checkpoints = Checkpoints(
            run.workdir, keep=config.keep, keep_best=config.keep_best, best_metric=metric, best_is=best_is
        )
        opened.enter_context(closing(checkpoints))
        return cls(opened.enter_context(closing(Monitor(run.workdir, config, start_step=start))), checkpoints)

    def best_so_far(self, config: ConfigDict) -> str:
        """Which checkpoint is the best, and by how much the last measured one is worse: '; best by ...', or ''."""
        metric, best_is = best_by(config)
        values = self.checkpoints.measured()
        if not values:
            return ""
        best = best_step(values, best_is)
        last = max(values)
        if best == last:
            return f"; best by {metric} is the last one measured, step {best} ({values[best]:.4g})"
        difference, scale = abs(values[last] - values[best]), abs(values[best])
        share = f"{difference / scale:.0%}" if difference >= scale / 200 > 0 else "less than 1%"
        worse = f"is {share} worse ({values[last]:.4g})" if scale else f"has {values[last]:.4g}"
        kept = best in checkpoint.steps(self.checkpoints.directory.parent)
        use = "which --step=best takes" if kept else "which config.keep_best=0 did not keep"
        return f"; best by {metric} is step {best} ({values[best]:.4g}), {use}: step {last} {worse}"


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


def quality_hook(quality: Quality, seed: int, every: tuple[int, ...]) -> Hook:
    """Measures samples, the same way at each checkpoint; all processes take part.

    Not when a run stops early: a machine that is taken away may give it no time for that.
    """

    def act(snapshot: Snapshot) -> None:
        snapshot.metrics["quality"] = quality(lambda indices: snapshot.gan.sample_at(indices, seed))

    return Hook(act, every, measures=True)


def evaluate_hook(evaluator: Evaluator, workdir: Path, output: Output | None, seed: int, every: int) -> Hook:
    """Measures samples, as launch/evaluate.py does; all processes take part."""

    def act(snapshot: Snapshot) -> None:
        try:
            lines = evaluator(lambda indices: snapshot.gan.sample_at(indices, seed), step=snapshot.step)
        except NotFinite as error:  # training is worth more than one measure of it
            if output:
                log.warning("step %d is not measured: %s", snapshot.step, error)
            return
        values = {line["metric"]: line["value"] for line in lines}
        snapshot.metrics |= values
        if output:
            files.append_lines(workdir / report.NAME, lines)
            log.info("step %d: %s", snapshot.step, "  ".join(f"{name} {value:.5g}" for name, value in values.items()))
            report.curves(report.read(workdir / report.NAME), workdir / "evaluation")

    return Hook(act, (every,), measures=True)


def save_hook(output: Output | None, meta: dict[str, Any], every: tuple[int, ...]) -> Hook:
    """Saves a checkpoint, in the background."""

    def act(snapshot: Snapshot) -> None:
        if output:
            output.monitor.sync()
            output.checkpoints.save(snapshot.step, snapshot.state, meta, snapshot.metrics)

    return Hook(act, every, when_stopping=True)


def make_hooks(run: Run, output: Output | None, rollbacks: int) -> list[Hook]:
    """The hooks of a run."""
    config = run.config
    with_checkpoint = (config.checkpoint_every, config.eval_every)
    chosen = [sample_hook(output, config.seed, config.sample_every)]
    if run.quality:
        chosen.append(quality_hook(run.quality, config.seed, with_checkpoint))
    if run.evaluator:
        chosen.append(evaluate_hook(run.evaluator, run.workdir, output, config.seed, config.eval_every))
    meta = {
        "config": json.loads(config.to_json()),
        "versions": versions(),
        "data": run.image_set.card,
        "rollbacks": rollbacks,
    }
    chosen.append(save_hook(output, meta, with_checkpoint))
    return chosen
