"""The adversarial losses, as pairs: logits in, one number an example out."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Loss(NamedTuple):
    """What each network minimises, the mean of it over the batch.

    discriminator: logits_real [B], logits_fake [B] -> [B]. generator: logits_fake [B], logits_real [B] -> [B]; if it
    ignores `logits_real`, the computation of them is removed.
    """

    discriminator: Callable[[Array, Array], Array]
    generator: Callable[[Array, Array], Array]


def _cross_entropy(logits_real: Array, logits_fake: Array) -> Array:
    """Of telling real (1) from generated (0): 2 log 2 for a discriminator that cannot tell (equation 1 of Goodfellow
    et al. 2014).
    """
    return jax.nn.softplus(-logits_real) + jax.nn.softplus(logits_fake)


def _non_saturating(logits_fake: Array, logits_real: Array) -> Array:
    """-log D(G(z)) (Goodfellow et al. 2014, section 3)."""
    return jax.nn.softplus(-logits_fake)


# By name; in nats.
LOSSES = {"non_saturating": Loss(_cross_entropy, _non_saturating)}


class Penalty(NamedTuple):
    """What the discriminator pays beside its loss, `weight` times the mean of `value` over the batch.

    value: critic, images_real, images_fake, both [B, H, W, C], keys [B] -> [B]; critic(images) gives logits [B], and a
    penalty may differentiate it with respect to the images. interval: steps from one use to the next; the weight is
    multiplied by it, so that a lazy penalty acts as strongly (Karras et al. 2020, appendix B).
    """

    value: Callable[[Callable[[Array], Array], Array, Array, Array], Array]
    weight: float
    interval: int = 1


def penalty_sum(
    penalties: tuple[Penalty, ...],
    critic: Callable[[Array], Array],
    real: Array,
    fake: Array,
    *,
    keys: Array,
    step: Array,
) -> Array:
    """The sum of all penalties that are due at this step, a scalar; zero if there are none."""
    total = jnp.zeros((), real.dtype)
    for penalty in penalties:

        def paid(penalty: Penalty = penalty) -> Array:
            return penalty.weight * penalty.interval * jnp.mean(penalty.value(critic, real, fake, keys))

        due = step % penalty.interval == 0
        total += paid() if penalty.interval == 1 else jax.lax.cond(due, paid, lambda: jnp.zeros((), real.dtype))
    return total
