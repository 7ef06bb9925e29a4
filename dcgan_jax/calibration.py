"""Running statistics of batch norm taken anew, for parameters that did not gather their own in training.

A network's statistics are the mean over batches of what each batch has, as the network sees it in training: the moving
average of the generator needs that (rule 4 of `steps.py`), and so do weights from elsewhere that carry none.
"""

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from dcgan_jax import latent, models

if TYPE_CHECKING:  # loading a network should not wait for the import of optax
    from dcgan_jax.state import Average

Tree = Any

BATCH = 128
BATCHES = 16
MOST_IMAGES = 100 * BATCH


@functools.partial(jax.jit, static_argnums=0)
def _batch_statistics(network: models.Network, variables: Tree, x: Array, labels: Array | None) -> Tree:
    # With a momentum of 0 the new running statistics are the batch's own.
    network = network.clone(norm_momentum=0.0, axis_name=None)
    return network.apply(variables, x, labels, train=True, mutable=["batch_stats"])[1].get("batch_stats", {})


def statistics(network: models.Network, variables: Tree, batches: Iterable[tuple[Array, Array | None]]) -> Tree:
    """The mean of the batch statistics over batches of (z or images in [-1, 1], labels or None).

    variables: 'params', and 'batch_stats' of any values. All batches should have one size.
    """
    total: Tree = None
    count = 0
    for x, labels in batches:
        found = _batch_statistics(network, variables, x, labels)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
        count += 1
    return jax.tree.map(lambda sum_: sum_ / count, total)


def statistics_of_images(network: models.Discriminator, variables: Tree, images: np.ndarray) -> Tree:
    """The batch statistics over images, uint8 [N, H, W, C], N at least 2, for a discriminator without labels.

    At most 12,800 of them are looked at, in batches of 128 in an order of their own.
    """
    order = np.random.default_rng(0).permutation(len(images))[:MOST_IMAGES]
    size = min(BATCH, len(order))
    chosen = (np.sort(order[start : start + size]) for start in range(0, len(order) - size + 1, size))
    return statistics(
        network, variables, ((jnp.asarray(images[places] / 127.5 - 1, jnp.float32), None) for places in chosen)
    )


def calibrate(config: ConfigDict, ema: "Average") -> "Average":
    """The moving average of the generator with batch statistics taken for its own parameters.

    Averaged statistics would not fit averaged parameters: averaging shrinks the noise in the weights, and with it the
    variance of what they compute. So they are the mean over 16 batches of 128 z, a function of parameters and seed,
    on one device whatever the training ran on. A conditional generator sees every label equally often. Rule 4.
    """
    generator, _ = models.from_config(config)
    key = latent.key(config.seed, latent.CALIBRATE)

    def batch(number: int) -> tuple[Array, Array | None]:
        indices = number * BATCH + jnp.arange(BATCH)
        z = latent.draw(key, indices, config.latent_dim, config.prior)
        return z, indices % config.num_classes if config.num_classes else None

    variables = {"params": ema.params, "batch_stats": ema.batch_stats}
    return ema.replace(batch_stats=statistics(generator, variables, map(batch, range(BATCHES))))
