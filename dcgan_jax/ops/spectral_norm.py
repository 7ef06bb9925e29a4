"""Spectral norm (Miyato et al. 2018): weights divided by their largest singular value, found by power iteration."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

# One a step does not follow weights that move fast: with learning rates of 2e-4, what was divided by it had singular
# values of up to 1.07. From there, 64 more came within 0.006 of 1.
ITERATIONS_AFTER_TRAINING = 100


class SpectralNorm(nn.Module):
    """A weight [..., outputs], as a matrix with a column for each output, divided by its largest singular value.

    Its estimates of the first singular vectors are in the collection 'spectral'. In training, one power iteration
    improves them at each use. Otherwise they stay as they are, and many iterations from them are used.
    """

    train: bool = False

    @nn.compact
    def __call__(self, weight: Array) -> Array:
        matrix = weight.reshape(-1, weight.shape[-1])

        def start(size: int) -> Array:
            return _unit(jax.random.normal(self.make_rng("params"), (size,), weight.dtype))

        left = self.variable("spectral", "left", start, matrix.shape[0])
        right = self.variable("spectral", "right", start, matrix.shape[1])
        constant = jax.lax.stop_gradient(matrix)

        def iterate(_: int, vectors: tuple[Array, Array]) -> tuple[Array, Array]:
            u = _unit(constant @ vectors[1])
            return u, _unit(constant.T @ u)

        u, v = left.value, right.value
        if self.train:
            u, v = iterate(0, (u, v))
            if not self.is_initializing():
                left.value, right.value = u, v
        else:
            u, v = jax.lax.fori_loop(0, ITERATIONS_AFTER_TRAINING, iterate, (u, v))
        return weight / (u @ matrix @ v)


def _unit(vector: Array) -> Array:
    return vector * jax.lax.rsqrt(jnp.sum(jnp.square(vector)) + 1e-12)
