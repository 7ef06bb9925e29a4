"""A small classifier of the real images, whose last layer serves as features where Inception's weights cannot.

Numbers by it compare runs on the same images with one another, and with nothing published. It is a function of its
training images and a seed, is kept once it is trained, and its accuracy is told with every number.
"""

import functools
import json
import logging
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from dcgan_jax.conv import conv
from dcgan_jax.data import Batches, ImageSet
from dcgan_jax.errors import UserError
from dcgan_jax.evaluation.features import Extractor, digest
from dcgan_jax.evaluation.store import keep, kept

log = logging.getLogger("dcgan_jax")

Tree = Any

VERSION = 1  # of what is trained and how: another one has other features
WIDTHS = (48, 96, 192)
STEPS, BATCH, LEARNING_RATE = 1000, 128, 2e-3
HELD_OUT = 5  # without test images, every fifth is held out for the accuracy


class Classifier(nn.Module):
    """Strided convolutions with batch norm: uint8 [B, H, W, C] to features [B, 192] and logits [B, K].

    Sides that are no multiples of 8 are filled up with grey.
    """

    classes: int

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, Array]:
        x = images.astype(jnp.float32) / 127.5 - 1
        x = jnp.pad(x, ((0, 0), *((0, -side % 2 ** len(WIDTHS)) for side in x.shape[1:3]), (0, 0)))
        for i, width in enumerate(WIDTHS):
            kernel = self.param(f"kernel_{i}", nn.initializers.he_normal(), (4, 4, x.shape[-1], width))
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(conv(x, kernel, 2)))
        features = x.mean((1, 2))
        return features, nn.Dense(self.classes)(features)


def classifier(real: ImageSet, test: ImageSet | None = None, seed: int = 0) -> Extractor:
    """The classifier of these images, trained if it is not kept from before.

    real, test: with labels. Without `test`, every fifth of `real` is held out, and told apart in the accuracy.
    Raises UserError where there are no labels.
    """
    if real.labels is None or len(np.unique(real.labels)) < 2:
        raise UserError(
            "--features: found 'classifier' for images without labels, expected labelled ones (a folder for each "
            "class, idx, tfds); pass --features=inception"
        )
    hashes = [*real.card["sha256"].values(), *(test.card["sha256"].values() if test else ())]
    key = digest(json.dumps([VERSION, seed, STEPS, BATCH, LEARNING_RATE, WIDTHS, hashes]))
    network = Classifier(int(real.labels.max()) + 1)
    empty = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *real.images.shape[1:]), np.uint8))
    found = kept("classifier", key, empty)
    if found is None:
        log.info("training the classifier for features, once")
        found = _trained(network, real, test, seed)
        keep("classifier", key, *found)
    variables, about = found
    function = functools.partial(_apply, network)
    return Extractor("classifier", key, function, variables, WIDTHS[-1], network.classes, about=about)


def _apply(network: Classifier, variables: Tree, images: Array) -> tuple[Array, Array]:
    return network.apply(variables, images)  # type: ignore[return-value]


def _trained(network: Classifier, real: ImageSet, test: ImageSet | None, seed: int) -> tuple[Tree, dict[str, Any]]:
    assert real.labels is not None
    everything = np.arange(len(real.images))
    learned = everything if test else everything[everything % HELD_OUT != 0]
    held_out = test or real._replace(images=real.images[::HELD_OUT], labels=real.labels[::HELD_OUT])
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, STEPS))
    variables = network.init(jax.random.key(seed), real.images[:1])
    state = variables, optimizer.init(variables["params"])

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Tree, images: Array, labels: Array) -> Tree:
        variables, opt_state = state

        def loss(params: Tree) -> tuple[Array, Tree]:
            (_, logits), updated = network.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated

        gradients, updated = jax.grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(gradients, opt_state)
        return {"params": optax.apply_updates(variables["params"], updates), **updated}, opt_state

    subset = real._replace(images=learned)  # which images, by number: the batches are of these
    batches = Batches(subset, BATCH, seed)
    for number in range(STEPS):
        chosen = np.sort(learned[batches.indices(number)])
        state = step(state, real.images[chosen], real.labels[chosen])
    variables = jax.device_get(state[0])
    return variables, {
        "accuracy": _accuracy(network, variables, held_out),
        "accuracy_on": "test" if test else "held out",
    }


def _accuracy(network: Classifier, variables: Tree, images: ImageSet) -> float:
    extractor = Extractor("classifier", "", functools.partial(_apply, network), variables, WIDTHS[-1])
    logits = extractor(images.images).logits
    assert logits is not None
    return float(np.mean(logits.argmax(1) == images.labels))
