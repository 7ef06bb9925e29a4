"""25 Gaussians on a grid: how many of them the generator finds by each method, with dense networks in real steps.

`pytest -m nightly -s tests/test_modes.py` prints a line for each: modes found, and the share of samples near one.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import latent, models, state, steps

DEVIATION = 0.03
GRID = np.stack(np.meshgrid(np.linspace(-0.8, 0.8, 5), np.linspace(-0.8, 0.8, 5)), -1).reshape(25, 2)
SAMPLES = 2500

COMMON = dict(
    image_size=(1, 2), channels=1, convolutional=False, dense=(128, 128), latent_dim=2, batch_size=128, num_steps=4000,
    generator_norm="layer", discriminator_norm="none", b1=0.0, b2=0.99, discriminator_lr=4e-3, generator_lr=5e-4,
    lr_decay_steps=3000, discriminator_steps=2, ema_decay=0.99,
)  # fmt: skip
# Fields, and how many modes are found: at the least, and at the most. A penalty's weight depends on the scale of the
# data: modes are 0.4 apart, so that a slope of 1 hardly tells one from the next.
METHODS = {
    "non-saturating, batch norm": (dict(discriminator_norm="batch"), 1, 15),
    "non-saturating, batch norm, first bias": (dict(discriminator_norm="batch", first_bias=True), 18, 25),
    "non-saturating, nothing else": (dict(), 8, 25),
    "non-saturating, noise": (dict(instance_noise=0.05), 14, 25),
    "hinge, spectral norm": (dict(loss="hinge", discriminator_norm="spectral", generator_lr=2e-4), 10, 25),
    "Wasserstein, gradient penalty": (dict(loss="wasserstein", gradient_penalty=0.1, generator_lr=2e-4), 12, 25),
    "non-saturating, DRAGAN": (dict(dragan=1e-2), 20, 25),
    "non-saturating, R1": (dict(r1=1e-2), 20, 25),
    "least squares, R1": (dict(loss="least_squares", r1=1e-2), 20, 25),
    "relativistic, R1 and R2": (dict(loss="relativistic", r1=1e-2, r2=1e-2), 20, 25),
}


def draw(rng, count):
    """Points as images of two pixels, uint8 [count, 1, 2, 1]."""
    points = GRID[rng.integers(0, 25, count)] + DEVIATION * rng.normal(size=(count, 2))
    return np.rint((points + 1) * 127.5).astype(np.uint8).reshape(count, 1, 2, 1)


def found(points):
    """How many modes have at least a quarter of their share of the points [N, 2], and the share near any."""
    distances = np.linalg.norm(points[:, None] - GRID, axis=-1)
    near = distances.min(1) < 3 * DEVIATION
    counts = np.bincount(distances.argmin(1)[near], minlength=25)
    return int((counts >= len(points) / 25 / 4).sum()), near.mean()


def test_modes_are_counted():
    rng = np.random.default_rng(0)
    real = draw(rng, SAMPLES).reshape(-1, 2) / 127.5 - 1
    assert found(real)[0] == 25
    assert found(real[np.linalg.norm(real - GRID[7], axis=1) > 0.2])[0] == 24
    assert found(rng.uniform(-1, 1, (SAMPLES, 2)))[0] < 5


@pytest.mark.nightly
@pytest.mark.parametrize("name", METHODS)
def test_modes_found(tiny, name):
    fields, at_least, at_most = METHODS[name]
    config = tiny(**COMMON | fields, seed=int(os.environ.get("DCGAN_TEST_SEED", 0)))
    step = jax.jit(functools.partial(steps.train_step, steps.from_config(config)), donate_argnums=0)
    rng, current = np.random.default_rng(config.seed), state.create(config)
    images = draw(rng, 200_000)
    for _ in range(config.num_steps):
        chosen = rng.integers(0, len(images), config.batch_size * config.discriminator_steps)
        current, _ = step(current, {"images": images[chosen]})
    z = latent.draw(latent.key(0, latent.SAMPLE), jnp.arange(SAMPLES), config.latent_dim, config.prior)
    generator, _ = models.from_config(config)
    modes, share = found(np.asarray(generator.apply(current.ema.variables(), z)).reshape(-1, 2))
    print(f"{name:40s} {modes:2d} modes found, {share:.2f} of samples near one")
    assert at_least <= modes <= at_most
