"""Saves imported networks as a run directory that `dcgan_jax.load` and training open."""

import json
import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from dcgan_jax import config as configuration
from dcgan_jax import inference, latent, models, state
from dcgan_jax.interop.networks import Networks
from dcgan_jax.ops import batch_norm
from dcgan_jax.run import checkpoint
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import new_folder, unused_path, write_text
from dcgan_jax.runtime.progress import Progress
from dcgan_jax.runtime.versions import versions

log = logging.getLogger("dcgan_jax")


def save(
    networks: Networks,
    out: str | Path,
    *,
    recipe: str,
    about: dict[str, Any],
    step: int = 1,
    images: np.ndarray | None = None,
) -> None:
    """Writes `out/config.json` and `out/checkpoints/STEP`.

    recipe: the one that the networks' fields are put into. about: where the weights are from, kept in the checkpoint's
    meta. images: uint8 [N, H, W, C], for the discriminator's running statistics if the weights lack them; by default
    2,048 generated images. The generator's are recomputed (`inference.recalibrate`) if the weights lack them.
    A missing network is an untrained one from the configuration's seed; a warning is logged.
    Raises UserError if `out` exists or the images have another shape.
    """
    out = unused_path(out, "--out")
    config = _config(networks.fields, recipe)
    shape = (*config.image_size, config.channels)
    if images is not None and (images.shape[1:] != shape or len(images) < 2):
        raise UserError(f"--images: found {images.shape}, expected (2 or more, {', '.join(map(str, shape))})")
    strides = configuration.layers(config)[1]
    log.info("networks of %s images: strides %s, prior %s", "x".join(map(str, shape)), strides, config.prior)
    with Progress("building the networks"):
        host = jax.device_get(_state(config, networks, images)).replace(step=np.int32(step))
    meta = {"config": json.loads(config.to_json()), "versions": versions(), "data": {}, "imported": about}
    with new_folder(out, "--out") as folder:
        with closing(checkpoint.Checkpoints(folder, keep=1)) as checkpoints:
            checkpoints.save(step, host, meta)
            checkpoints.wait()
        write_text(folder / "config.json", config.to_json(indent=2) + "\n")


def _config(fields: dict[str, Any], recipe: str) -> ConfigDict:
    config = configuration.recipe(recipe)
    config.first_bias = False  # unless the weights have one
    config.update(fields)
    config.data.source, config.data.path = "folder", ""  # the training images are unknown
    # If the widths double from layer to layer, `width` alone describes them, as in the files of configs/.
    config.features, config.width = (), fields["features"][0]
    config.strides = () if set(fields["strides"]) == {2} else fields["strides"]
    if configuration.layers(config)[0] != fields["features"]:
        config.features = fields["features"]
    return configuration.validate(config)


def _state(config: ConfigDict, networks: Networks, images: np.ndarray | None) -> state.GANState:
    current = state.create(config)
    for name, variables in (("generator", networks.generator), ("discriminator", networks.discriminator)):
        if variables is None:
            log.warning("no weights of a %s were given: it is untrained", name)
            continue
        network = getattr(current, name)
        stats = network.stats
        if variables.batch_stats is not None:
            stats = stats | {"batch_stats": variables.batch_stats}
        current = current.replace(**{name: network.replace(params=variables.params, stats=stats)})
    generator = current.generator
    average = state.Average(generator.params, generator.stats)
    if networks.generator is None or networks.generator.batch_stats is None:
        average = inference.recalibrate(config, average)
        current = current.replace(generator=generator.replace(stats=average.stats))
    if networks.discriminator is None or networks.discriminator.batch_stats is None:
        discriminator = current.discriminator
        stats = discriminator.stats | {"batch_stats": _batch_stats(config, discriminator, average, images)}
        current = current.replace(discriminator=discriminator.replace(stats=stats))
    return current.replace(ema=average)


def _batch_stats(
    config: ConfigDict, discriminator: state.NetworkState, average: state.Average, images: np.ndarray | None
) -> state.Tree:
    network = models.from_config(config)[1]
    if images is not None:
        return batch_norm.statistics_of_images(network, discriminator.variables(), images)
    return batch_norm.recompute_statistics(network, discriminator.variables(), _generated(config, average))


def _generated(config: ConfigDict, average: state.Average) -> Iterator[tuple[Array, None]]:
    """Batches of generated images in [-1, 1], each with None for labels."""
    generator, size = models.from_config(config)[0], batch_norm.RECOMPUTE_BATCH

    @jax.jit
    def generate(variables: state.Tree, indices: Array) -> Any:
        z = latent.draw(latent.key(config.seed, latent.SAMPLE), indices, config.latent_dim, config.prior)
        return generator.apply(variables, z)

    for batch in range(inference.RECALIBRATION_BATCHES):
        yield generate(average.variables(), batch * size + jnp.arange(size)), None
