"""Everything that resuming needs, as one tree: two networks with their optimizers, the moving average, the step."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import serialization, struct
from jax import Array
from ml_collections import ConfigDict

from dcgan_jax import latent, models, optimizers
from dcgan_jax.ops.conv import shapes_alone
from dcgan_jax.runtime.compile_cache import QUICKLY

Tree = Any


class NetworkState(struct.PyTreeNode):
    """One network in training.

    stats: the collections beside 'params', by name: 'batch_stats' and others; so they stand in a checkpoint too.
    """

    params: Tree
    stats: dict[str, Tree]
    opt_state: Tree

    def variables(self, params: Tree = None) -> dict[str, Tree]:
        """What the network is applied to; with other parameters, if they are given."""
        return {"params": self.params if params is None else params, **self.stats}


class Average(struct.PyTreeNode):
    """The moving average of the generator: parameters, and statistics recomputed for them (`inference.recalibrate`)."""

    params: Tree
    stats: dict[str, Tree]

    def variables(self) -> dict[str, Tree]:
        """What the generator is applied to."""
        return {"params": self.params, **self.stats}


class GANState(struct.PyTreeNode):
    """Both networks after `step` completed updates (int32 scalar)."""

    step: Array
    generator: NetworkState
    discriminator: NetworkState
    ema: Average


def create(config: ConfigDict) -> GANState:
    """The state at step 0, a function of the configuration and its seed."""
    return jax.jit(lambda: _from_config(config)).lower().compile(QUICKLY)()


def abstract(config: ConfigDict) -> GANState:
    """Shapes and dtypes of the state, without computing it."""
    return jax.eval_shape(lambda: _from_config(config))


def _from_config(config: ConfigDict) -> GANState:
    return start(*models.from_config(config), optimizers.from_config(config), config.latent_dim, config.seed)


def start(
    generator: models.Generator,
    discriminator: models.Discriminator,
    optimizer: optimizers.Optimizers,
    latent_dim: int,
    seed: int | Array,
) -> GANState:
    """The state at step 0 of these networks and optimizers; for use inside of JAX's transformations."""

    def state_of(network: nn.Module, optimizer: optax.GradientTransformation, key: Array, x: Array) -> NetworkState:
        with shapes_alone():  # a convolution takes long to trace
            variables = dict(network.init(key, x, labels, train=True))
        params = variables.pop("params")
        stats = {"batch_stats": {}} | {name: variables[name] for name in variables if name != "intermediates"}
        return NetworkState(params, stats, optimizer.init(params))

    labels = jnp.zeros(2, jnp.int32) if generator.num_classes else None
    generator_key, discriminator_key = jax.random.split(latent.key(seed, latent.INIT))
    z, images = jnp.zeros((2, latent_dim)), jnp.zeros((2, *generator.image_shape))
    generator_state = state_of(generator, optimizer.generator, generator_key, z)
    discriminator_state = state_of(discriminator, optimizer.discriminator, discriminator_key, images)
    average = Average(generator_state.params, generator_state.stats)
    return GANState(jnp.zeros((), jnp.int32), generator_state, discriminator_state, average)


def _to_dict(state: NetworkState | Average) -> dict[str, Any]:
    """The collections stand beside the parameters, as checkpoints have it since version 0.1.0."""
    tree = {"params": state.params, **state.stats}
    if isinstance(state, NetworkState):
        tree["opt_state"] = state.opt_state
    return {name: serialization.to_state_dict(part) for name, part in tree.items()}


def _from_dict(target: NetworkState | Average, tree: dict[str, Any]) -> NetworkState | Average:
    def restored(name: str, part: Tree) -> Tree:
        return serialization.from_state_dict(part, tree[name], name=name)

    stats = {name: restored(name, part) for name, part in target.stats.items()}
    updated = target.replace(params=restored("params", target.params), stats=stats)
    if isinstance(target, NetworkState):
        updated = updated.replace(opt_state=restored("opt_state", target.opt_state))
    return updated


for _kind in (NetworkState, Average):
    serialization.register_serialization_state(_kind, _to_dict, _from_dict, override=True)
