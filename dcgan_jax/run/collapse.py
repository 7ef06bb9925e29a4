"""Collapse: how it is measured, the rule that recognises it, and going back to before it.

A run counts as collapsed if one and the same of these has held in every line of its log for at least 100 steps and five
lines:

- alike: the samples of a fixed set of z are nearly one image, after they were not. `spread`, the standard deviation of
  a pixel over them, averaged over pixels and divided by that of real images, is below 0.1, and has been above once.
- lost: the discriminator has won, and no longer teaches anything. It is right on 99.5% of real and of generated images,
  and at least half of its logits are saturated (beyond 10 on either side, where the loss is flat).

`config.on_collapse` says what happens then: 'warn' goes on, 'stop' ends the run, 'rollback' goes back to the best
checkpoint from before (by `config.best_metric`, or the newest of them) and tries again, at most three times.
"""

import logging
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from dcgan_jax import latent
from dcgan_jax import state as states
from dcgan_jax.run import checkpoint
from dcgan_jax.runtime import files
from dcgan_jax.runtime.errors import TrainingError, UserError
from dcgan_jax.state import GANState, NetworkState
from dcgan_jax.steps import Method

log = logging.getLogger("dcgan_jax")

STEPS, LINES = 100, 5  # how long one of the two must hold
ALIKE_SPREAD = 0.1
RIGHT_SHARE, SATURATED_SHARE = 0.995, 0.5
MAX_ROLLBACKS = 3
SPREAD_IMAGES = 64
REAL_IMAGES = 1024


class Collapsed(Exception):
    """Training has collapsed. step: of the line that shows it; since: of the first such line; reason: in few words."""

    def __init__(self, step: int, since: int, reason: str):
        super().__init__(f"step {step}: training has collapsed: {reason}")
        self.step, self.since = step, since


def spread(method: Method, network: NetworkState) -> Array:
    """How much samples of a fixed z differ: the standard deviation of a pixel over 64 images, averaged over pixels.

    network: the generator in training; its images are made by running statistics, as in sampling.
    """
    indices = jnp.arange(SPREAD_IMAGES)
    classes = method.generator.num_classes
    z = latent.draw(latent.key(method.seed, latent.SAMPLE), indices, method.latent_dim, method.prior)
    images = method.generator.apply(network.variables(), z, indices % classes if classes else None)
    return jnp.mean(jnp.std(images, axis=0))  # type: ignore[arg-type]


def spread_of_images(images: np.ndarray) -> float:
    """The same of real images, uint8 [N, H, W, C]."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:REAL_IMAGES])
    # Not zero for a set of one image, as in a trial: then nothing counts as alike.
    return max(float(np.std(images[chosen] / 127.5, axis=0).mean()), 1e-6)


class Watch:
    """Sees each line of the log and says whether the run has collapsed.

    differed: whether samples have ever differed; at the start they do not. held: for each of the two rules, the steps
    of the latest lines in a row in which it holds. Both come from `history` if a run is resumed.
    """

    def __init__(self, differed: bool = False, held: dict[str, list[int]] | None = None):
        self._differed, self._held = differed, held or {"alike": [], "lost": []}

    def __call__(self, step: int, values: dict[str, float]) -> Collapsed | None:
        """What to raise, or None. values: a line of metrics.jsonl."""
        alike = values["spread"] < ALIKE_SPREAD
        self._differed |= not alike
        right = min(values["d_accuracy_real"], values["d_accuracy_fake"])
        now = {
            "alike": alike and self._differed,
            "lost": right >= RIGHT_SHARE and values["d_saturated"] >= SATURATED_SHARE,
        }
        reasons = {
            "alike": f"samples are nearly alike (spread {values['spread']:.3f} of real images')",
            "lost": f"the discriminator tells all images apart ({values['d_saturated']:.0%} of its logits saturated)",
        }
        for name, holds in now.items():
            self._held[name] = [*self._held[name], step] if holds else []
        for name, steps in self._held.items():
            if len(steps) >= LINES and step - steps[0] >= STEPS:
                return Collapsed(step, steps[0], reasons[name])
        return None


def history(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What a `Watch` knows after these lines of metrics.jsonl, as its arguments."""
    watch = Watch()
    for line in lines:
        if {"spread", "d_saturated", "d_accuracy_real", "d_accuracy_fake"} <= line.keys():  # older versions have less
            watch(line["step"], line)
    return {"differed": watch._differed, "held": watch._held}


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
    """The state of the best checkpoint from before a collapse; what came after it is moved to `collapsed/STEP`.

    rollbacks: before this one. Raises TrainingError if there is no such checkpoint, the run wants no rollback, or there
    were enough of them.
    """
    before = [step for step in checkpoint.steps(workdir) if step < collapsed.since]
    best = None
    if before:
        best = before[-1]
        with suppress(UserError):  # no checkpoint has the metric yet
            best = checkpoint.best(workdir, config.best_metric, config.best_is, before)
    if config.on_collapse == "stop" or best is None or rollbacks >= MAX_ROLLBACKS:
        kept = f"the checkpoint of step {best} is from before" if best else "there is no checkpoint from before"
        tried = f" after {rollbacks} rollbacks" if rollbacks else ""
        advice = (
            ", or go on by the same command with --config.on_collapse=rollback" if config.on_collapse == "stop" else ""
        )
        raise TrainingError(f"{collapsed}{tried}; {kept}. Try lower learning rates in another --workdir{advice}")
    aside = workdir / "collapsed" / str(collapsed.step)
    aside.mkdir(parents=True, exist_ok=True)
    shutil.copy2(workdir / "metrics.jsonl", files.free_path(aside / "metrics.jsonl"))
    checkpoint.set_aside(workdir, newer_than=best, folder=aside)
    log.warning("%s; going back to step %d, with half the learning rates and other noise", collapsed, best)
    return checkpoint.restore(workdir, states.abstract(config), best)[0]
