"""One update of both networks on one replica: pure functions of a `Method`, the state and a batch.

z is drawn once and the generator runs once; its images serve the discriminator's update and then, through the updated
discriminator, the generator's own. (`fresh_z` and `discriminator_steps` draw more.) `ops/batch_norm.py` has the rules
of batch norm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree
from ml_collections import ConfigDict

from dcgan_jax import augment, latent, losses, models, optimizers
from dcgan_jax.augment import Augment
from dcgan_jax.losses import LOSSES, Loss, Penalty, penalty_sum
from dcgan_jax.ops.dtypes import at_least_float32
from dcgan_jax.ops.pixels import to_unit_range
from dcgan_jax.optimizers import Optimizers, moving_average
from dcgan_jax.state import Average, GANState, NetworkState, Tree

Batch = dict[str, Array]
Metrics = dict[str, Array]

SATURATED_LOGIT = 10.0  # beyond this on either side the loss is flat


@dataclass(frozen=True)
class Method:
    """How two networks are trained: all that methods differ in, as values.

    penalties: at each update of the discriminator. lazy_penalties: at each step whose number is a multiple of
        `lazy_interval`, in an update of their own, each that many times as strong (Karras et al. 2020, appendix B).
    flip: of real images alone. augment: of all images that the discriminator sees, in both updates.
    average_decay: the share of the old value in a step of the generator's moving average.
    discriminator_steps: updates of the discriminator before each of the generator, each with real images of its own.
    fresh_z: the generator's update has a z of its own, as in the released code, whose two networks learn from
        alternate batches.
    axis_name: the axis of the replicas; None is a single one.
    """

    generator: models.Generator
    discriminator: models.Discriminator
    optimizers: Optimizers
    latent_dim: int
    prior: str
    seed: int = 0
    average_decay: optax.Schedule = lambda step: jnp.zeros(())
    loss: Loss = LOSSES["non_saturating"]
    penalties: tuple[Penalty, ...] = ()
    lazy_penalties: tuple[Penalty, ...] = ()
    lazy_interval: int = 1
    flip: Augment = augment.none
    augment: Augment = augment.none
    discriminator_steps: int = 1
    fresh_z: bool = False
    axis_name: str | None = None


def from_config(config: ConfigDict, axis_name: str | None = None) -> Method:
    """The method of a validated configuration."""
    generator, discriminator = models.from_config(config, axis_name)
    burn_in = optimizers.burn_in_schedule(config)
    penalties, lazy_penalties = losses.penalties_from_config(config, burn_in)
    return Method(
        generator,
        discriminator,
        optimizers.from_config(config),
        latent_dim=config.latent_dim,
        prior=config.prior,
        seed=config.seed,
        average_decay=optimizers.average_decay(config),
        loss=losses.from_config(config),
        penalties=penalties,
        lazy_penalties=lazy_penalties,
        lazy_interval=config.penalty_every,
        flip=augment.flip if config.data.flip else augment.none,
        augment=augment.from_config(config, burn_in),
        discriminator_steps=config.discriminator_steps,
        fresh_z=config.fresh_z,
        axis_name=axis_name,
    )


class _Examples(NamedTuple):
    """One batch of one update: `number` counts them over the whole run; `indices` int [B] are in the global batch."""

    images: Array
    labels: Array | None
    step: Array
    number: Array
    indices: Array


class _Fakes(NamedTuple):
    """Generated images, the way back from their gradients to the generator's parameters, and its new statistics."""

    images: Array
    pull_back: Callable[[Array], tuple[Tree]]
    stats: dict[str, Tree]


def train_step(method: Method, state: GANState, batch: Batch) -> tuple[GANState, Metrics]:
    """One step of training.

    batch: {'images': uint8 [discriminator_steps * B, H, W, C], and with classes 'labels': int}, this replica's shares
    of that many global batches, one after the other.

    Returns the new state and scalars, averaged over the replicas: `d_loss` and `g_loss` (nats); `d_real` and `d_fake`,
    the discriminator's mean probability of 'real' for real and for generated images; `d_accuracy_real` and
    `d_accuracy_fake`, the share of each that it recognises; `d_saturated`, the share of its logits beyond 10 on either
    side; `d_grad_norm` and `g_grad_norm`, the norms of the whole gradients; with penalties `d_penalty`, their weighted
    sum, in which lazy ones are 0 between the steps that have them. If the loss is relative, differences of logits count
    in place of logits.
    """
    discriminator = state.discriminator
    for examples in _parts(method, state.step, batch):
        fakes = _generate(method, state.generator, examples, latent.TRAIN)
        discriminator, metrics = _update_discriminator(method, discriminator, examples, fakes.images)
        if method.lazy_penalties:
            discriminator, paid = _pay_lazy_penalties(method, discriminator, examples, fakes.images)
            metrics["d_penalty"] += paid
    if method.fresh_z:
        fakes = _generate(method, state.generator, examples, latent.FRESH)
    generator, generator_metrics = _update_generator(method, state.generator, discriminator, examples, fakes)
    average = Average(
        moving_average(state.ema.params, generator.params, method.average_decay(state.step)),
        generator.stats | {"batch_stats": state.ema.stats["batch_stats"]},  # these are recomputed before they are used
    )
    return GANState(state.step + 1, generator, discriminator, average), metrics | generator_metrics


def _parts(method: Method, step: Array, batch: Batch) -> list[_Examples]:
    """The examples of each update of the discriminator; the generator learns from the last ones."""
    count = method.discriminator_steps
    size = batch["images"].shape[0] // count
    first = jax.lax.axis_index(method.axis_name) * size if method.axis_name else 0
    indices = first + jnp.arange(size, dtype=jnp.int32)
    parts = []
    for i in range(count):
        part = {name: array[i * size : (i + 1) * size] for name, array in batch.items()}
        number = step * count + i
        dtype = at_least_float32(method.generator.dtype)
        examples = _Examples(to_unit_range(part["images"], dtype), part.get("labels"), step, number, indices)
        images = method.flip(examples.images, _keys(method, examples, latent.FLIP), step)
        parts.append(examples._replace(images=images))
    return parts


def _keys(method: Method, examples: _Examples, stream: int) -> Array:
    """A key for each example, [B]."""
    return latent.example_keys(latent.key(method.seed, stream, examples.number), examples.indices)


def _generate(method: Method, network: NetworkState, examples: _Examples, stream: int) -> _Fakes:
    key = latent.key(method.seed, stream, examples.number)
    z = latent.draw(key, examples.indices, method.latent_dim, method.prior)

    def forward(params: Tree) -> tuple[Array, Tree]:
        variables = network.variables(params)
        return method.generator.apply(variables, z, examples.labels, train=True, mutable=list(network.stats))

    images, pull_back, stats = jax.vjp(forward, network.params, has_aux=True)
    return _Fakes(images, pull_back, network.stats | dict(stats))


def _discriminate(
    method: Method, network: NetworkState, params: Tree, images: Array, labels: Array | None, groups: int = 1
) -> tuple[Array, dict[str, Tree]]:
    """Logits [B], and the statistics after them."""
    variables = network.variables(params)
    logits, stats = method.discriminator.apply(
        variables, images, labels, train=True, groups=groups, mutable=list(network.stats)
    )
    return logits, network.stats | dict(stats)


def _augmented(method: Method, examples: _Examples, images_fake: Array) -> tuple[Array, Array]:
    """Real and generated images as the discriminator's update sees them."""
    real = method.augment(examples.images, _keys(method, examples, latent.AUGMENT_REAL), examples.step)
    fake = method.augment(images_fake, _keys(method, examples, latent.AUGMENT_FAKE), examples.step)
    return real, fake


def _penalties(method: Method, network: NetworkState, examples: _Examples, real: Array, fake: Array) -> Callable:
    """Penalties and the discriminator's parameters to the sum of these penalties."""

    def paid(penalties: tuple[Penalty, ...], params: Tree) -> Array:
        def critic(images: Array) -> Array:
            return _discriminate(method, network, params, images, examples.labels)[0]

        keys = _keys(method, examples, latent.PENALTY)
        return penalty_sum(penalties, critic, real, fake, keys=keys, step=examples.step)

    return paid


def _update_discriminator(
    method: Method, network: NetworkState, examples: _Examples, images_fake: Array
) -> tuple[NetworkState, Metrics]:
    real, fake = _augmented(method, examples, images_fake)
    paid = _penalties(method, network, examples, real, fake)
    images = jnp.concatenate([real, fake])
    labels = None if examples.labels is None else jnp.concatenate([examples.labels, examples.labels])

    def objective(params: Tree) -> tuple[Array, tuple]:
        logits, stats = _discriminate(method, network, params, images, labels, groups=2)
        logits_real, logits_fake = jnp.split(logits, 2)
        loss = jnp.mean(method.loss.discriminator(logits_real, logits_fake))
        penalty = paid(method.penalties, params)
        return loss + penalty, (loss, penalty, logits_real, logits_fake, stats)

    gradients, (loss, penalty, *logits, stats) = jax.grad(objective, has_aux=True)(network.params)
    for_real, for_fake = method.loss.evidence(*logits)
    dtype = for_real.dtype
    metrics = {
        "d_loss": loss,
        "d_real": jnp.mean(jax.nn.sigmoid(for_real)),
        "d_fake": jnp.mean(jax.nn.sigmoid(for_fake)),
        "d_accuracy_real": jnp.mean(for_real > 0, dtype=dtype),
        "d_accuracy_fake": jnp.mean(for_fake < 0, dtype=dtype),
        "d_saturated": jnp.mean(jnp.abs(jnp.concatenate([for_real, for_fake])) > SATURATED_LOGIT, dtype=dtype),
    }
    if method.penalties or method.lazy_penalties:
        metrics["d_penalty"] = penalty
    return _apply_gradients(method, network, method.optimizers.discriminator, gradients, stats, metrics, "d")


def _pay_lazy_penalties(
    method: Method, network: NetworkState, examples: _Examples, images_fake: Array
) -> tuple[NetworkState, Array]:
    """The network after an update by the lazy penalties alone, if they are due, and their sum."""

    def pay() -> tuple[NetworkState, Array]:
        paid = _penalties(method, network, examples, *_augmented(method, examples, images_fake))

        def objective(params: Tree) -> tuple[Array, Array]:
            penalty = paid(method.lazy_penalties, params)
            return method.lazy_interval * penalty, penalty

        gradients, penalty = jax.grad(objective, has_aux=True)(network.params)
        optimizer, metrics = method.optimizers.discriminator, {"d_penalty": penalty}
        updated, metrics = _apply_gradients(method, network, optimizer, gradients, network.stats, metrics, "d")
        return updated, metrics["d_penalty"]

    due = (examples.number + 1) % method.lazy_interval == 0
    return jax.lax.cond(due, pay, lambda: (network, jnp.zeros((), images_fake.dtype)))


def _update_generator(
    method: Method, network: NetworkState, opponent: NetworkState, examples: _Examples, fakes: _Fakes
) -> tuple[NetworkState, Metrics]:
    def logits_of(images: Array, stream: int) -> Array:
        augmented = method.augment(images, _keys(method, examples, stream), examples.step)
        return _discriminate(method, opponent, opponent.params, augmented, examples.labels)[0]

    logits_real = logits_of(examples.images, latent.AUGMENT_REAL) if method.loss.paired else jnp.zeros(())

    def objective(images: Array) -> Array:
        return jnp.mean(method.loss.generator(logits_of(images, latent.AUGMENT_FAKE), logits_real))

    loss, cotangent = jax.value_and_grad(objective)(fakes.images)
    (gradients,) = fakes.pull_back(cotangent)
    return _apply_gradients(method, network, method.optimizers.generator, gradients, fakes.stats, {"g_loss": loss}, "g")


def _apply_gradients(
    method: Method,
    network: NetworkState,
    optimizer: optax.GradientTransformation,
    gradients: Tree,
    stats: dict[str, Tree],
    metrics: Metrics,
    name: str,
) -> tuple[NetworkState, Metrics]:
    """Averages gradients, statistics and metrics over the replicas, and takes a step of the optimizer."""
    gradients, stats, metrics = _over_replicas((gradients, stats, metrics), method.axis_name)
    squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients)]
    metrics |= {f"{name}_grad_norm": jnp.sqrt(sum(squares))}
    updates, opt_state = optimizer.update(gradients, network.opt_state, network.params)
    return NetworkState(optax.apply_updates(network.params, updates), stats, opt_state), metrics


def _over_replicas(tree: Tree, axis_name: str | None) -> Tree:
    """The mean over the replicas, in one all-reduce: each has a latency, which many small ones would pay many times."""
    if not axis_name or jax.lax.axis_size(axis_name) == 1:
        return tree
    flat, unravel = ravel_pytree(tree)
    return unravel(jax.lax.pmean(flat, axis_name))
