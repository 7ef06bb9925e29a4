"""Everything that resuming needs, as one tree: two networks with their optimisers, the moving average, the step."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array
from ml_collections import ConfigDict

from dcgan_jax import latent, models

Tree = Any


class NetworkState(struct.PyTreeNode):
    """One network in training."""

    params: Tree
    batch_stats: Tree
    opt_state: Tree


class Average(struct.PyTreeNode):
    """The moving average of the generator: parameters, and statistics that `calibration.calibrate` fits."""

    params: Tree
    batch_stats: Tree


class GANState(struct.PyTreeNode):
    """Both networks after `step` completed updates (int32 scalar)."""

    step: Array
    generator: NetworkState
    discriminator: NetworkState
    ema: Average


def optimizers(config: ConfigDict) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """Adam for the generator and for the discriminator, with L2 in the gradient and linear decay where configured."""

    def adam(learning_rate: float) -> optax.GradientTransformation:
        schedule: optax.ScalarOrSchedule = learning_rate
        if config.lr_decay_steps:
            begin = config.num_steps - config.lr_decay_steps
            schedule = optax.linear_schedule(learning_rate, 0.0, config.lr_decay_steps, transition_begin=begin)
        optimizer = optax.adam(schedule, b1=config.b1, b2=config.b2)
        return optax.chain(optax.add_decayed_weights(config.l2), optimizer) if config.l2 else optimizer

    return adam(config.generator_lr), adam(config.discriminator_lr)


def create(config: ConfigDict) -> GANState:
    """The state at step 0, a function of the configuration and its seed."""
    generator, discriminator = models.from_config(config)
    generator_optimizer, discriminator_optimizer = optimizers(config)
    labels = jnp.zeros(2, jnp.int32) if config.num_classes else None

    def start(network: Any, optimizer: optax.GradientTransformation, key: Array, x: Array) -> NetworkState:
        variables = network.init(key, x, labels, train=True)
        params = variables["params"]
        return NetworkState(params, variables.get("batch_stats", {}), optimizer.init(params))

    @jax.jit
    def build() -> GANState:
        generator_key, discriminator_key = jax.random.split(latent.key(config.seed, latent.INIT))
        z = jnp.zeros((2, config.latent_dim))
        images = jnp.zeros((2, *config.image_size, config.channels))
        generator_state = start(generator, generator_optimizer, generator_key, z)
        discriminator_state = start(discriminator, discriminator_optimizer, discriminator_key, images)
        ema = Average(generator_state.params, generator_state.batch_stats)
        return GANState(jnp.zeros((), jnp.int32), generator_state, discriminator_state, ema)

    return build()


def abstract(config: ConfigDict) -> GANState:
    """Shapes and dtypes of the state, without computing it."""
    return jax.eval_shape(lambda: create(config))


def average(ema: Tree, params: Tree, step: Array, decay: float) -> Tree:
    """One step of the moving average of the parameters.

    The decay grows with the steps as (1 + step) / (10 + step) until it reaches `decay`, so that a short run does not
    drag its random start along (the schedule of TensorFlow's ExponentialMovingAverage).
    """
    keep = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: (keep * old + (1 - keep) * new).astype(old.dtype), ema, params)
