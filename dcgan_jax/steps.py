"""One update of both networks on one replica, and the rules of batch norm.

1. Real and generated images have batch statistics of their own in the discriminator, as separate batches have
   (section 3 of the paper). They pass through it behind one another in one batch, for its larger matrix products.
2. The discriminator's update leaves the generator's statistics alone, and the other way round.
3. Images are made with running statistics, so that each depends on its z alone.
4. The moving average averages parameters; its statistics are taken anew for them (`calibration.calibrate`).
5. Statistics are taken over the global batch, so that one device and eight train the same network.

These functions are pure. `axis_name` names the axis of the replicas; None is a single one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from dcgan_jax import latent, losses, models, state
from dcgan_jax.state import GANState, NetworkState, Tree

Batch = dict[str, Array]
Metrics = dict[str, Array]

SATURATED = 10.0  # logits beyond this on either side are where the loss is flat
SPREAD_IMAGES = 64


def scale(images: Array, dtype: DTypeLike = jnp.float32) -> Array:
    """uint8 images to [-1, 1]."""
    return images.astype(dtype) / 127.5 - 1


def flip(images: Array, key: Array, indices: Array) -> Array:
    """Images [B, H, W, C], each mirrored left and right with probability 1/2, by the key and its index in the batch."""
    mirrored = jax.vmap(lambda index: jax.random.bernoulli(jax.random.fold_in(key, index)))(indices)
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def _over_replicas(tree: Tree, axis_name: str | None) -> Tree:
    """The mean over the replicas, in one all-reduce: many small ones wait for the network many times."""
    if not axis_name or jax.lax.axis_size(axis_name) == 1:
        return tree
    flat, unravel = ravel_pytree(tree)
    return unravel(jax.lax.pmean(flat, axis_name))


def _update(
    network: NetworkState,
    optimizer: optax.GradientTransformation,
    gradients: Tree,
    batch_stats: Tree,
    metrics: Metrics,
    axis_name: str | None,
    name: str,
) -> tuple[NetworkState, Metrics]:
    """A network after one step of its optimiser, and the metrics, all from the mean over the replicas."""
    gradients, batch_stats, metrics = _over_replicas((gradients, batch_stats, metrics), axis_name)
    squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients)]
    metrics |= {f"{name}_grad_norm": jnp.sqrt(sum(squares))}
    updates, opt_state = optimizer.update(gradients, network.opt_state, network.params)
    return NetworkState(optax.apply_updates(network.params, updates), batch_stats, opt_state), metrics


def make_train_step(
    config: ConfigDict, axis_name: str | None = None
) -> Callable[[GANState, Batch], tuple[GANState, Metrics]]:
    """The train step of a validated configuration.

    It takes the state and this replica's share of the batch, {'images': uint8 [B, H, W, C], and with classes
    'labels': int [B]}, and returns the new state and scalars, averaged over the replicas: `d_loss` and `g_loss` (nats);
    `d_real` and `d_fake`, the discriminator's mean probability of 'real' for real and for generated images;
    `d_accuracy_real` and `d_accuracy_fake`, the share of each that it takes for what they are; `d_saturated`, the share
    of its logits beyond 10 on either side; `d_grad_norm` and `g_grad_norm`, the norms of the whole gradients.

    z is drawn once and the generator runs once; its images serve the discriminator's update and then, through the
    updated discriminator, its own. With `fresh_z` the generator's update has a z of its own, as in the released code,
    whose two networks learn from alternate batches.
    """
    generator, discriminator = models.from_config(config, axis_name)
    generator_optimizer, discriminator_optimizer = state.optimizers(config)
    dtype = jnp.promote_types(config.dtype, jnp.float32)

    def generate(network: NetworkState, z: Array, labels: Array | None):
        def forward(params: Tree):
            variables = {"params": params, "batch_stats": network.batch_stats}
            images, updated = generator.apply(variables, z, labels, train=True, mutable=["batch_stats"])
            return images, updated.get("batch_stats", {})

        return jax.vjp(forward, network.params, has_aux=True)

    def discriminate(network: NetworkState, params: Tree, images: Array, labels: Array | None, groups: int = 1):
        variables = {"params": params, "batch_stats": network.batch_stats}
        logits, updated = discriminator.apply(
            variables, images, labels, train=True, groups=groups, mutable=["batch_stats"]
        )
        return logits, updated.get("batch_stats", {})

    def update_discriminator(network: NetworkState, images_real: Array, images_fake: Array, labels: Array | None):
        images = jnp.concatenate([images_real, images_fake])
        labels = None if labels is None else jnp.concatenate([labels, labels])

        def loss(params: Tree):
            # The running statistics describe both kinds of image alike.
            logits, stats = discriminate(network, params, images, labels, groups=2)
            logits_real, logits_fake = jnp.split(logits, 2)
            return losses.discriminator_loss(logits_real, logits_fake), (logits_real, logits_fake, stats)

        (d_loss, (logits_real, logits_fake, stats)), gradients = jax.value_and_grad(loss, has_aux=True)(network.params)
        metrics = {
            "d_loss": d_loss,
            "d_real": jnp.mean(jax.nn.sigmoid(logits_real)),
            "d_fake": jnp.mean(jax.nn.sigmoid(logits_fake)),
            "d_accuracy_real": jnp.mean(logits_real > 0, dtype=dtype),
            "d_accuracy_fake": jnp.mean(logits_fake < 0, dtype=dtype),
            "d_saturated": jnp.mean(jnp.abs(jnp.concatenate([logits_real, logits_fake])) > SATURATED, dtype=dtype),
        }
        return _update(network, discriminator_optimizer, gradients, stats, metrics, axis_name, "d")

    def update_generator(
        network: NetworkState, opponent: NetworkState, images_fake: Array, pull_back, stats: Tree, labels: Array | None
    ):
        def loss(images: Array):
            return losses.generator_loss(discriminate(opponent, opponent.params, images, labels)[0])

        g_loss, cotangent = jax.value_and_grad(loss)(images_fake)
        (gradients,) = pull_back(cotangent)
        return _update(network, generator_optimizer, gradients, stats, {"g_loss": g_loss}, axis_name, "g")

    def train_step(current: GANState, batch: Batch) -> tuple[GANState, Metrics]:
        labels = batch.get("labels")
        batch_size = batch["images"].shape[0]
        first = jax.lax.axis_index(axis_name) * batch_size if axis_name else 0
        indices = first + jnp.arange(batch_size)

        def forward(stream: int):
            key = latent.key(config.seed, stream, current.step)
            return generate(current.generator, latent.draw(key, indices, config.latent_dim, config.prior), labels)

        images_fake, pull_back, generator_stats = forward(latent.TRAIN)
        images_real = scale(batch["images"], dtype)
        if config.data.flip:
            images_real = flip(images_real, latent.key(config.seed, latent.FLIP, current.step), indices)
        discriminator_state, metrics = update_discriminator(current.discriminator, images_real, images_fake, labels)
        if config.fresh_z:
            images_fake, pull_back, generator_stats = forward(latent.FRESH)
        generator_state, generator_metrics = update_generator(
            current.generator, discriminator_state, images_fake, pull_back, generator_stats, labels
        )
        ema_params = state.average(current.ema.params, generator_state.params, current.step, config.ema_decay)
        updated = GANState(
            step=current.step + 1,
            generator=generator_state,
            discriminator=discriminator_state,
            ema=current.ema.replace(params=ema_params),
        )
        return updated, metrics | generator_metrics

    return train_step


def from_device(
    train_step: Callable[[GANState, Batch], tuple[GANState, Metrics]],
) -> Callable[[GANState, Batch, Array], tuple[GANState, Metrics]]:
    """The train step over a data set in the device's memory: (state, all images and labels, indices int [B])."""

    def step(current: GANState, data_set: Batch, indices: Array) -> tuple[GANState, Metrics]:
        return train_step(current, {name: array[indices] for name, array in data_set.items()})

    return step


def several(step: Callable) -> Callable:
    """Steps in one call: the last argument, and what is measured, have a leading axis with an entry a step."""

    def call(current: GANState, *arguments: Tree) -> tuple[GANState, Metrics]:
        *constant, each = arguments
        return jax.lax.scan(lambda current, inputs: step(current, *constant, inputs), current, each)

    return call


def make_spread(config: ConfigDict) -> Callable[[NetworkState], Array]:
    """How much samples of a fixed z differ: the standard deviation of a pixel over 64 images, averaged over pixels.

    It takes the generator in training, and makes images by its running statistics, as sampling does.
    """
    generator, _ = models.from_config(config)
    indices = jnp.arange(SPREAD_IMAGES)
    labels = indices % config.num_classes if config.num_classes else None

    def spread(network: NetworkState) -> Array:
        z = latent.draw(latent.key(config.seed, latent.SAMPLE), indices, config.latent_dim, config.prior)
        variables = {"params": network.params, "batch_stats": network.batch_stats}
        images: Any = generator.apply(variables, z, labels)
        return jnp.mean(jnp.std(images, axis=0))

    return spread
