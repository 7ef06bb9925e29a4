"""The prior over z, drawn one example at a time; interpolation and arithmetic with z.

Noise is a function of (seed, stream, step, index in the global batch). Nothing random is carried or saved, and neither
the number of devices nor the size of a batch changes what an example gets.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

# Streams of randomness: what a key is for. FRESH is the generator's own z if it does not share the discriminator's.
INIT, TRAIN, FRESH, SAMPLE, RECALIBRATE, FLIP, AUGMENT_REAL, AUGMENT_FAKE, PENALTY = range(9)
MIN_SINE = 1e-3  # directions with a smaller sine between them count as parallel


def key(seed: int | Array, stream: int, step: int | Array = 0) -> Array:
    """The key of one step of one stream."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)


def example_keys(key: Array, indices: Array) -> Array:
    """A key for each example, by its index in the global batch, int [B]: [B]."""
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def draw(key: Array, indices: Array, latent_dim: int, prior: str) -> Array:
    """z for the examples with these indices: float32 [len(indices), latent_dim].

    prior: 'normal', or 'uniform' in [-1, 1] (section 3 of the paper).
    """

    def one(index: Array) -> Array:
        example = jax.random.fold_in(key, index)
        if prior == "uniform":
            return jax.random.uniform(example, (latent_dim,), jnp.float32, -1.0, 1.0)
        return jax.random.normal(example, (latent_dim,), jnp.float32)

    return jax.vmap(one)(indices)


def linear(start: Array, end: Array, share: Array) -> Array:
    """Points on the straight line from start [Z] to end [Z], at shares [S] of it: [S, Z]."""
    return start + share[:, None] * (end - start)


def spherical(start: Array, end: Array, share: Array) -> Array:
    """Points on the arc from start [Z] to end [Z] about the origin, at shares [S] of its angle: [S, Z].

    A Gaussian z lies near a sphere, which a straight line leaves. Lengths change linearly (Shoemake 1985). Between
    points in the same or in opposite directions there is no unique arc, so the points lie on a straight line.
    """
    lengths = jnp.linalg.norm(start), jnp.linalg.norm(end)
    directions = start / lengths[0], end / lengths[1]
    angle = jnp.arccos(jnp.clip(jnp.dot(*directions), -1, 1))
    first, second = jnp.sin((1 - share) * angle)[:, None], jnp.sin(share * angle)[:, None]
    arc = (first * directions[0] + second * directions[1]) / jnp.maximum(jnp.sin(angle), MIN_SINE)
    lengthened = linear(lengths[0][None], lengths[1][None], share) * arc
    return jnp.where(jnp.sin(angle) > MIN_SINE, lengthened, linear(start, end, share))


def walk(points: Array, steps: int, between: Callable[[Array, Array, Array], Array] = linear) -> Array:
    """A closed walk through points [P, Z], with so many steps from each to the next: [P, steps, Z]."""
    share = jnp.arange(steps) / steps
    ways = [between(start, end, share) for start, end in zip(points, jnp.roll(points, -1, axis=0), strict=True)]
    return jnp.stack(ways)


def arithmetic(plus: Array, minus: Array, other: Array) -> Array:
    """The mean of the first less that of the second plus that of the third, each [N, Z]: [Z] (section 6.3.2)."""
    return plus.mean(0) - minus.mean(0) + other.mean(0)


def turn(left: Array, right: Array) -> Array:
    """The vector from the mean of `right` [N, Z] to the mean of `left` [N, Z]: [Z] (section 6.3.2)."""
    return left.mean(0) - right.mean(0)
