"""Walks in z: that the images on them change little by little shows that they were not learned by heart (figure 4)."""

import jax.numpy as jnp
import numpy as np

from dcgan_jax import latent
from dcgan_jax.interpret.pictures import Figure, Row
from dcgan_jax.interpret.samples import Samples

POINTS = 9
STEPS = 10  # from each point to the next


def figures(samples: Samples) -> list[Figure]:
    """A closed walk through random points along straight lines, and one along arcs (section 6.1)."""
    points = samples.z(range(POINTS))
    found = []
    for between, way in ((latent.linear, "straight lines"), (latent.spherical, "arcs")):
        frames = samples.images(
            np.asarray(latent.walk(jnp.asarray(points), STEPS, between)).reshape(-1, points.shape[1])
        )
        rows = [Row(f"{i + 1} to {(i + 1) % POINTS + 1}", frames[i * STEPS : (i + 1) * STEPS]) for i in range(POINTS)]
        text = f"A walk along {way} in z through {POINTS} random points and back to the first, {STEPS} steps a row."
        found.append(Figure(rows, text, frames=frames))
    return found
