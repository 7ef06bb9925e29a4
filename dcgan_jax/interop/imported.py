"""A checkpoint of this project's own from networks that were trained elsewhere."""

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

from dcgan_jax import calibration, checkpoint, latent, models, state
from dcgan_jax import config as configuration
from dcgan_jax.errors import UserError
from dcgan_jax.interop.networks import Networks
from dcgan_jax.interop.new_folder import new_folder, unused

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
    """Writes `out/config.json` and `out/checkpoints/STEP`, which `dcgan_jax.load` and training open.

    recipe: of the configuration that the networks' fields are put into. about: kept in the checkpoint's meta.
    images: uint8 [N, H, W, C], for the discriminator's running statistics, where it comes without; by default 2,048
    generated ones. The generator's, where it comes without, are taken as for a moving average (`calibration`).
    A network that is missing is that of the seed, untrained, and a line of the log says so.
    Raises UserError where `out` exists, or the images do not fit.
    """
    out = unused(out, "--out")
    config = _config(networks.fields, recipe)
    shape = (*config.image_size, config.channels)
    if images is not None and (images.shape[1:] != shape or len(images) < 2):
        raise UserError(f"--images: found {images.shape}, expected (2 or more, {', '.join(map(str, shape))})")
    strides = configuration.layers(config)[1]
    log.info("networks of %s images: strides %s, prior %s", "x".join(map(str, shape)), strides, config.prior)
    host = jax.device_get(_state(config, networks, images)).replace(step=np.int32(step))
    meta = {"config": json.loads(config.to_json()), "versions": checkpoint.versions(), "data": {}, "imported": about}
    with new_folder(out, "--out") as folder:
        with closing(checkpoint.Checkpoints(folder, keep=1)) as checkpoints:
            checkpoints.save(step, host, meta)
            checkpoints.wait()
        (folder / "config.json").write_text(config.to_json(indent=2) + "\n")


def _config(fields: dict[str, Any], recipe: str) -> ConfigDict:
    config = configuration.recipe(recipe)
    config.update(fields)
    config.data.source, config.data.path = "folder", ""  # where its images are is not known
    # As the files in configs/ have it, where the widths double.
    config.features, config.width = (), fields["features"][0]
    config.strides = () if set(fields["strides"]) == {2} else fields["strides"]
    if configuration.layers(config)[0] != fields["features"]:
        config.features = fields["features"]
    return configuration.validate(config)


def _state(config: ConfigDict, networks: Networks, images: np.ndarray | None) -> state.GANState:
    current = state.create(config)
    for name, variables in (("generator", networks.generator), ("discriminator", networks.discriminator)):
        if variables is None:
            log.warning("no weights of a %s were given: it is an untrained one", name)
            continue
        kept = getattr(current, name)
        stats = variables.batch_stats or kept.batch_stats
        current = current.replace(**{name: kept.replace(params=variables.params, batch_stats=stats)})
    generator = current.generator
    ema = state.Average(generator.params, generator.batch_stats)
    if networks.generator is None or networks.generator.batch_stats is None:
        ema = calibration.calibrate(config, ema)
        current = current.replace(generator=generator.replace(batch_stats=ema.batch_stats))
    current = current.replace(ema=ema)
    if networks.discriminator is None or networks.discriminator.batch_stats is None:
        discriminator = current.discriminator
        tree = {"params": discriminator.params, "batch_stats": discriminator.batch_stats}
        network = models.from_config(config)[1]
        if images is None:
            stats = calibration.statistics(network, tree, _generated(config, ema))
        else:
            stats = calibration.statistics_of_images(network, tree, images)
        current = current.replace(discriminator=discriminator.replace(batch_stats=stats))
    return current


def _generated(config: ConfigDict, ema: state.Average) -> Iterator[tuple[Array, None]]:
    generate = jax.jit(models.from_config(config)[0].apply)
    variables = {"params": ema.params, "batch_stats": ema.batch_stats}
    for number in range(calibration.BATCHES):
        indices = number * calibration.BATCH + jnp.arange(calibration.BATCH)
        z = latent.draw(latent.key(config.seed, latent.SAMPLE), indices, config.latent_dim, config.prior)
        yield generate(variables, z), None
