"""Losses and penalties against plain definitions in float64: values, and gradients by differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dcgan_jax import augment, latent, losses
from dcgan_jax.fields import FIELDS, GRADIENT_PENALTIES
from dcgan_jax.losses import LOSSES, PENALTIES, Penalty, penalty_sum

REAL, FAKE = np.array([0.3, -1.2, 4.0, 0.7]), np.array([-0.5, 2.0, 0.1, -3.0])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cross_entropy(logits, label):
    return -label * np.log(sigmoid(logits)) - (1 - label) * np.log(1 - sigmoid(logits))


# The discriminator's loss of logits_real and logits_fake, and the generator's of logits_fake and logits_real.
DEFINITIONS = {
    "non_saturating": (
        lambda real, fake: cross_entropy(real, 1) + cross_entropy(fake, 0),
        lambda fake, real: cross_entropy(fake, 1),
    ),
    "hinge": (
        lambda real, fake: np.maximum(0, 1 - real) + np.maximum(0, 1 + fake),
        lambda fake, real: -fake,
    ),
    "least_squares": (
        lambda real, fake: (real - 1) ** 2 / 2 + (fake + 1) ** 2 / 2,
        lambda fake, real: (fake - 1) ** 2 / 2,
    ),
    "wasserstein": (
        lambda real, fake: fake - real,
        lambda fake, real: -fake,
    ),
    "relativistic": (
        lambda real, fake: -np.log(sigmoid(real - fake)),
        lambda fake, real: -np.log(sigmoid(fake - real)),
    ),
}


def slope(function, *arguments, place):
    """The gradient of the sum of a plain function with respect to one argument, by central differences."""
    argument, step = np.array(arguments[place], float), 1e-5
    gradient = np.zeros_like(argument)
    for index in np.ndindex(argument.shape):
        values = []
        for sign in (1, -1):
            moved = argument.copy()
            moved[index] += sign * step
            values.append(np.sum(function(*arguments[:place], moved, *arguments[place + 1 :])))
        gradient[index] = (values[0] - values[1]) / (2 * step)
    return gradient


def assert_is(function, definition, *arguments):
    """The function has the definition's values, one an example, and its gradients with respect to each argument."""
    with jax.enable_x64(True):
        arrays = [jnp.asarray(argument) for argument in arguments]
        gradients = jax.grad(lambda *arrays: jnp.sum(function(*arrays)), argnums=range(len(arrays)))
        values, gradients = jax.jit(lambda *arrays: (function(*arrays), gradients(*arrays)))(*arrays)
        np.testing.assert_allclose(values, definition(*arguments), rtol=1e-12)
    for place, gradient in enumerate(gradients):
        np.testing.assert_allclose(gradient, slope(definition, *arguments, place=place), rtol=1e-8, atol=1e-8)


def test_every_loss_and_penalty_has_a_field():
    assert set(DEFINITIONS) == set(LOSSES)
    for name in LOSSES:
        assert FIELDS["loss"].check.holds(name)
    assert set(GRADIENT_PENALTIES) < set(PENALTIES) <= set(FIELDS)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_losses_are_what_they_say(name):
    discriminator, generator = DEFINITIONS[name]
    assert_is(LOSSES[name].discriminator, discriminator, REAL, FAKE)
    assert_is(LOSSES[name].generator, generator, FAKE, REAL)


def test_label_smoothing_is_of_real_images_alone(tiny):
    smoothed = losses.from_config(tiny(label_smoothing=0.1))
    assert_is(smoothed.discriminator, lambda real, fake: cross_entropy(real, 0.9) + cross_entropy(fake, 0), REAL, FAKE)
    assert_is(smoothed.generator, DEFINITIONS["non_saturating"][1], FAKE, REAL)
    assert losses.from_config(tiny(label_smoothing=0.1)) is smoothed, "or equal methods would be compiled twice"
    for name, loss in LOSSES.items():
        assert losses.from_config(tiny(loss=name)) is loss


@pytest.mark.parametrize("name", LOSSES)
def test_a_relative_loss_learns_from_differences_alone(name):
    loss = LOSSES[name]

    def gradients(shift):
        def total(real, fake):
            return loss.discriminator(real + shift, fake + shift).sum(), loss.generator(
                fake + shift, real + shift
            ).sum()

        return jnp.stack(jax.tree.leaves(jax.jacrev(total, argnums=(0, 1))(jnp.asarray(REAL), jnp.asarray(FAKE))))

    assert loss.relative == np.allclose(gradients(0.0), gradients(1.7), atol=1e-5)
    logits = jnp.asarray(REAL), jnp.asarray(FAKE)
    evidence = loss.evidence(*logits)
    np.testing.assert_array_equal(evidence[0], logits[0] - logits[1] if loss.relative else logits[0])
    np.testing.assert_array_equal(evidence[1], logits[1] - logits[0] if loss.relative else logits[1])


@pytest.mark.parametrize("name", LOSSES)
def test_a_paired_loss_of_the_generator_reads_real_logits(name):
    fake, real = jnp.asarray(FAKE), jnp.asarray(REAL)
    unread = np.array_equal(LOSSES[name].generator(fake, real), LOSSES[name].generator(fake, jnp.zeros_like(real)))
    assert LOSSES[name].paired != unread


def test_the_generator_s_loss_does_not_saturate():
    # If the discriminator is sure, log(1 - D) has no slope left; -log D keeps a slope of -1.
    sure = jnp.array([-30.0])
    assert jax.grad(lambda logits: LOSSES["non_saturating"].generator(logits, logits)[0])(sure)[0] == pytest.approx(-1)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_are_finite_for_any_logit(name):
    extreme, others = jnp.array([-1e4, 1e4, -1e4, 1e4]), jnp.array([-1e4, -1e4, 1e4, 1e4])
    for loss in LOSSES[name][:2]:
        gradients = jax.grad(lambda one, other, loss=loss: loss(one, other).sum(), argnums=(0, 1))(extreme, others)
        assert all(np.isfinite(values).all() for values in (loss(extreme, others), *gradients))


# Penalties, on a critic whose gradient is known: the logit of an image is the sum of sin(w x) over its pixels x.
SHAPE, SCALE = (6, 3, 2, 2), 1.3


def images(seed):
    return np.random.default_rng(seed).uniform(-1, 1, SHAPE)


def squared_norm(points, w):
    return np.sum((w * np.cos(w * points)) ** 2, (1, 2, 3))


def distance_from_1(points, w):
    return (np.sqrt(squared_norm(points, w)) - 1) ** 2


def squared_change(points, w):
    one, other = (np.sum(np.sin(w * batch), (1, 2, 3)) for batch in points)
    return (one - other) ** 2


# By the points at which the penalty looks, and w.
PENALTY_DEFINITIONS = {
    "r1": lambda points, w: squared_norm(points, w) / 2,
    "r2": lambda points, w: squared_norm(points, w) / 2,
    "gradient_penalty": distance_from_1,
    "dragan": distance_from_1,
    "consistency_real": squared_change,
    "consistency_fake": squared_change,
}


def pay(name, real, fake, keys):
    """The values of a penalty and the gradient of their sum with respect to w; and the images that the critic saw."""
    seen = []

    def critic(w, images):
        jax.debug.callback(lambda points: seen.append(np.array(points)), images)
        return jnp.sum(jnp.sin(w * images), (1, 2, 3))

    def total(w):
        values = PENALTIES[name](lambda images: critic(w, images), real, fake, keys)
        return jnp.sum(values), values

    gradient, values = jax.grad(total, has_aux=True)(jnp.asarray(SCALE, real.dtype))
    jax.effects_barrier()
    return values, gradient, seen


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_are_what_they_say(name):
    real, fake, w = images(0), images(1), np.array(SCALE)
    with jax.enable_x64(True):
        keys = latent.example_keys(jax.random.key(3), jnp.arange(len(real)))
        values, gradient, seen = pay(name, jnp.asarray(real), jnp.asarray(fake), keys)
        points = np.stack(seen) if name.startswith("consistency") else seen[0]
        moved = [augment.flip_and_shift(jnp.asarray(batch), keys) for batch in (real, fake)]
    definition = PENALTY_DEFINITIONS[name]
    np.testing.assert_allclose(values, definition(points, w), rtol=1e-10)
    np.testing.assert_allclose(gradient, slope(definition, points, w, place=1), rtol=1e-8)
    places = {"r1": real, "r2": fake, "consistency_real": (real, moved[0]), "consistency_fake": (fake, moved[1])}
    if name in places:
        np.testing.assert_allclose(points, places[name], atol=1e-12)


def many(count=500):
    rng = np.random.default_rng(0)
    real, fake = (jnp.asarray(rng.uniform(-1, 1, (count, 4, 4, 1)), jnp.float32) for _ in range(2))
    return real, fake, latent.example_keys(jax.random.key(3), jnp.arange(count))


def test_wgan_gp_looks_anywhere_between_a_real_and_a_generated_image():
    real, fake, keys = many()
    points = pay("gradient_penalty", real, fake, keys)[2][0]
    shares = (points - real) / (fake - real)
    np.testing.assert_allclose(
        shares, np.broadcast_to(np.median(shares, (1, 2, 3), keepdims=True), real.shape), atol=1e-2
    )
    shares = np.median(shares, (1, 2, 3))
    np.testing.assert_allclose(np.quantile(shares, [0, 0.25, 0.5, 0.75, 1]), [0, 0.25, 0.5, 0.75, 1], atol=0.05)


def test_dragan_looks_near_real_images():
    real, fake, keys = many()
    real = real * jnp.linspace(0.1, 1, len(real))[:, None, None, None]  # each has a deviation of its own
    points = pay("dragan", real, fake, keys)[2][0]
    shares = (points - real) / (0.5 * np.std(real, (1, 2, 3), keepdims=True))
    assert -1e-4 < shares.min() < shares.max() < 1
    # The share of an example, uniform itself, times uniform numbers; the largest of 16 is 16/17 in the mean.
    largest = shares.max((1, 2, 3)) * 17 / 16
    np.testing.assert_allclose(np.quantile(largest, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.05)
    np.testing.assert_allclose((shares / largest[:, None, None, None]).mean(), 0.5, atol=0.02)


@pytest.mark.parametrize("name", ["gradient_penalty", "dragan", "consistency_real"])
def test_penalties_do_not_depend_on_the_rest_of_the_batch(name):
    real, fake, keys = many(8)
    whole = pay(name, real, fake, keys)[0]
    np.testing.assert_allclose(whole[2:5], pay(name, real[2:5], fake[2:5], keys[2:5])[0], rtol=1e-4)
    assert whole.shape == (8,)


@pytest.mark.parametrize("name", PENALTIES)
def test_where_the_slope_is_0_the_gradient_is_finite(name):
    real, fake, keys = many(4)

    def total(w):
        return jnp.sum(PENALTIES[name](lambda images: w * jnp.sum(images, (1, 2, 3)), real, fake, keys))

    value, gradient = jax.value_and_grad(total)(jnp.float32(0))
    assert value == (4 if name in ("gradient_penalty", "dragan") else 0)
    assert np.isfinite(gradient)


def test_penalties_cost_their_weight_times_the_mean_over_the_batch():
    def critic(images):
        return 3 * images.sum((1, 2, 3))

    def first_pixel(critic, real, fake, keys):
        return real[:, 0, 0, 0]

    batch = jnp.arange(16, dtype=jnp.float32).reshape(4, 2, 2, 1)
    keys = jax.random.split(jax.random.key(0), 4)

    def cost(step, *penalties):
        return float(penalty_sum(penalties, critic, batch, batch, keys=keys, step=jnp.int32(step)))

    assert cost(5) == 0
    assert cost(5, Penalty(losses.r1, lambda step: 0.5)) == 0.5 * 9 * 4 / 2
    assert cost(5, Penalty(first_pixel, lambda step: 2.0)) == 2 * 6
    falling = Penalty(first_pixel, optax.linear_schedule(1.0, 0.0, 4))
    assert [cost(step, falling, Penalty(losses.r2, lambda step: 1.0)) for step in range(6)] == [
        24,
        22.5,
        21,
        19.5,
        18,
        18,
    ]


def dirac_gan(loss, *penalties, learning_rate=0.1, steps=500):
    """The generator's point theta and the discriminator's slope psi after each step, from 1 and 1: [steps, 2].

    Mescheder et al. 2018, section 2: the data are one point at 0, the generator another point theta; the discriminator
    is the linear function psi x. The only equilibrium is theta = psi = 0.
    """
    real, keys = jnp.zeros((1, 1, 1, 1)), jax.random.split(jax.random.key(0), 1)

    def critic(psi, images):
        return psi * images.sum((1, 2, 3))

    def of_discriminator(psi, theta):
        fake = theta.reshape(real.shape)
        penalty = penalty_sum(penalties, lambda x: critic(psi, x), real, fake, keys=keys, step=jnp.int32(0))
        return loss.discriminator(critic(psi, real), critic(psi, fake))[0] + penalty

    def of_generator(theta, psi):
        return loss.generator(critic(psi, theta.reshape(real.shape)), critic(psi, real))[0]

    def step(point, _):
        theta, psi = point
        psi -= learning_rate * jax.grad(of_discriminator)(psi, theta)
        theta -= learning_rate * jax.grad(of_generator)(theta, psi)
        return (theta, psi), jnp.stack([theta, psi])

    return jax.lax.scan(step, (jnp.ones(()), jnp.ones(())), length=steps)[1]


@pytest.mark.parametrize("name", LOSSES)
def test_r1_on_the_dirac_gan_converges_where_without_it_oscillates(name):
    without, with_r1 = dirac_gan(LOSSES[name]), dirac_gan(LOSSES[name], Penalty(losses.r1, lambda step: 1.0))
    distance = np.linalg.norm(without, axis=1)
    assert np.sum(np.diff(np.sign(without[:, 0])) != 0) >= 6, "it circles"
    # At one distance; or, with losses that are steeper where the discriminator is wrong, inwards ever more slowly.
    assert distance.min() > (1.3 if name in ("wasserstein", "hinge") else 0.1)
    assert np.linalg.norm(with_r1[-1]) < 1e-7
    # R2 acts as R1 does: the slope is the same everywhere.
    np.testing.assert_allclose(dirac_gan(LOSSES[name], Penalty(losses.r2, lambda step: 1.0)), with_r1, atol=1e-6)
