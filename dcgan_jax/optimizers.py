"""Adam for each network, the schedule of its learning rate, and the moving average of the generator."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import ConfigDict

Tree = Any


class Optimizers(NamedTuple):
    """The optimizer of each network."""

    generator: optax.GradientTransformation
    discriminator: optax.GradientTransformation


def from_config(config: ConfigDict) -> Optimizers:
    """Adam with the configured betas (section 3 of the paper: b1 0.5), L2 added to gradients, and linear decay."""
    return Optimizers(_adam(config, config.generator_lr), _adam(config, config.discriminator_lr))


def _adam(config: ConfigDict, learning_rate: float) -> optax.GradientTransformation:
    schedule: optax.ScalarOrSchedule = learning_rate
    if config.lr_decay_steps:
        begin = config.num_steps - config.lr_decay_steps
        schedule = optax.linear_schedule(learning_rate, 0.0, config.lr_decay_steps, transition_begin=begin)
    optimizer = optax.adam(schedule, b1=config.b1, b2=config.b2)
    return optax.chain(optax.add_decayed_weights(config.l2), optimizer) if config.l2 else optimizer


def moving_average(average: Tree, params: Tree, step: Array, decay: float) -> Tree:
    """One step of the moving average of parameters.

    The decay grows with the steps as (1 + step) / (10 + step) until it reaches `decay`, so that a short run does not
    keep its random initial weights for long (the schedule of TensorFlow's ExponentialMovingAverage).
    """
    keep = jnp.minimum(decay, (1 + step) / (10 + step))

    def move(old: Array, new: Array) -> Array:
        return keep.astype(old.dtype) * old + (1 - keep).astype(old.dtype) * new

    return jax.tree.map(move, average, params)
