"""The prior over z, drawn one example at a time.

Noise is a function of (seed, stream, step, index in the global batch). Nothing random is carried or saved, and neither
the number of devices nor the size of a batch changes what an example gets.
"""

import jax
import jax.numpy as jnp
from jax import Array

# Streams of randomness: what a key is for. FRESH is the generator's own z where it does not share the discriminator's.
INIT, TRAIN, FRESH, SAMPLE, CALIBRATE, FLIP = range(6)


def key(seed: int | Array, stream: int, step: int | Array = 0) -> Array:
    """The key of one step of one stream."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)


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
