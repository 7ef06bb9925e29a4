"""A trained GAN to make and judge images with: what `dcgan_jax.load` returns."""

import copy
import functools
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization
from jax import Array
from ml_collections import ConfigDict

from dcgan_jax import calibration, checkpoint, compilation, latent, models
from dcgan_jax.config import default_config, validate
from dcgan_jax.errors import UserError

Tree = Any
# Everything runs in chunks of this size, the last one filled up: a compiled network computes the same bits for an image
# however many were asked for, and only one size is ever compiled.
CHUNK = 64
# The probe pools each map of the discriminator to at most this many positions a side (section 5.1 of the paper).
POOLED = 4


@functools.partial(jax.jit, static_argnums=(2, 3))
def _draw(seed: int, indices: Array, latent_dim: int, prior: str) -> Array:
    return latent.draw(latent.key(seed, latent.SAMPLE), indices, latent_dim, prior)


@functools.partial(jax.jit, static_argnums=0)
def _generate(generator: models.Generator, variables: Tree, z: Array, labels: Array | None) -> Any:
    return generator.apply(variables, z, labels)


@functools.partial(jax.jit, static_argnums=0)
def _generate_maps(generator: models.Generator, variables: Tree, z: Array, labels: Array | None) -> Any:
    return generator.apply(variables, z, labels, mutable=["intermediates"])


@functools.partial(jax.jit, static_argnums=0)
def _discriminate(discriminator: models.Discriminator, variables: Tree, images: Array, labels: Array | None) -> Any:
    return discriminator.apply(variables, images, labels)


def maps_of(
    discriminator: models.Discriminator, variables: Tree, images: Array, labels: Array | None = None
) -> list[Array]:
    """The activations of its convolutions, each [n, height, width, features], of images [n, H, W, C] in [-1, 1].

    For use inside of JAX's transformations.
    """
    _, sown = discriminator.apply(variables, images, labels, mutable=["intermediates"])
    return [sown["intermediates"][f"map_{i}"][0] for i in range(len(discriminator.features))]


@functools.partial(jax.jit, static_argnums=0)
def _features(discriminator: models.Discriminator, variables: Tree, images: Array, labels: Array | None) -> Array:
    maps = maps_of(discriminator, variables, images, labels)
    return jnp.concatenate([_max_pool(m).reshape(len(images), -1) for m in maps], axis=-1).astype(jnp.float32)


def _max_pool(maps: Array) -> Array:
    """[B, H, W, F] to at most 4x4 positions, each the maximum over its share of the rows and columns."""
    for axis in (1, 2):
        side = maps.shape[axis]
        cells = min(side, POOLED)
        bounds = [(i * side // cells, -(-(i + 1) * side // cells)) for i in range(cells)]
        strips = [jax.lax.slice_in_dim(maps, start, stop, axis=axis).max(axis) for start, stop in bounds]
        maps = jnp.stack(strips, axis)
    return maps


class TrainedGAN:
    """A generator (its moving average) and a discriminator after training, on the default device.

    step: completed updates. config: the run's configuration. latent_dim: length of z.

    Batch norm uses running statistics throughout: what comes out for one z or image depends on it alone.
    """

    def __init__(self, config: ConfigDict, state: Tree):
        """config: validated. state: the tree of a checkpoint (`dcgan_jax.checkpoint`); the optimisers' are not used."""
        self.config = config
        self.step = int(state["step"])
        self.latent_dim: int = config.latent_dim
        self.generator, self.discriminator = models.from_config(config)
        self.generator_variables, self.discriminator_variables = jax.device_put(
            [{name: state[network][name] for name in ("params", "batch_stats")} for network in ("ema", "discriminator")]
        )

    def sample(self, count: int, seed: int = 0, labels: np.ndarray | None = None) -> np.ndarray:
        """`count` images, uint8 [count, H, W, C]. Image i is a function of (seed, i, its label) alone.

        A conditional network takes `labels`, int [count], by default 0, 1, 2, ... in turn.
        """
        if operator.index(count) < 0:
            raise UserError(f"count: found {count}, expected 0 or more")
        return self.sample_at(np.arange(count), seed, labels)

    def sample_at(self, indices: np.ndarray, seed: int = 0, labels: np.ndarray | None = None) -> np.ndarray:
        """The images of `sample` at these indices, int [n]: uint8 [n, H, W, C]."""
        _check_seed(seed)
        if self.config.num_classes and labels is None:
            labels = indices % self.config.num_classes

        def draw(chunk: np.ndarray) -> Array:
            return _draw(seed, chunk, self.latent_dim, self.config.prior)

        return self._images(draw, indices, labels, to_uint8)

    def latents(self, indices: np.ndarray, seed: int = 0) -> np.ndarray:
        """The z that `sample` makes the images of these indices, int [n], from: float32 [n, latent_dim]."""
        _check_seed(seed)
        return np.asarray(_draw(seed, np.asarray(indices), self.latent_dim, self.config.prior))

    def generate(self, z: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """z [n, latent_dim] -> images float32 [n, H, W, C] in [-1, 1]. A conditional network takes labels, int [n]."""
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise UserError(f"z: found the shape {z.shape}, expected (n, {self.latent_dim})")
        return self._images(lambda chunk: chunk, z, labels, lambda images: np.asarray(images, np.float32))

    def discriminate(self, images: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """images float [n, H, W, C] in [-1, 1] -> logits float32 [n], positive for real."""
        return self._judge(_discriminate, images, labels)

    def features(self, images: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """The probe's features, float32 [n, F]: images float [n, H, W, C] in [-1, 1].

        The activations of all the discriminator's convolutions, each max-pooled to 4x4, flattened and joined
        (section 5.1 of the paper). Raises UserError where there are no convolutions.
        """
        if not self.discriminator.features:
            raise UserError("features: this network has no convolutions, whose activations they would be")
        return self._judge(_features, images, labels)

    def maps(self, images: Array, labels: Array | None = None) -> list[Array]:
        """The activations of the discriminator's convolutions, as `maps_of` gives them."""
        return maps_of(self.discriminator, self.discriminator_variables, images, labels)

    def generator_maps(self, z: np.ndarray, layer: int, labels: np.ndarray | None = None) -> np.ndarray:
        """What the generator's convolution `layer` enlarges: z [n, latent_dim] -> maps [n, height, width, features].

        0 is the projected z; the last convolution enlarges the map next to the image.
        """

        def run(chunk: Array, chunk_labels: Array | None) -> np.ndarray:
            _, sown = _generate_maps(self.generator, self.generator_variables, chunk, chunk_labels)
            return np.asarray(sown["intermediates"][f"map_{layer}"][0], np.float32)

        return _in_chunks(run, np.asarray(z, np.float32), self._check_labels(labels, len(z)))

    def with_generator(self, variables: Tree) -> "TrainedGAN":
        """This GAN with other variables, 'params' and 'batch_stats', in its generator."""
        other = copy.copy(self)
        other.generator_variables = jax.device_put(variables)
        return other

    def with_statistics_of(self, images: np.ndarray) -> "TrainedGAN":
        """This GAN with the discriminator's batch statistics taken over images, uint8 [n, H, W, C], n at least 2.

        In training they are those of real and generated images; the released code takes them over the images that it
        computes features of (`calibration.statistics_of_images`).
        """
        fitted = copy.copy(self)
        stats = calibration.statistics_of_images(self.discriminator, self.discriminator_variables, images)
        fitted.discriminator_variables = self.discriminator_variables | {"batch_stats": stats}
        return fitted

    def _images(self, to_z: Callable, inputs: np.ndarray, labels: np.ndarray | None, convert: Callable) -> np.ndarray:
        def run(chunk: Array, chunk_labels: Array | None) -> np.ndarray:
            return convert(_generate(self.generator, self.generator_variables, to_z(chunk), chunk_labels))

        return _in_chunks(run, inputs, self._check_labels(labels, len(inputs)))

    def _judge(self, network: Callable, images: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        shape = (*self.config.image_size, self.config.channels)
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != shape:
            raise UserError(f"images: found the shape {images.shape}, expected (n, {', '.join(map(str, shape))})")
        if not np.issubdtype(images.dtype, np.floating):
            raise UserError(f"images: found {images.dtype}, expected floats in [-1, 1]; divide uint8 by 127.5, less 1")

        def run(chunk: Array, chunk_labels: Array | None) -> np.ndarray:
            return np.asarray(
                network(self.discriminator, self.discriminator_variables, chunk, chunk_labels), np.float32
            )

        return _in_chunks(run, images.astype(np.float32), self._check_labels(labels, len(images)))

    def _check_labels(self, labels: np.ndarray | None, count: int) -> np.ndarray | None:
        classes = self.config.num_classes
        if not classes:
            if labels is not None:
                raise UserError("labels: found some, expected None: this network was trained without classes")
            return None
        labels = np.asarray(labels if labels is not None else [], None if count else np.int32)
        fits = labels.shape == (count,) and np.issubdtype(labels.dtype, np.integer)
        if not fits or (count and not 0 <= labels.min() <= labels.max() < classes):
            found = f"{len(labels)} of {np.unique(labels).tolist()[:9]}" if labels.ndim == 1 else str(labels.shape)
            raise UserError(f"labels: found {found}, expected {count} whole numbers from 0 to {classes - 1}")
        return labels.astype(np.int32)


def _check_seed(seed: int) -> None:
    if not 0 <= operator.index(seed) < 2**31:
        raise UserError(f"seed: found {seed}, expected a number from 0 to 2**31 - 1")


def _in_chunks(run: Callable, inputs: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    results = []
    count = len(inputs)
    for start in range(0, max(count, 1), CHUNK):
        # Indices past the end repeat the last entry; of no entry at all, zeros give the result its shape.
        places = np.minimum(np.arange(start, start + CHUNK), count - 1)
        chunk = inputs[places] if count else np.zeros((CHUNK, *inputs.shape[1:]), inputs.dtype)
        chunk_labels = None if labels is None else (labels[places] if count else np.zeros(CHUNK, np.int32))
        results.append(run(chunk, chunk_labels)[: max(count - start, 0)])
    return np.concatenate(results)


def to_uint8(images: Array | np.ndarray) -> np.ndarray:
    """Images in [-1, 1] to uint8, the inverse of `steps.scale`."""
    return np.clip(np.rint((np.asarray(images) + 1) * 127.5), 0, 255).astype(np.uint8)


def load(workdir: str | Path, step: int | None = None) -> TrainedGAN:
    """The GAN of a run, from its newest checkpoint or that of `step`; one CPU suffices, whatever trained it.

    What it compiles is kept for the next time (`compilation.remember`).

    Raises UserError where there is no such run or step.
    """
    compilation.remember()
    tree, meta = checkpoint.read(workdir, step)
    return TrainedGAN(configured(meta, workdir), tree)


def untrained(config: ConfigDict, seed: int) -> TrainedGAN:
    """The GAN of a validated configuration as it would start from this seed: what trained ones are compared with."""
    from dcgan_jax import state  # and with it optax: loading a network should not wait for that

    config = ConfigDict(config.to_dict() | {"seed": seed})
    return TrainedGAN(config, serialization.to_state_dict(state.create(config)))


def configured(meta: dict[str, Any], workdir: str | Path) -> ConfigDict:
    """The validated configuration in a checkpoint's meta. Raises UserError where it is none."""
    config = default_config()
    try:
        config.update(meta["config"])
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"checkpoint: the configuration in {str(workdir)!r} cannot be read ({error})") from error
    if config.dtype == "float64" and jnp.result_type(float) != jnp.float64:
        config.dtype = "float32"
    return validate(config)
