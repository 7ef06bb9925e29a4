"""The discriminator's architecture trained with labels alone: the supervised baseline of the paper's table 2.

How it is trained is found by random search: of many trials, the best on held-out training images.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from dcgan_jax import calibration, models

Tree = Any

CHUNK = 256  # images classified at a time


class Trial(NamedTuple):
    """How one network is trained: Adam's learning rate and b1, decoupled weight decay, and the batch."""

    learning_rate: float
    b1: float
    weight_decay: float
    batch_size: int


class Labelled(NamedTuple):
    """Images uint8 [N, H, W, C] and their labels int [N]."""

    images: np.ndarray
    labels: np.ndarray


def draw(rng: np.random.Generator) -> Trial:
    """A random trial; rates are drawn evenly by their logarithms."""
    return Trial(
        learning_rate=float(10 ** rng.uniform(-4, -2)),
        b1=float(rng.choice([0.5, 0.9])),
        weight_decay=float(10 ** rng.uniform(-5, -1)),
        batch_size=int(rng.choice([32, 64, 128])),
    )


def train(
    architecture: models.Discriminator, classes: int, learned: Labelled, trial: Trial, images_seen: int, seed: int
) -> "Classifier":
    """A classifier trained on so many images, drawn with repetition; its learning rate falls to zero by a cosine.

    architecture: without labels of its own. The running statistics of batch norm are those of the images it learned.
    """
    network = architecture.clone(outputs=classes, axis_name=None)
    steps = max(1, images_seen // trial.batch_size)
    init_key, data_seed = jax.random.key(seed), np.random.default_rng(seed)
    variables = network.init(init_key, _scaled(learned.images[:2]), train=True)
    state = variables, optax.scale_by_adam().init(variables["params"])
    for number in range(steps):
        chosen = np.sort(data_seed.integers(0, len(learned.images), trial.batch_size))
        rate = trial.learning_rate * (1 + math.cos(math.pi * number / steps)) / 2
        settings = rate, trial.b1, trial.weight_decay
        state = _step(network, state, settings, learned.images[chosen], learned.labels[chosen])
    given = {"params": state[0]["params"], "batch_stats": state[0].get("batch_stats", {})}
    stats = calibration.statistics_of_images(network, given, learned.images)
    return Classifier(network, given | {"batch_stats": stats})


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _step(
    network: models.Discriminator, state: Tree, settings: tuple[float, float, float], images: Array, labels: Array
) -> Tree:
    """One step of AdamW; what trials differ in is an argument, so that they share what is compiled."""
    variables, opt_state = state
    rate, b1, weight_decay = settings

    def loss(params: Tree) -> tuple[Array, Tree]:
        given = {"params": params, "batch_stats": variables.get("batch_stats", {})}
        logits, updated = network.apply(given, _scaled(images), train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated

    gradients, updated = jax.grad(loss, has_aux=True)(variables["params"])
    optimizer = optax.chain(optax.scale_by_adam(b1), optax.add_decayed_weights(weight_decay))
    empty = optax.EmptyState()
    updates, (opt_state, _) = optimizer.update(gradients, (opt_state, empty), variables["params"])
    params = jax.tree.map(lambda parameter, update: parameter - rate * update, variables["params"], updates)
    return {"params": params, **updated}, opt_state


class Classifier:
    """A trained network that tells classes."""

    def __init__(self, network: models.Discriminator, variables: Tree):
        self.variables = variables

        def classify(variables: Tree, images: Array) -> Array:
            logits: Any = network.apply(variables, _scaled(images))
            return jnp.argmax(logits, axis=-1)

        self._apply = jax.jit(classify)

    def accuracy(self, test: Labelled) -> float:
        """The share of images that get their label."""
        right = 0
        for start in range(0, len(test.images), CHUNK):
            block = np.asarray(test.images[start : start + CHUNK])
            filled = np.concatenate([block, np.repeat(block[:1], CHUNK - len(block), axis=0)])
            found = np.asarray(self._apply(self.variables, filled))[: len(block)]
            right += int((found == test.labels[start : start + CHUNK]).sum())
        return right / len(test.images)


def _scaled(images: Array | np.ndarray) -> Array:
    return jnp.asarray(images, jnp.float32) / 127.5 - 1
