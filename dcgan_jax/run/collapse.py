"""Collapse: how it is measured, the rule that recognises it, and going back to before it.

Samples of a fixed set of z are compared in each line of the log: `spread` is the standard deviation of a pixel over
them, averaged over pixels and divided by that of real images. They have come to differ once it was at least 0.5 over
100 steps. If they have not in a fifth of the run, and 1,000 steps, training does not get going. Afterwards a run has
collapsed, or become worse, if one and the same of these holds in all lines for at least 100 steps and five lines:

- alike: the samples are nearly one image again, with a spread below 0.1.
- lost: the discriminator has won, and no longer teaches anything. It is right on 99.5% of real and of generated images,
  and at least half of its logits are saturated (beyond 10 on either side, where the loss is flat). A generator can
  learn for long from one that is always right, so this counts only if nothing measures quality, and only with a loss
  that is flat there.

or if this holds at three checkpoints in a row (fewer if these would take more than a fifth of the run; or the last):

- worse: `quality`, or the FID that is asked for, is at least 2 times its best so far.

`config.on_collapse` says what happens then: 'warn' goes on, 'stop' ends the run, 'rollback' goes back to the best
checkpoint from before and tries again, at most three times.
"""

import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from dcgan_jax import state as states
from dcgan_jax.config import best_by
from dcgan_jax.inference import first_samples
from dcgan_jax.run import checkpoint
from dcgan_jax.run.aside import set_aside
from dcgan_jax.run.monitor import has_line
from dcgan_jax.runtime import files
from dcgan_jax.runtime.errors import TrainingError, UserError
from dcgan_jax.state import GANState, NetworkState

log = logging.getLogger("dcgan_jax")

STEPS, LINES = 100, 5
DIFFERENT_SPREAD, ALIKE_SPREAD = 0.5, 0.1
WORSE_FACTOR, WORSE_MEASURES = 2.0, 3
RIGHT_SHARE, SATURATED_SHARE = 0.995, 0.5
SATURATING = ("non_saturating", "relativistic")  # losses of the discriminator that are flat for large logits
SHARE_OF_RUN, BEGINNING = 0.2, 1000  # within which something is told
MAX_ROLLBACKS = 3
SPREAD_IMAGES = 64
REAL_IMAGES = 1024


class Collapsed(Exception):
    """Training has collapsed, or become much worse. step: of the line that shows it; since: of the first such line."""

    def __init__(self, step: int, since: int, what: str):
        super().__init__(f"step {step}: {what}")
        self.step, self.since = step, since


def spread(config: ConfigDict, network: NetworkState) -> Array:
    """How much samples of a fixed z differ: the standard deviation of a pixel over 64 images, averaged over pixels.

    network: the generator in training; its images are made by running statistics, by the program of sampling.
    """
    return _mean_deviation(first_samples(config, network.variables(), SPREAD_IMAGES))


@jax.jit
def _mean_deviation(images: Array) -> Array:
    return jnp.mean(jnp.std(images, axis=0))


def spread_of_images(images: np.ndarray) -> float:
    """The same of real images, uint8 [N, H, W, C]."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:REAL_IMAGES])
    # Not zero for a set of one image, as in a trial: then nothing counts as alike.
    return max(float(np.std(images[chosen] / 127.5, axis=0).mean()), 1e-6)


class Watch:
    """Sees each line of the log and says whether the run has collapsed.

    known: what it knows from earlier lines, such as `history` gives; JSON.
    """

    def __init__(self, config: ConfigDict, known: dict[str, Any] | None = None):
        """config: validated."""
        self.known = known or {"differed": False, "best": None, "held": {}}
        metric, _ = best_by(config)
        fid = metric.startswith("fid")
        self._measure = metric if fid else "quality" if config.quality else ""
        self._can_be_lost = not self._measure and config.loss in SATURATING
        self._num_steps = config.num_steps
        measures = SHARE_OF_RUN * config.num_steps / (config.eval_every if fid else config.checkpoint_every)
        self._patience = min(WORSE_MEASURES, max(1, int(measures)))

    def __call__(self, step: int, values: Mapping[str, float]) -> Collapsed | None:
        """What to raise, or None. values: a line of metrics.jsonl."""
        spread = values["spread"]
        self._note("different", step, spread >= DIFFERENT_SPREAD)
        self._note("similar", step, spread < DIFFERENT_SPREAD)
        self.known["differed"] |= self._for_a_while("different", step, lines=2)
        if not self.known["differed"]:
            late = step >= max(BEGINNING, SHARE_OF_RUN * self._num_steps) and self._for_a_while("similar", step)
            what = f"training does not get going: samples differ little (spread {spread:.3f} of real images')"
            return Collapsed(step, 0, what) if late else None
        self._note("alike", step, spread < ALIKE_SPREAD)
        right, saturated = min(values["d_accuracy_real"], values["d_accuracy_fake"]), values["d_saturated"]
        lost = right >= RIGHT_SHARE and saturated >= SATURATED_SHARE
        self._note("lost", step, lost and self._can_be_lost)
        if self._measure in values:
            best = min(self.known["best"] or [math.inf], [values[self._measure], step])
            self.known["best"] = best
            self._note("worse", step, best[0] < values[self._measure] >= WORSE_FACTOR * best[0])
        reasons = {
            "alike": f"samples are nearly alike (spread {spread:.3f} of real images')",
            "lost": f"the discriminator tells all images apart ({saturated:.0%} of its logits saturated)",
        }
        for name, reason in reasons.items():
            if self._for_a_while(name, step):
                return Collapsed(step, self.known["held"][name][0], f"training has collapsed: {reason}")
        since, count = self.known["held"].get("worse", (0, 0))
        if count >= (1 if step == self._num_steps else self._patience):
            value, at = self.known["best"]
            times = f"at least {WORSE_FACTOR:g} times its best, {value:.4g} at step {at}, since step {since}"
            return Collapsed(step, since, f"training has become worse: {self._measure} is {times}")
        return None

    def _note(self, name: str, step: int, holds: bool) -> None:
        """Remembers of the latest lines in a row in which this holds the first step, and the number."""
        first, count = self.known["held"].get(name, (step, 0))
        if holds:
            self.known["held"][name] = [first, count + 1]
        else:
            self.known["held"].pop(name, None)

    def _for_a_while(self, name: str, step: int, lines: int = LINES) -> bool:
        first, count = self.known["held"].get(name, (step, 0))
        return count >= lines and step - first >= STEPS


def history(config: ConfigDict, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What a `Watch` knows after these lines of metrics.jsonl.

    That of the last step of a run that was shorter then does not count: a straight run does not have it.
    """
    watch = Watch(config)
    for line in lines:
        complete = {"spread", "d_saturated", "d_accuracy_real", "d_accuracy_fake"} <= line.keys()  # not in all versions
        if complete and has_line(config, line["step"]):
            watch(line["step"], line)
    return watch.known


def retried(config: ConfigDict, rollbacks: int) -> ConfigDict:
    """What a run trains by after so many rollbacks: other noise, another order of images, lower learning rates.

    With the same ones it would collapse again, as it is a function of its seed.
    """
    config = config.copy_and_resolve_references()
    config.seed = (config.seed + 7919 * rollbacks) % 2**31
    config.generator_lr /= 2**rollbacks
    config.discriminator_lr /= 2**rollbacks
    return config


def go_back(config: ConfigDict, workdir: Path, collapsed: Collapsed, rollbacks: int) -> GANState:
    """The state of the best checkpoint from before a collapse; all that came after it is moved to `collapsed/STEP`.

    rollbacks: before this one. Raises TrainingError if there is no such checkpoint, the run wants no rollback, or there
    were enough of them.
    """
    before = [step for step in checkpoint.steps(workdir) if step < collapsed.since]
    best = None
    if before:
        best = before[-1]
        with suppress(UserError):  # no checkpoint has the metric
            best = checkpoint.best(workdir, config, before)
    if config.on_collapse == "stop" or best is None or rollbacks >= MAX_ROLLBACKS:
        raise TrainingError(_given_up(config, collapsed, best, rollbacks))
    state = checkpoint.restore(workdir, states.abstract(config), best)[0]
    folder = files.free_path(workdir / "collapsed" / str(collapsed.step))
    set_aside(workdir, newer_than=best, folder=folder)
    now, then = retried(config, rollbacks), retried(config, rollbacks + 1)
    rates = [f"{name} {then[name]:g} instead of {now[name]:g}" for name in ("generator_lr", "discriminator_lr")]
    log.warning(
        "%s. Going back to step %d (rollback %d of at most %d) with %s, other noise and another order of images. What "
        "the run wrote after that step is now in %s",
        *(collapsed, best, rollbacks + 1, MAX_ROLLBACKS, " and ".join(rates), folder),
    )
    return state


def _given_up(config: ConfigDict, collapsed: Collapsed, best: int | None, rollbacks: int) -> str:
    tried = f" after {rollbacks} rollbacks" if rollbacks else ""
    there = f"the checkpoint of step {best} is" if best else "there is no checkpoint"
    kept = f"{there} from before" + (f" (--step={best})" if best else "")
    blind = not config.first_bias and config.discriminator_norm in ("batch", "layer", "group")
    advised = [
        *(["--config.first_bias=True"] if blind else []),
        f"a higher --config.instance_noise than {config.instance_noise:g}",
        f"a lower --config.discriminator_lr than {config.discriminator_lr:g}",
    ]
    advice = f"Train in another --workdir with {', or '.join(advised)} (docs/stability.md)"
    if config.on_collapse == "stop":
        advice += ", or go on by the same command with --config.on_collapse=rollback, or =warn"
    return f"{collapsed}{tried}; {kept}. {advice}"
