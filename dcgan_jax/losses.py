"""The adversarial losses, as pairs: logits in, one number an example out; and the discriminator's penalties."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import ConfigDict

from dcgan_jax import augment
from dcgan_jax.fields import GRADIENT_PENALTIES

Critic = Callable[[Array], Array]  # images [B, H, W, C] -> logits [B]


class Loss(NamedTuple):
    """What each network minimises, the mean of it over the batch.

    discriminator: logits_real [B], logits_fake [B] -> [B]. generator: logits_fake [B], logits_real [B] -> [B].
    relative: only differences between logits matter, so that the sign of one alone says nothing.
    paired: whether `generator` reads `logits_real`; if not, it may get a zero for all, and they are not traced.
    """

    discriminator: Callable[[Array, Array], Array]
    generator: Callable[[Array, Array], Array]
    relative: bool = False
    paired: bool = True

    def evidence(self, logits_real: Array, logits_fake: Array) -> tuple[Array, Array]:
        """Logits of both kinds [B], positive if the discriminator takes an example for real."""
        if self.relative:
            return logits_real - logits_fake, logits_fake - logits_real
        return logits_real, logits_fake


@functools.cache
def _non_saturating(label_smoothing: float = 0.0) -> Loss:
    """Cross-entropy of telling real (1) from generated (0), and -log D(G(z)) (Goodfellow et al. 2014, section 3).

    label_smoothing: subtracted from the label of real images alone (Salimans et al. 2016, section 3.4).
    """

    def discriminator(logits_real: Array, logits_fake: Array) -> Array:
        return jax.nn.softplus(-logits_real) + jax.nn.softplus(logits_fake) + label_smoothing * logits_real

    return Loss(discriminator, lambda logits_fake, logits_real: jax.nn.softplus(-logits_fake), paired=False)


def _hinge() -> Loss:
    """Lim and Ye 2017; as in Miyato et al. 2018."""

    def discriminator(logits_real: Array, logits_fake: Array) -> Array:
        return jax.nn.relu(1 - logits_real) + jax.nn.relu(1 + logits_fake)

    return Loss(discriminator, lambda logits_fake, logits_real: -logits_fake, paired=False)


def _least_squares() -> Loss:
    """Mao et al. 2017, with labels 1 and -1 in place of 1 and 0, so that positive logits mean real."""

    def discriminator(logits_real: Array, logits_fake: Array) -> Array:
        return (jnp.square(logits_real - 1) + jnp.square(logits_fake + 1)) / 2

    return Loss(discriminator, lambda logits_fake, logits_real: jnp.square(logits_fake - 1) / 2, paired=False)


def _wasserstein() -> Loss:
    """Arjovsky et al. 2017. It needs something that bounds the discriminator's slope, such as `gradient_penalty`."""
    return Loss(lambda real, fake: fake - real, lambda fake, real: -fake, relative=True, paired=False)


def _relativistic() -> Loss:
    """-log of the probability that one of a pair is more real than the other (RpGAN, Jolicoeur-Martineau 2018)."""

    def pair(logits: Array, logits_of_others: Array) -> Array:
        return jax.nn.softplus(logits_of_others - logits)

    return Loss(pair, pair, relative=True)


LOSSES = {
    "non_saturating": _non_saturating(),
    "hinge": _hinge(),
    "least_squares": _least_squares(),
    "wasserstein": _wasserstein(),
    "relativistic": _relativistic(),
}


def from_config(config: ConfigDict) -> Loss:
    """The loss of a validated configuration."""
    return _non_saturating(config.label_smoothing) if config.label_smoothing else LOSSES[config.loss]


class Penalty(NamedTuple):
    """What the discriminator pays beside its loss: at step t, `weight(t)` times the mean of `value` over the batch.

    value: critic, images_real, images_fake, both [B, H, W, C], keys [B] -> [B]. A penalty may differentiate the critic
    with respect to the images, in reverse mode.
    """

    value: Callable[[Critic, Array, Array, Array], Array]
    weight: optax.Schedule


def penalties_from_config(
    config: ConfigDict, burn_in: optax.Schedule
) -> tuple[tuple[Penalty, ...], tuple[Penalty, ...]]:
    """The penalties of a validated configuration: those of each update, and the lazy ones.

    burn_in: the share, in [0, 1], of the way from their weights at the start to those at the end.
    """

    def weight(start: float) -> optax.Schedule:
        return lambda step: start * (1 + burn_in(step) * (config.penalty_end - 1))

    chosen = {name: Penalty(value, weight(config[name])) for name, value in PENALTIES.items() if config[name] > 0}
    lazy = {name for name in chosen if name in GRADIENT_PENALTIES and config.penalty_every > 1}
    return tuple(chosen[name] for name in chosen if name not in lazy), tuple(
        chosen[name] for name in chosen if name in lazy
    )


def r1(critic: Critic, real: Array, fake: Array, keys: Array) -> Array:
    """Half of the squared gradient at real images (Mescheder et al. 2018)."""
    return _squared_norm(_slope(critic, real)) / 2


def r2(critic: Critic, real: Array, fake: Array, keys: Array) -> Array:
    """Half of the squared gradient at generated images (Mescheder et al. 2018)."""
    return _squared_norm(_slope(critic, fake)) / 2


def gradient_penalty(critic: Critic, real: Array, fake: Array, keys: Array) -> Array:
    """Squared distance of the gradient's norm from 1, between real and generated images (WGAN-GP, Gulrajani et al.
    2017).
    """
    share = jax.vmap(lambda key: jax.random.uniform(key, (1, 1, 1), real.dtype))(keys)
    return _distance_from_1(_slope(critic, real + share * (fake - real)))


def dragan(critic: Critic, real: Array, fake: Array, keys: Array) -> Array:
    """The same near real images (Kodali et al. 2017): with noise of up to half the standard deviation of the image.

    The released code takes that of the batch; so an example does not depend on the others.
    """

    def noise(image: Array, key: Array) -> Array:
        share, place = jax.random.split(key)
        disturbance = 0.5 * jnp.std(image) * jax.random.uniform(place, image.shape, image.dtype)
        return jax.random.uniform(share, (), image.dtype) * disturbance

    return _distance_from_1(_slope(critic, real + jax.vmap(noise)(real, keys)))


def consistency_real(critic: Critic, real: Array, fake: Array, keys: Array) -> Array:
    """Squared change of the logit when a real image is flipped and shifted (CR, Zhang et al. 2020)."""
    return jnp.square(critic(real) - critic(augment.flip_and_shift(real, keys)))


def consistency_fake(critic: Critic, real: Array, fake: Array, keys: Array) -> Array:
    """The same for generated images (bCR, Zhao et al. 2020)."""
    return jnp.square(critic(fake) - critic(augment.flip_and_shift(fake, keys)))


# By the field that holds their weight.
PENALTIES = {
    "r1": r1,
    "r2": r2,
    "gradient_penalty": gradient_penalty,
    "dragan": dragan,
    "consistency_real": consistency_real,
    "consistency_fake": consistency_fake,
}


def penalty_sum(
    penalties: tuple[Penalty, ...], critic: Critic, real: Array, fake: Array, *, keys: Array, step: Array
) -> Array:
    """The sum of all penalties, a scalar; zero if there are none."""
    total = jnp.zeros((), real.dtype)
    for penalty in penalties:
        weight = jnp.asarray(penalty.weight(step), real.dtype)
        total += weight * jnp.mean(penalty.value(critic, real, fake, keys))
    return total


def _slope(critic: Critic, images: Array) -> Array:
    """The gradient of each image's logit with respect to its pixels, if no logit depends on other images."""
    return jax.grad(lambda images: jnp.sum(critic(images)))(images)


def _squared_norm(images: Array) -> Array:
    return jnp.sum(jnp.square(images), (1, 2, 3))


def _distance_from_1(slope: Array) -> Array:
    # The root has no slope at 0.
    norm = jnp.sqrt(jnp.maximum(_squared_norm(slope), jnp.finfo(slope.dtype).tiny))
    return jnp.square(norm - 1)
