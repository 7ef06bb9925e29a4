"""The losses against their definition through the sigmoid, and penalties by what they cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax.losses import LOSSES, Penalty, penalty_sum

REAL, FAKE = jnp.array([0.3, -1.2, 4.0]), jnp.array([-0.5, 2.0, 0.1])
PLAIN = LOSSES["non_saturating"]


def test_the_discriminator_s_loss_is_the_cross_entropy():
    expected = -jnp.log(jax.nn.sigmoid(REAL)) - jnp.log(1 - jax.nn.sigmoid(FAKE))
    np.testing.assert_allclose(PLAIN.discriminator(REAL, FAKE), expected, rtol=1e-5)
    np.testing.assert_allclose(PLAIN.discriminator(jnp.zeros(3), jnp.zeros(3)), 2 * np.log(2), rtol=1e-6)


def test_the_generator_s_loss_does_not_saturate():
    np.testing.assert_allclose(PLAIN.generator(FAKE, REAL), -jnp.log(jax.nn.sigmoid(FAKE)), rtol=1e-6)
    # If the discriminator is sure, log(1 - D) has no slope left; -log D keeps a slope of -1.
    slope = jax.grad(lambda logits: PLAIN.generator(logits, logits)[0])(jnp.array([-30.0]))
    assert slope[0] == pytest.approx(-1)


def test_losses_are_finite_for_any_logit():
    extreme = jnp.array([-1e4, 1e4])
    assert np.isfinite(PLAIN.discriminator(extreme, extreme)).all()
    assert np.isfinite(PLAIN.generator(extreme, extreme)).all()


def test_penalties_cost_their_weight_whenever_they_are_due():
    def square_of_gradient(critic, real, fake, keys):
        return jnp.sum(jnp.square(jax.grad(lambda images: critic(images).sum())(real)), (1, 2, 3))

    def critic(images):
        return 3 * images.sum((1, 2, 3))

    images = jnp.ones((4, 2, 2, 1))

    def cost(step, *penalties):
        keys = jax.random.split(jax.random.key(0), 4)
        return float(penalty_sum(penalties, critic, images, images, keys=keys, step=jnp.int32(step)))

    assert cost(0) == 0
    assert cost(5, Penalty(square_of_gradient, weight=0.5)) == 0.5 * 9 * 4
    lazy = Penalty(square_of_gradient, weight=0.5, interval=4)
    assert [cost(step, lazy) for step in range(6)] == [4 * 18, 0, 0, 0, 4 * 18, 0]
