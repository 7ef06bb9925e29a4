"""A trained GAN to make and judge images with: what `dcgan_jax.load` returns."""

import copy
import functools
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization
from jax import Array
from ml_collections import ConfigDict

from dcgan_jax import latent, models
from dcgan_jax.config import default_config, validate
from dcgan_jax.ops.batch_norm import RECOMPUTE_BATCH, recompute_statistics, statistics_of_images
from dcgan_jax.ops.chunks import map_chunks, suitable
from dcgan_jax.ops.max_pool import max_pool
from dcgan_jax.ops.pixels import to_bytes, to_unit_range
from dcgan_jax.run import places
from dcgan_jax.runtime import compile_cache
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.progress import Progress

if TYPE_CHECKING:  # loading a network should not wait for the import of optax
    from dcgan_jax.state import Average

Tree = Any
Labels = np.ndarray | Sequence[int | str] | int | str  # classes of a conditional network, by number or name
# Everything runs in chunks of one size, the last one filled up: a compiled network computes the same bits for an image
# however many were asked for, and only one size is ever compiled. On a CPU it is this one.
CHUNK = 64
RECALIBRATION_BATCHES = 16
NETWORKS = ("ema", "discriminator")  # those of a checkpoint that are used


@functools.partial(jax.jit, static_argnums=(1, 3, 4), compiler_options=compile_cache.QUICKLY)
def _draw(seed: int, stream: int, indices: Array, latent_dim: int, prior: str) -> Array:
    return latent.draw(latent.key(seed, stream), indices, latent_dim, prior)


def recalibrate(config: ConfigDict, average: "Average") -> "Average":
    """The moving average of the generator with batch norm statistics recomputed for its parameters (rule 4).

    Averaged statistics would not fit averaged parameters: averaging shrinks the noise in the weights, and with it the
    variance of what they compute. So they are the mean over 16 batches of 128 z, a function of parameters and seed, on
    one device whatever the training ran on. A conditional generator sees every label equally often.
    """
    generator, _ = models.from_config(config)

    def batch(number: int) -> tuple[Array, np.ndarray | None]:
        indices = number * RECOMPUTE_BATCH + np.arange(RECOMPUTE_BATCH, dtype=np.int32)  # no program for them
        z = _draw(config.seed, latent.RECALIBRATE, indices, config.latent_dim, config.prior)
        return z, indices % config.num_classes if config.num_classes else None

    with Progress("statistics for batch norm", compiles=average.variables()):
        batches = map(batch, range(RECALIBRATION_BATCHES))
        statistics = jax.block_until_ready(recompute_statistics(generator, average.variables(), batches))
    return average.replace(stats=average.stats | {"batch_stats": statistics})


@functools.partial(jax.jit, static_argnums=0)
def _generate(generator: models.Generator, variables: Tree, z: Array, labels: Array | None) -> Any:
    return generator.apply(variables, z, labels)


def first_samples(config: ConfigDict, variables: Tree, count: int) -> Array:
    """The first images of `TrainedGAN.sample` by the configuration's seed: [count, H, W, C] in [-1, 1], on the device.

    They are made by its program, which is not compiled again; fewer come if a chunk is smaller than `count`.
    """
    generator, _ = models.from_config(config)
    indices = np.arange(suitable(CHUNK, config.image_size))
    labels = (indices % config.num_classes).astype(np.int32) if config.num_classes else None
    z = _draw(config.seed, latent.SAMPLE, indices, config.latent_dim, config.prior)
    return _generate(generator, variables, z, labels)[:count]


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
    return jnp.concatenate([max_pool(m).reshape(len(images), -1) for m in maps], axis=-1).astype(jnp.float32)


class TrainedGAN:
    """A generator (its moving average) and a discriminator, if it is not alone, after training; on the default device.

    step: completed updates. config: the run's configuration. latent_dim: length of z. classes: the names of the
    labels of the images that it was trained on, () if they had none.

    Batch norm uses running statistics throughout: what comes out for one z or image depends on it alone.
    """

    def __init__(self, config: ConfigDict, state: Tree, classes: tuple[str, ...] = ()):
        """config: validated. state: the tree of a checkpoint (`dcgan_jax.run.checkpoint`); optimizers are not used."""
        self.config, self.classes = config, classes
        self.step = int(state["step"])
        self.latent_dim: int = config.latent_dim
        self.chunk = suitable(CHUNK, config.image_size)
        self.generator, self.discriminator = models.from_config(config)
        used = [state.get(network, {}) for network in NETWORKS]
        self.generator_variables, self._discriminator_variables = jax.device_put(
            [{name: part for name, part in network.items() if name != "opt_state"} for network in used]
        )

    def __repr__(self) -> str:
        return f"<TrainedGAN: step {self.step}, images of {self.config.image_size}, {self.config.channels} channels>"

    @property
    def discriminator_variables(self) -> Tree:
        """The discriminator's 'params' and other collections. Raises UserError if the generator is alone."""
        if not self._discriminator_variables:
            raise UserError(
                "workdir: found a generator alone, expected its discriminator too; pass the run that it is from"
            )
        return self._discriminator_variables

    def sample(self, count: int, seed: int = 0, labels: Labels | None = None) -> np.ndarray:
        """`count` images, uint8 [count, H, W, C]. Image i is a function of (seed, i, its label) alone.

        A conditional network takes `labels`, by number or name of the class, [count] or one for all; by default they
        are 0, 1, 2, ... in turn.
        """
        if operator.index(count) < 0:
            raise UserError(f"count: found {count}, expected 0 or more")
        return self.sample_at(np.arange(count), seed, labels)

    def sample_at(self, indices: np.ndarray, seed: int = 0, labels: Labels | None = None) -> np.ndarray:
        """The images of `sample` at these indices, int [n]: uint8 [n, H, W, C]."""
        _check_seed(seed)
        if self.config.num_classes and labels is None:
            labels = indices % self.config.num_classes

        def draw(chunk: np.ndarray) -> Array:
            return _draw(seed, latent.SAMPLE, chunk, self.latent_dim, self.config.prior)

        return self._images(draw, indices, labels, to_bytes)

    def latents(self, indices: np.ndarray, seed: int = 0) -> np.ndarray:
        """The z that `sample` makes the images of these indices, int [n], from: float32 [n, latent_dim]."""
        _check_seed(seed)
        return np.asarray(_draw(seed, latent.SAMPLE, np.asarray(indices), self.latent_dim, self.config.prior))

    def generate(self, z: np.ndarray, labels: Labels | None = None) -> np.ndarray:
        """z [n, latent_dim] -> images float32 [n, H, W, C] in [-1, 1]; labels as in `sample`."""
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise UserError(f"z: found the shape {z.shape}, expected (n, {self.latent_dim})")
        return self._images(lambda chunk: chunk, z, labels, lambda images: images.astype(np.float32))

    def discriminate(self, images: np.ndarray, labels: Labels | None = None) -> np.ndarray:
        """images [n, H, W, C], uint8 or float in [-1, 1] -> logits float32 [n], positive for real."""
        return self._judge("discriminating", _discriminate, images, labels)

    def features(self, images: np.ndarray, labels: Labels | None = None) -> np.ndarray:
        """The probe's features, float32 [n, F], of images [n, H, W, C], uint8 or float in [-1, 1].

        The activations of all the discriminator's convolutions, each max-pooled to 4x4, flattened and joined
        (section 5.1 of the paper). Raises UserError if there are no convolutions.
        """
        if not self.discriminator.features:
            raise UserError("features: this network has no convolutions, whose activations they would be")
        return self._judge("features", _features, images, labels)

    def maps(self, images: Array, labels: Array | None = None) -> list[Array]:
        """The activations of the discriminator's convolutions, as `maps_of` gives them."""
        return maps_of(self.discriminator, self.discriminator_variables, images, labels)

    def generator_maps(self, z: np.ndarray, layer: int, labels: Labels | None = None) -> np.ndarray:
        """The input of the generator's convolution `layer`, 0 for the projected z: [n, height, width, features]."""

        def run(chunk: np.ndarray, chunk_labels: np.ndarray | None = None) -> Array:
            _, sown = _generate_maps(self.generator, self.generator_variables, chunk, chunk_labels)
            return sown["intermediates"][f"map_{layer}"][0].astype(np.float32)

        return self._in_chunks("features", run, np.asarray(z, np.float32), self._check_labels(labels, len(z)))

    def with_generator(self, variables: Tree) -> "TrainedGAN":
        """This GAN with other variables, 'params' and 'batch_stats', in its generator."""
        other = copy.copy(self)
        other.generator_variables = jax.device_put(variables)
        return other

    def with_statistics_of(self, images: np.ndarray) -> "TrainedGAN":
        """This GAN with the discriminator's batch norm statistics taken over images, uint8 [n, H, W, C], n at least 2.

        In training they are those of real and generated images; the released code takes them over the images whose
        features it computes.
        """
        fitted = copy.copy(self)
        with Progress("statistics for batch norm", compiles=self.discriminator_variables):
            stats = statistics_of_images(self.discriminator, self.discriminator_variables, images)
        fitted._discriminator_variables = self.discriminator_variables | {"batch_stats": stats}
        return fitted

    def _images(self, to_z: Callable, inputs: np.ndarray, labels: Any, convert: Callable) -> np.ndarray:
        def run(chunk: np.ndarray, chunk_labels: np.ndarray | None = None) -> Array:
            return convert(_generate(self.generator, self.generator_variables, to_z(chunk), chunk_labels))

        return self._in_chunks("generating", run, inputs, self._check_labels(labels, len(inputs)))

    def _judge(self, title: str, network: Callable, images: np.ndarray, labels: Labels | None) -> np.ndarray:
        shape = (*self.config.image_size, self.config.channels)
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != shape:
            raise UserError(f"images: found the shape {images.shape}, expected (n, {', '.join(map(str, shape))})")
        images = to_unit_range(images) if images.dtype == np.uint8 else images
        if not np.issubdtype(images.dtype, np.floating):
            raise UserError(f"images: found {images.dtype}, expected uint8, or floats in [-1, 1]")

        def run(chunk: np.ndarray, chunk_labels: np.ndarray | None = None) -> Array:
            return network(self.discriminator, self.discriminator_variables, chunk, chunk_labels).astype(np.float32)

        return self._in_chunks(title, run, images.astype(np.float32), self._check_labels(labels, len(images)))

    def _in_chunks(self, title: str, run: Callable, inputs: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        """`run` on chunks of inputs [n, ...] and labels [n]; for n = 0 the result has the right shape too."""
        if not len(inputs):
            one = np.zeros((1, *np.shape(inputs)[1:]), inputs.dtype)
            return self._in_chunks(title, run, one, None if labels is None else np.zeros(1, np.int32))[:0]
        shapes = self.chunk, self.generator_variables, self._discriminator_variables
        with Progress(title, len(inputs), "images", compiles=shapes) as shown:
            return map_chunks(run, self.chunk, inputs, *([] if labels is None else [labels]), done=shown.update)

    def _check_labels(self, labels: Labels | None, count: int) -> np.ndarray | None:
        if not self.config.num_classes:
            if labels is not None:
                raise UserError("labels: found some, expected None: this network was trained without classes")
            return None
        from dcgan_jax.data.classes import labels_of  # slow to import for a network without classes

        return labels_of(labels, count, self.config.num_classes, self.classes)


def _check_seed(seed: int) -> None:
    if not 0 <= operator.index(seed) < 2**31:
        raise UserError(f"seed: found {seed}, expected a number from 0 to 2**31 - 1")


def load(workdir: str | Path, step: int | str | None = None) -> TrainedGAN:
    """The GAN of a run, from its newest checkpoint; one CPU suffices, whatever trained it.

    workdir: a run's directory; a folder that export_weights.py wrote with --format=safetensors or hub, or
    hf://OWNER/NAME for such a one; or 'digits', the generator in this package. A folder of that name goes before it.
    step: of another checkpoint, or 'best' for the best one by the run's `quality` (`config.best_by`). What is compiled
    is kept (`compile_cache.enable`). Raises UserError if there is no such run or step, or nothing was measured.
    """
    compile_cache.enable()
    with Progress(f"loading {workdir}"):
        return from_tree(*places.read(workdir, step), workdir)


def from_tree(tree: Tree, meta: dict[str, Any], workdir: str | Path) -> TrainedGAN:
    """The GAN that `places.read` has read from `workdir`."""
    return TrainedGAN(configured(meta, workdir), tree, tuple((meta.get("data") or {}).get("classes") or ()))


def untrained(config: ConfigDict, seed: int) -> TrainedGAN:
    """The GAN of a validated configuration before training, by this seed: what trained ones are compared with."""
    from dcgan_jax import state  # imports optax, for which loading a network should not wait

    config = ConfigDict(config.to_dict() | {"seed": seed})
    return TrainedGAN(config, serialization.to_state_dict(state.create(config)))


def configured(meta: dict[str, Any], workdir: str | Path) -> ConfigDict:
    """The validated configuration in a checkpoint's meta. Raises UserError if there is none."""
    config = default_config()
    try:
        config.update(meta["config"])
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"checkpoint: the configuration in {str(workdir)!r} cannot be read ({error})") from error
    if config.dtype == "float64" and jnp.result_type(float) != jnp.float64:
        config.dtype = "float32"
    return validate(config)
