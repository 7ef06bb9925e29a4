"""The paper's semantic hash of images (section 4.1.1): the binarised code of a denoising autoencoder.

A denoising, dropout-regularised ReLU autoencoder (3072-128-3072) is trained on 32x32 centre crops. The signs of its
code are the hash.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from dcgan_jax.ops.chunks import chunks
from dcgan_jax.runtime.progress import progress

SIDE = 32  # of the crops
BITS = 128
TRAINING_STEPS, TRAINING_BATCH = 3000, 256
NOISE, DROPOUT = 0.3, 0.2
HASH_BATCH = 4096
# Smaller crops of a crop: these shares of its side, each at three positions vertically and horizontally.
ZOOMS = (0.97, 0.94, 0.91)


class DenoisingAutoencoder(nn.Module):
    """Pixels [B, P] to a code of `bits` ReLU units and back."""

    bits: int = BITS

    @nn.compact
    def __call__(self, pixels: Array, *, train: bool = False) -> tuple[Array, Array]:
        """The code before the ReLU, [B, bits], and the reconstruction, [B, P]. Training needs the rng 'dropout'."""
        noisy = pixels
        if train:
            noisy = pixels + NOISE * jax.random.normal(self.make_rng("dropout"), pixels.shape)
        code = nn.Dense(self.bits)(noisy)
        hidden = nn.Dropout(DROPOUT, deterministic=not train)(nn.relu(code))
        return code, nn.Dense(pixels.shape[-1])(hidden)


def normalize(pixels: Array) -> Array:
    """Pixels [..., H, W, C] with mean 0 in each channel, and norm 1."""
    pixels = pixels - pixels.mean((-3, -2), keepdims=True)
    return pixels / (jnp.sqrt(jnp.sum(pixels**2, (-3, -2, -1), keepdims=True)) + 1e-3)


@jax.jit
def crops(images: Array) -> Array:
    """The centre squares of images uint8 [B, H, W, C] at 32x32, float32 [B, 32 * 32 * C].

    Each channel has mean 0, and each image variance 1. So a brighter or paler copy gives the same crop, and two
    pictures of a blue sea are not similar because of their blue.
    """
    _, height, width, channels = images.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    squares = images[:, top : top + side, left : left + side].astype(jnp.float32)
    small = jax.image.resize(squares, (len(images), SIDE, SIDE, channels), "linear", antialias=True)
    return normalize(small).reshape(len(images), -1) * np.sqrt(SIDE * SIDE * channels)


@functools.cache
def zoom_matrices() -> np.ndarray:
    """For each of ZOOMS and each position, the matrix that crops a row of 32 pixels and enlarges it to 32 pixels again
    (linear interpolation): float32 [zooms, 3, 32, 32].
    """
    pixels = np.arange(SIDE)
    matrices = []
    for share in ZOOMS:
        for left in (0, (1 - share) / 2, 1 - share):
            centres = np.clip((left + (pixels + 0.5) / SIDE * share) * SIDE - 0.5, 0, SIDE - 1)  # in the old row
            matrices.append(np.maximum(0, 1 - abs(centres[:, None] - pixels[None])))
    return np.stack(matrices).reshape(len(ZOOMS), 3, SIDE, SIDE).astype(np.float32)


def train_autoencoder(images: np.ndarray, seed: int) -> tuple[DenoisingAutoencoder, Any]:
    """The network and its parameters after training on random batches of images, uint8 [N, H, W, C]."""
    network = DenoisingAutoencoder()
    optimizer = optax.adam(1e-3)
    rng = np.random.default_rng(seed)
    key = jax.random.key(seed)

    @jax.jit
    def step(params: Any, opt_state: Any, batch: Array, key: Array) -> tuple[Any, Any]:
        pixels = crops(batch)
        # A random zoom is a second kind of noise: a copy that was cropped should have the same code.
        zoom, row_position, column_position = jax.random.randint(key, (3,), 0, len(ZOOMS))
        matrices = jnp.asarray(zoom_matrices())[zoom]
        corrupted = pixels.reshape(len(pixels), SIDE, SIDE, -1)
        corrupted = jnp.einsum("ij,kl,njlc->nikc", matrices[row_position], matrices[column_position], corrupted)
        corrupted = corrupted.reshape(pixels.shape)

        def loss(params: Any) -> Array:
            _, reconstruction = network.apply(params, corrupted, train=True, rngs={"dropout": key})
            return jnp.mean((reconstruction - pixels) ** 2)

        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
        return optax.apply_updates(params, updates), opt_state

    batch_size = min(TRAINING_BATCH, len(images))
    params = network.init(key, crops(images[:1]))
    opt_state = optimizer.init(params)
    for i in progress(range(TRAINING_STEPS), "near-duplicates: training a network", "steps", compiles=params):
        indices = np.sort(rng.integers(0, len(images), batch_size))
        params, opt_state = step(params, opt_state, images[indices], jax.random.fold_in(key, i))
    return network, params


def hash_all(images: np.ndarray, network: DenoisingAutoencoder, params: Any) -> tuple[np.ndarray, np.ndarray]:
    """The codes of all images, each of norm 1, float16 [N, 128], and their signs as packed bits, uint8 [N, 16].

    Each unit of the code is measured from its median over a sample, in units of its standard deviation there, so that
    each bit is 0 for about half of the images.
    """
    count = len(images)
    batch = min(count, HASH_BATCH)
    encode = jax.jit(lambda images: network.apply(params, crops(images))[0])
    sample = np.asarray(encode(images[np.linspace(0, count - 1, batch).astype(int)]))
    median, deviation = np.median(sample, axis=0), sample.std(0) + 1e-6
    codes, packed = np.empty((count, BITS), np.float16), np.empty((count, BITS // 8), np.uint8)
    batches = progress(chunks(batch, images), "near-duplicates: hashing", "batches", -(-count // batch))
    for place, (chunk,) in batches:
        code = (np.asarray(encode(chunk))[: place.stop - place.start] - median) / deviation
        packed[place] = np.packbits(code > 0, axis=1)
        codes[place] = code / (np.linalg.norm(code, axis=1, keepdims=True) + 1e-6)
    return codes, packed
