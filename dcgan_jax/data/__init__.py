"""Images in: a source gives prepared uint8 arrays, and batches are a function of (seed, step)."""

from dcgan_jax.data.batches import Batches
from dcgan_jax.data.sources import ImageSet, load

__all__ = ["Batches", "ImageSet", "load"]
