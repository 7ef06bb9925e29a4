"""Adam for each network, schedules, and the moving average of the generator."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import ConfigDict

from dcgan_jax.fields import GRADIENT_PENALTIES

Tree = Any


class Optimizers(NamedTuple):
    """The optimizer of each network."""

    generator: optax.GradientTransformation
    discriminator: optax.GradientTransformation


def from_config(config: ConfigDict) -> Optimizers:
    """Adam with the configured betas (section 3 of the paper: b1 0.5), L2 added to gradients, and schedules."""
    # Lazy penalties have updates of their own, so that one more is made every `penalty_every` steps; a step then moves
    # as far and forgets as much as without them (Karras et al. 2020, appendix B).
    every, lazy = config.penalty_every, any(config[name] > 0 for name in GRADIENT_PENALTIES)
    share = every / (every + 1) if lazy and every > 1 else 1.0
    return Optimizers(
        adam(config, config.generator_lr, 1.0),
        adam(config, config.discriminator_lr, config.discriminator_steps / share, share),
    )


def adam(
    config: ConfigDict, learning_rate: float | Array, updates_per_step: float, share: float = 1.0
) -> optax.GradientTransformation:
    """Adam by a validated configuration, apart from its learning rate.

    share: of a step that an update stands for: a factor of the learning rate, and a power of the betas.
    """

    def over_updates(schedule: optax.Schedule, start: float, end: float) -> optax.ScalarOrSchedule:
        """Betas by the number of the update; a constant if they do not change."""
        if start == end or not config.burn_in_steps:
            return start**share
        return lambda update: (start + schedule(update / updates_per_step) * (end - start)) ** share

    rates = learning_rate_schedule(config)
    burn_in = burn_in_schedule(config)
    b1, b2 = (
        over_updates(burn_in, start, start if end < 0 else end)
        for start, end in ((config.b1, config.b1_end), (config.b2, config.b2_end))
    )
    scheduled: optax.ScalarOrSchedule = share * learning_rate
    if _decay_steps(config) or config.lr_warmup_steps:
        scheduled = lambda update: share * learning_rate * rates(update / updates_per_step)  # noqa: E731
    if callable(b1) or callable(b2):
        optimizer = optax.inject_hyperparams(optax.adam, hyperparam_dtype=jnp.float32)(scheduled, b1=b1, b2=b2)
    else:
        optimizer = optax.adam(scheduled, b1=b1, b2=b2)
    return optax.chain(optax.add_decayed_weights(config.l2), optimizer) if config.l2 else optimizer


def learning_rate_schedule(config: ConfigDict) -> optax.Schedule:
    """Learning rates as shares of the configured ones: a linear rise from 0, 1, and a fall in the last steps."""
    decay_steps = _decay_steps(config)
    begin = config.num_steps - decay_steps

    def schedule(step: Array) -> Array:
        risen = jnp.minimum((step + 1) / max(config.lr_warmup_steps, 1), 1.0)
        if not decay_steps:
            return risen
        fallen = jnp.clip((step - begin) / decay_steps, 0.0, 1.0)
        if config.lr_decay_shape == "cosine":
            fallen = (1 - jnp.cos(jnp.pi * fallen)) / 2
        return risen * (1 - fallen * (1 - config.lr_end))

    return schedule


def _decay_steps(config: ConfigDict) -> int:
    """Over how many last steps learning rates fall."""
    return config.lr_decay_steps or round(config.lr_decay_share * config.num_steps)


def burn_in_schedule(config: ConfigDict) -> optax.Schedule:
    """0 at the start, 1 from step `burn_in_steps` on, a cosine between (as in R3GAN, Huang et al. 2024); else 0."""

    def schedule(step: Array) -> Array:
        if not config.burn_in_steps:
            return jnp.zeros(())
        return (1 - jnp.cos(jnp.pi * jnp.minimum(step / config.burn_in_steps, 1.0))) / 2

    return schedule


def average_decay(config: ConfigDict) -> optax.Schedule:
    """The share of the old value in a step of the moving average, by the number of completed steps.

    `ema_half_life`, in images: half of the weight lies on the steps with the last so many images, or with the last
    `ema_rampup` of all images so far if these are fewer (Karras et al. 2020). Otherwise `ema_decay`, or
    (1 + step) / (10 + step) as long as this is less (TensorFlow's ExponentialMovingAverage). With both, a short run
    forgets its random initial weights.
    """

    def by_half_life(step: Array) -> Array:
        seen = config.batch_size * (step + 1).astype(jnp.float32)
        half_life = jnp.minimum(config.ema_half_life, config.ema_rampup * seen)
        return 0.5 ** (config.batch_size / half_life)

    def by_decay(step: Array) -> Array:
        return jnp.minimum(config.ema_decay, (1 + step) / (10 + step))

    return by_half_life if config.ema_half_life else by_decay


def moving_average(average: Tree, params: Tree, keep: Array) -> Tree:
    """One step of the moving average of parameters. keep: the share of the old value."""

    def move(old: Array, new: Array) -> Array:
        return keep.astype(old.dtype) * old + (1 - keep).astype(old.dtype) * new

    return jax.tree.map(move, average, params)
