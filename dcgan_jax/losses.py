"""The adversarial losses: logits in, scalars out."""

import jax
import jax.numpy as jnp
from jax import Array


def discriminator_loss(logits_real: Array, logits_fake: Array) -> Array:
    """Sigmoid cross-entropy of telling real (1) from generated (0): logits [B] each -> scalar, in nats.

    The sum of the two means, 2 log 2 for a discriminator that cannot tell (Goodfellow et al. 2014, equation 1).
    """
    return jnp.mean(jax.nn.softplus(-logits_real)) + jnp.mean(jax.nn.softplus(logits_fake))


def generator_loss(logits_fake: Array) -> Array:
    """The non-saturating loss -log D(G(z)): logits [B] -> scalar, in nats (Goodfellow et al. 2014, section 3)."""
    return jnp.mean(jax.nn.softplus(-logits_fake))
