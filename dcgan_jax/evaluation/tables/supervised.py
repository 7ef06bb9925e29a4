"""The discriminator's architecture trained with labels only: the supervised baseline of the paper's table 2.

Hyperparameters are found by random search: of many trials, the best on held-out training images.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from dcgan_jax import models
from dcgan_jax.ops import batch_norm
from dcgan_jax.ops.chunks import map_chunks
from dcgan_jax.ops.pixels import to_unit_range
from dcgan_jax.runtime.progress import Progress, progress

Tree = Any

CHUNK = 256  # images classified at a time


class Trial(NamedTuple):
    """Hyperparameters of one training: Adam's learning rate and b1, decoupled weight decay, batch size."""

    learning_rate: float
    b1: float
    weight_decay: float
    batch_size: int


class LabelledImages(NamedTuple):
    """Images uint8 [N, H, W, C] and their labels int [N]."""

    images: np.ndarray
    labels: np.ndarray


def draw_trial(rng: np.random.Generator) -> Trial:
    """A random trial; learning rate and weight decay are log-uniform."""
    return Trial(
        learning_rate=float(10 ** rng.uniform(-4, -2)),
        b1=float(rng.choice([0.5, 0.9])),
        weight_decay=float(10 ** rng.uniform(-5, -1)),
        batch_size=int(rng.choice([32, 64, 128])),
    )


def train(
    architecture: models.Discriminator,
    classes: int,
    learned: LabelledImages,
    trial: Trial,
    images_seen: int,
    seed: int,
) -> "SupervisedClassifier":
    """A classifier trained on `images_seen` images, drawn with replacement; its learning rate decays by a cosine.

    architecture: unconditional. Afterwards batch norm's running statistics are recomputed over the training images.
    """
    network = architecture.clone(outputs=classes)
    steps = max(1, images_seen // trial.batch_size)
    init_key, rng = jax.random.key(seed), np.random.default_rng(seed)
    with Progress("building the network"):
        variables = dict(network.init(init_key, to_unit_range(learned.images[:2]), train=True))
    state = variables, optax.scale_by_adam().init(variables["params"])
    for step in progress(range(steps), "training on labels", "steps", compiles=(state, trial.batch_size)):
        chosen = np.sort(rng.integers(0, len(learned.images), trial.batch_size))
        rate = trial.learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
        settings = rate, trial.b1, trial.weight_decay
        state = _train_step(network, state, settings, learned.images[chosen], learned.labels[chosen])
    trained = state[0]
    stats = batch_norm.statistics_of_images(network, trained, learned.images)
    return SupervisedClassifier(network, trained | {"batch_stats": stats})


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _train_step(
    network: models.Discriminator, state: Tree, settings: tuple[float, float, float], images: Array, labels: Array
) -> Tree:
    """One step of AdamW. The hyperparameters are arguments, so that all trials share the compiled step."""
    variables, opt_state = state
    rate, b1, weight_decay = settings
    collections = [name for name in variables if name != "params"]

    def loss(params: Tree) -> tuple[Array, Tree]:
        variables_now = variables | {"params": params}
        logits, updated = network.apply(variables_now, to_unit_range(images), train=True, mutable=collections)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated

    gradients, updated = jax.grad(loss, has_aux=True)(variables["params"])
    optimizer = optax.chain(optax.scale_by_adam(b1), optax.add_decayed_weights(weight_decay))
    empty = optax.EmptyState()
    updates, (opt_state, _) = optimizer.update(gradients, (opt_state, empty), variables["params"])
    params = jax.tree.map(lambda parameter, update: parameter - rate * update, variables["params"], updates)
    return {"params": params, **updated}, opt_state


class SupervisedClassifier:
    """A trained network that classifies images."""

    def __init__(self, network: models.Discriminator, variables: Tree):
        self.variables = variables

        def classify(variables: Tree, images: Array) -> Array:
            logits: Any = network.apply(variables, to_unit_range(images))
            return jnp.argmax(logits, axis=-1)

        self._classify = jax.jit(classify)

    def accuracy(self, test: LabelledImages) -> float:
        """The share of images that are classified correctly."""
        with Progress("classifying", len(test.images), "images", compiles=(self.variables, CHUNK)) as shown:
            classify = functools.partial(self._classify, self.variables)
            classes = map_chunks(classify, CHUNK, test.images, done=shown.update)
        return float((classes == test.labels).mean())
