"""Walks in latent space (figure 4): smooth changes show that the network did not memorise its training images."""

import jax.numpy as jnp
import numpy as np

from dcgan_jax import latent
from dcgan_jax.interpret.pictures import Figure, Row
from dcgan_jax.interpret.samples import Samples

POINTS = 9
STEPS = 10  # from each point to the next


def figures(samples: Samples) -> list[Figure]:
    """A closed walk through random points along straight lines, and one along arcs (section 6.1)."""
    points = jnp.asarray(samples.z(range(POINTS)))
    pair = []
    for between, name in ((latent.linear, "straight lines"), (latent.spherical, "arcs")):
        z = latent.walk(points, STEPS, between).reshape(-1, points.shape[1])
        frames = samples.images(np.asarray(z))
        rows = [Row(f"{i} to {(i + 1) % POINTS}", frames[i * STEPS : (i + 1) * STEPS]) for i in range(POINTS)]
        text = (
            f"A walk along {name} in z through the {POINTS} samples 0 to {POINTS - 1} and back to the first, {STEPS} "
            "steps a row."
        )
        pair.append(Figure(rows, text, frames=frames))
    return pair
