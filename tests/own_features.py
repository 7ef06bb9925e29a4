"""Cheap features for tests: means over blocks of pixels."""

import jax.numpy as jnp


def blocks(images):
    """uint8 [N, H, W, C] to float32 [N, 16]."""
    images = images.astype(jnp.float32) / 255
    count, height, width, _ = images.shape
    return images.mean(3).reshape(count, 4, height // 4, 4, width // 4).mean((2, 4)).reshape(count, 16)


def blocks_and_logits(images):
    """The features of `blocks`, and logits of two classes."""
    vectors = blocks(images)
    return vectors, vectors[:, :2] * 10
