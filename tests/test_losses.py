"""The losses against their definition through the sigmoid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import losses

REAL, FAKE = jnp.array([0.3, -1.2, 4.0]), jnp.array([-0.5, 2.0, 0.1])


def test_discriminator_loss_is_the_cross_entropy():
    expected = float(-jnp.mean(jnp.log(jax.nn.sigmoid(REAL))) - jnp.mean(jnp.log(1 - jax.nn.sigmoid(FAKE))))
    assert losses.discriminator_loss(REAL, FAKE) == pytest.approx(expected, rel=1e-6)
    assert losses.discriminator_loss(jnp.zeros(3), jnp.zeros(3)) == pytest.approx(2 * np.log(2))


def test_generator_loss_does_not_saturate():
    assert losses.generator_loss(FAKE) == pytest.approx(float(-jnp.mean(jnp.log(jax.nn.sigmoid(FAKE)))), rel=1e-6)
    # Where the discriminator is sure, log(1 - D) has no slope left; -log D keeps a slope of -1.
    assert jax.grad(losses.generator_loss)(jnp.array([-30.0]))[0] == pytest.approx(-1)


def test_losses_are_finite_for_any_logit():
    extreme = jnp.array([-1e4, 1e4])
    assert np.isfinite(losses.discriminator_loss(extreme, extreme))
    assert np.isfinite(losses.generator_loss(extreme))
