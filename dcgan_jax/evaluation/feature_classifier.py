"""A small classifier trained on the real images; its last layer gives features if Inception's cannot be used.

Its numbers compare runs on the same images with one another, and with nothing published. The classifier is a function
of its training images and a seed, is cached after training, and its accuracy is part of every result.
"""

import functools
import json
import logging
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from dcgan_jax.data import Batches, ImageSet, check_classes
from dcgan_jax.evaluation import cache
from dcgan_jax.evaluation.features import Extractor
from dcgan_jax.ops.conv import conv, shapes_alone
from dcgan_jax.ops.parameter import parameter
from dcgan_jax.ops.pixels import to_unit_range
from dcgan_jax.runtime.compile_cache import QUICKLY
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import digest
from dcgan_jax.runtime.progress import progress

log = logging.getLogger("dcgan_jax")

Tree = Any

VERSION = 1  # to be raised if the network or its training changes: cached classifiers are then not used
WIDTHS = (48, 96, 192)
STEPS, BATCH, LEARNING_RATE = 1000, 128, 2e-3
HELD_OUT_EVERY = 5  # without test images, every fifth image is held out for the accuracy


class FeatureClassifier(nn.Module):
    """Strided convolutions with batch norm: uint8 [B, H, W, C] to features [B, widths[-1]] and logits [B, classes].

    Sides that are not multiples of 8, with three layers, are padded with grey. Sown are the means over all positions of
    each layer's maps, 'layer_0' and so on; the last ones are the features.
    """

    classes: int
    widths: tuple[int, ...] = WIDTHS

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, Array]:
        x = to_unit_range(images)
        x = jnp.pad(x, ((0, 0), *((0, -side % 2 ** len(self.widths)) for side in x.shape[1:3]), (0, 0)))
        for i, width in enumerate(self.widths):
            kernel = parameter(self, f"kernel_{i}", nn.initializers.he_normal(), (4, 4, x.shape[-1], width))
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(conv(x, kernel, 2)))
            features = x.mean((1, 2))
            self.sow("intermediates", f"layer_{i}", features)
        return features, nn.Dense(self.classes)(features)


def classifier_extractor(real: ImageSet, test: ImageSet | None = None, seed: int = 0) -> Extractor:
    """The features of a classifier of these images, trained unless it is in the cache.

    real: with labels. Without labels of `test`, every fifth image of `real` is held out for the accuracy.
    Raises UserError as `check_labels` does.
    """
    check_labels(real, test)
    if test and test.labels is None:
        test = None
    hashes = [*real.card["sha256"].values(), *(test.card["sha256"].values() if test else ())]
    key = digest(json.dumps([VERSION, seed, STEPS, BATCH, LEARNING_RATE, WIDTHS, hashes]))
    network = FeatureClassifier(num_classes(real))
    cached = cache.load("classifier", key, shapes(network, real.images.shape[1:]))
    if cached is None:
        log.info(
            "training a classifier of %d labels for features, once for these images: %d steps of %d images, which "
            "takes minutes on CPUs",
            *(network.classes, STEPS, BATCH),
        )
        cached = _train(network, real, test, seed)
        cache.save("classifier", key, *cached)
    variables, about = cached
    function = functools.partial(_apply, network)
    return Extractor("classifier", key, function, variables, WIDTHS[-1], network.classes, about=about)


def check_labels(real: ImageSet, test: ImageSet | None = None) -> None:
    """Raises UserError unless there are labels of at least two classes, and test images, if any, of the same ones."""
    if real.labels is None or len(np.unique(real.labels)) < 2:
        found = "images without labels" if real.labels is None else "images of a single class"
        raise UserError(
            f"config.eval_features: found 'classifier' for {found}, expected labels of at least two classes (a folder "
            "for each class, idx, tfds); pass --config.eval_features=inception, a file of 96 MB that is "
            "downloaded once, or MODULE:FUNCTION, a function of your own"
        )
    if test and test.labels is not None:
        check_classes("config.data.test", real.card, test.card)


def num_classes(real: ImageSet) -> int:
    """The number of logits of the classifier of these images, which have labels."""
    assert real.labels is not None
    return int(real.labels.max()) + 1


def _apply(network: FeatureClassifier, variables: Tree, images: Array) -> tuple[Array, Array]:
    return network.apply(variables, images)  # type: ignore[return-value]


def shapes(network: FeatureClassifier, image_shape: tuple[int, ...]) -> Tree:
    """The shapes and dtypes of the network's variables, for images [H, W, C]."""
    images = jax.ShapeDtypeStruct((1, *image_shape), np.uint8)
    with shapes_alone():
        return jax.eval_shape(lambda images: network.init(jax.random.key(0), images), images)


def fit(
    network: FeatureClassifier,
    batch: Callable[[int], tuple[np.ndarray, np.ndarray]],
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    title: str,
) -> Tree:
    """The network's variables after training; the learning rate falls to zero as a cosine.

    batch: of each step, images uint8 [B, H, W, C] and labels int [B]. title: of its progress.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def initial(image: Array) -> Tree:
        with shapes_alone():
            variables = network.init(jax.random.key(seed), image)
        return variables, optimizer.init(variables["params"])

    state = jax.jit(initial, compiler_options=QUICKLY)(batch(0)[0][:1])

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=QUICKLY)
    def train_step(state: Tree, images: Array, labels: Array) -> Tree:
        variables, opt_state = state

        def loss(params: Tree) -> tuple[Array, Tree]:
            (_, logits), updated = network.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated

        gradients, updated = jax.grad(loss, has_aux=True)(variables["params"])
        updates, opt_state = optimizer.update(gradients, opt_state)
        return {"params": optax.apply_updates(variables["params"], updates), **updated}, opt_state

    for step in progress(range(steps), title, "steps", compiles=(state, batch(0))):
        state = train_step(state, *batch(step))
    return jax.device_get(state[0])


def _train(network: FeatureClassifier, real: ImageSet, test: ImageSet | None, seed: int) -> tuple[Tree, dict[str, Any]]:
    """The trained variables, and the accuracy with the images it was measured on."""
    images, labels = real.images, real.labels
    assert labels is not None
    every_index = np.arange(len(images))
    learned = every_index if test else every_index[every_index % HELD_OUT_EVERY != 0]
    held_out = test or real._replace(images=images[::HELD_OUT_EVERY], labels=labels[::HELD_OUT_EVERY])
    # Batches of indices: the images themselves are not copied.
    batches = Batches(real._replace(images=learned), BATCH, seed)

    def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = np.sort(learned[batches.indices(step)])
        return images[chosen], labels[chosen]

    variables = fit(
        network, batch, steps=STEPS, learning_rate=LEARNING_RATE, seed=seed, title="training a classifier for features"
    )
    return variables, {
        "accuracy": _accuracy(network, variables, held_out),
        "accuracy_on": "test" if test else "held out",
    }


def _accuracy(network: FeatureClassifier, variables: Tree, images: ImageSet) -> float:
    extractor = Extractor("classifier", "", functools.partial(_apply, network), variables, WIDTHS[-1])
    logits = extractor(images.images).logits
    assert logits is not None
    return float(np.mean(logits.argmax(1) == images.labels))
