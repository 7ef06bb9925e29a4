"""Augmentation of images on the device, for each example by a key of its own."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array
from ml_collections import ConfigDict

# images [B, H, W, C] in [-1, 1], keys [B] (`latent.example_keys`), step -> images [B, H, W, C], differentiable.
Augment = Callable[[Array, Array, Array], Array]

SHIFT = 1 / 8  # of a side, at most, in DiffAugment's translation
HOLE = 1 / 2  # of a side, in its cutout
CONSISTENT_SHIFT = 4  # pixels, at most, in consistency regularisation


def none(images: Array, keys: Array, step: Array) -> Array:
    """Leaves images as they are."""
    return images


def flip(images: Array, keys: Array, step: Array) -> Array:
    """Mirrors each image left and right with probability 1/2."""
    return _flip(images, keys)


def chain(*parts: Augment) -> Augment:
    """One after the other, each with keys of its own."""
    if not parts:
        return none

    def apply(images: Array, keys: Array, step: Array) -> Array:
        for i, part in enumerate(parts):
            images = part(images, jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys), step)
        return images

    return apply


def from_config(config: ConfigDict, burn_in: optax.Schedule) -> Augment:
    """What the discriminator's images go through, by a validated configuration.

    burn_in: the share of the way from the noise at the start to none, in [0, 1].
    """
    parts = [diff_augment(config.augment)] if config.augment else []
    if config.instance_noise:
        parts.append(instance_noise(lambda step: config.instance_noise * (1 - burn_in(step))))
    return chain(*parts)


def diff_augment(names: str) -> Augment:
    """DiffAugment (Zhao et al. 2020) by the names of its parts, separated by commas, such as 'color,translation'."""
    parts = [POLICIES[name] for name in names.split(",")]
    return chain(*(functools.partial(_each, part) for part in parts))


def instance_noise(deviation: optax.Schedule) -> Augment:
    """Adds Gaussian noise of this standard deviation (Sonderby et al. 2017)."""

    def apply(images: Array, keys: Array, step: Array) -> Array:
        noise = jax.vmap(lambda image, key: jax.random.normal(key, image.shape, image.dtype))(images, keys)
        return images + jnp.asarray(deviation(step), images.dtype) * noise

    return apply


def flip_and_shift(images: Array, keys: Array) -> Array:
    """A random flip, and a shift of up to 4 pixels that repeats the image as in a mirror (Zhang et al. 2020)."""
    sides = images.shape[1:3]
    margins = tuple(min(CONSISTENT_SHIFT, side - 1) for side in sides)

    def shift(image: Array, key: Array) -> Array:
        padded = jnp.pad(image, [(margin, margin) for margin in margins] + [(0, 0)], mode="reflect")
        return _window(padded, key, image.shape, margins)

    flip_keys, shift_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    return jax.vmap(shift)(_flip(images, flip_keys), shift_keys)


def _flip(images: Array, keys: Array) -> Array:
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def _each(policy: Callable[[Array, Array], Array], images: Array, keys: Array, step: Array) -> Array:
    return jax.vmap(policy)(images, keys)


def _color(image: Array, key: Array) -> Array:
    """Brightness, saturation and contrast of an image [H, W, C], 1, 3 or 4 channels; the fourth, opacity, stays."""
    if image.shape[-1] == 4:
        return jnp.concatenate([_color(image[..., :3], key), image[..., 3:]], axis=-1)
    brightness, saturation, contrast = jax.random.uniform(key, (3,), image.dtype)
    image = image + (brightness - 0.5)
    grey = jnp.mean(image, axis=-1, keepdims=True)
    image = grey + (image - grey) * (2 * saturation)
    mean = jnp.mean(image)
    return mean + (image - mean) * (contrast + 0.5)


def _translation(image: Array, key: Array) -> Array:
    """Moved by up to an eighth of each side; what comes in is grey."""
    margins = tuple(int(side * SHIFT + 0.5) for side in image.shape[:2])
    padded = jnp.pad(image, [(margin, margin) for margin in margins] + [(0, 0)])
    return _window(padded, key, image.shape, margins)


def _cutout(image: Array, key: Array) -> Array:
    """A rectangle of half of each side becomes grey; its middle is anywhere in the image."""
    height, width, _ = image.shape
    middles = jax.random.randint(key, (2,), 0, jnp.array([side + 1 - _hole(side) % 2 for side in (height, width)]))

    def outside(side: int, middle: Array) -> Array:
        size = _hole(side)
        places = jnp.arange(side) - (middle - size // 2)
        return (places < 0) | (places >= size)

    kept = outside(height, middles[0])[:, None] | outside(width, middles[1])[None]
    return image * kept[:, :, None].astype(image.dtype)


def _hole(side: int) -> int:
    return int(side * HOLE + 0.5)


def _window(padded: Array, key: Array, shape: tuple[int, ...], margins: tuple[int, ...]) -> Array:
    """A part of this shape, at a random place, of an image padded by margins on both sides."""
    y, x = jax.random.randint(key, (2,), 0, 2 * jnp.array(margins) + 1)
    return jax.lax.dynamic_slice(padded, (y, x, jnp.zeros_like(y)), shape)


POLICIES = {"color": _color, "translation": _translation, "cutout": _cutout}
