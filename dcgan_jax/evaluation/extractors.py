"""Extractors by the names that flags and configurations use."""

import functools
import importlib
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dcgan_jax.data import ImageSet
from dcgan_jax.evaluation import feature_classifier, inception, inception_weights
from dcgan_jax.evaluation.features import Extractor
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import digest

NAMES = ("inception", "classifier", "MODULE:FUNCTION")
NUM_PROBED = 8  # real images that tell a user's function from another one of the same name

# uint8 [B, H, W, C] -> features [B, F], or features and logits [B, K].
UsersFunction = Callable[[Any], Any]


class Choice(NamedTuple):
    """Features of a known length, `size`, with logits of `classes` (0: none); `make` may take minutes."""

    name: str
    size: int
    classes: int
    make: Callable[[], Extractor]


def check_name(name: str) -> None:
    """Raises UserError for features that are not known, or cannot be imported."""
    if name not in ("inception", "classifier"):
        _imported(name)


def find_weights(name: str, weights: str = "", channels: int = 3) -> None:
    """Finds, or downloads, what features of this name need of images with so many channels.

    Raises UserError if that fails, or if there are no such features.
    """
    check_channels(name, channels)
    if name == "inception":
        inception_weights.find(weights or None)


def check_channels(name: str, channels: int) -> None:
    """Raises UserError unless features of this name are of images with so many channels."""
    if name == "inception" and channels not in (1, 3):
        raise UserError(
            f"config.eval_features: found 'inception' for images of {channels} channels, expected images of 1 or 3; "
            "pass --config.eval_features=MODULE:FUNCTION, features of your own, or classifier if there are labels"
        )


def choose(name: str, train: ImageSet, test: ImageSet | None = None, *, weights: str = "") -> Choice:
    """The features with a name of `NAMES`: Inception's, of a classifier of these images, or by the user's function.

    train, test: real images. weights: path of Inception's weights, '' to look for them.
    Raises UserError for an unknown name, or if these images cannot be measured by them.
    """
    check_channels(name, train.images.shape[-1])
    if name == "inception":
        others = inception_weights.OWN if train.labels is None else inception_weights.OTHERS
        return Choice(
            name,
            inception.FEATURES,
            inception.CLASSES,
            lambda: inception_weights.inception_extractor(weights or None, others),
        )
    if name == "classifier":
        feature_classifier.check_labels(train, test)
        size, classes = feature_classifier.WIDTHS[-1], feature_classifier.num_classes(train)
        return Choice(name, size, classes, lambda: feature_classifier.classifier_extractor(train, test))
    function, images = _imported(name), np.asarray(train.images[:NUM_PROBED])
    size, classes = _sizes(function, name, images.shape)
    return Choice(name, size, classes, lambda: from_function(function, name, images))


def by_name(name: str, train: ImageSet, test: ImageSet | None = None, *, weights: str = "") -> Extractor:
    """The extractor that `choose` gives."""
    return choose(name, train, test, weights=weights).make()


def from_function(function: UsersFunction, name: str, images: np.ndarray) -> Extractor:
    """An extractor from a user's function: uint8 [B, H, W, C] to float [B, F], or to (that, logits [B, K]).

    JAX must be able to trace it. images: a few, uint8 [N, H, W, C]; the hash of their features tells the function
    from another one of the same name. Raises UserError if the function fails, or its result has a wrong shape.
    """
    size, classes = _sizes(function, name, images.shape)

    def with_logits(variables: Any, images: Any) -> tuple[Any, Any]:
        result = function(images)
        return result if isinstance(result, tuple) else (result, None)

    vectors, logits = _result(lambda: with_logits({}, jnp.asarray(images)), name)
    results = [np.asarray(vectors)] + ([] if logits is None else [np.asarray(logits)])
    # For all that is known it resizes images as Inception does, which takes as much memory.
    resized = (inception.SIDE, inception.SIDE)
    return Extractor(name, digest(name, *results), with_logits, {}, size, classes, resized=resized)


def _imported(name: str) -> UsersFunction:
    module, colon, function_name = name.partition(":")
    if not colon:
        raise UserError(f"config.eval_features: found {name!r}, expected one of {', '.join(NAMES)}")
    try:
        function = getattr(importlib.import_module(module), function_name)
    except Exception as error:  # a user's module may raise anything
        raise UserError(
            f"config.eval_features: {name!r} cannot be imported ({_reason(error)}); check the name and PYTHONPATH"
        ) from error
    if not callable(function):
        raise UserError(f"config.eval_features: {name!r} is {type(function).__name__}, expected a function of images")
    return function


def _sizes(function: UsersFunction, name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """The length of the function's features, and the number of its classes or 0, by a trace that computes nothing.

    shape: of images [N, H, W, C]; as many as an extractor passes at a time are tried too.
    """
    for count in (shape[0], Extractor.chunk):
        images = jax.ShapeDtypeStruct((count, *shape[1:]), np.uint8)
        result = _result(functools.partial(jax.eval_shape, function, images), name)
        parts = result if isinstance(result, tuple) else (result,)
        fits = [
            isinstance(part, jax.ShapeDtypeStruct)
            and len(part.shape) == 2
            and part.shape[0] == count
            and part.shape[1] > 0
            and (jnp.issubdtype(part.dtype, jnp.floating) or jnp.issubdtype(part.dtype, jnp.integer))
            for part in parts
        ]
        if not all(fits) or len(fits) not in (1, 2):
            found = ", ".join(f"{part.dtype} {part.shape}" if hasattr(part, "shape") else repr(part) for part in parts)
            raise UserError(
                f"config.eval_features: {name!r} gave {found or 'nothing'} for uint8 {images.shape}, expected "
                f"({count}, F), or with logits (({count}, F), ({count}, K)), of numbers"
            )
    return parts[0].shape[1], parts[1].shape[1] if len(parts) == 2 else 0


def _result(compute: Callable[[], Any], name: str) -> Any:
    try:
        return compute()
    except Exception as error:  # a user's function may raise anything
        raise UserError(
            f"config.eval_features: {name!r} fails ({_reason(error)}), expected a function of uint8 [B, H, W, C] that "
            "JAX can trace"
        ) from error


def _reason(error: Exception) -> str:
    """The kind of an error, the first line of its text, and the line of the user's code that raised it."""
    text = (str(error).strip().splitlines() or [""])[0]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and not any(part in frame.filename for part in ("site-packages", "importlib"))
    ]
    where = f", {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {text}{where}"
