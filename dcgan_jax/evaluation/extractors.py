"""Extractors by the names that flags and configurations use."""

import importlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from dcgan_jax.data import ImageSet
from dcgan_jax.evaluation.feature_classifier import classifier_extractor
from dcgan_jax.evaluation.features import Extractor
from dcgan_jax.evaluation.inception_weights import inception_extractor
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.files import digest

NAMES = ("inception", "classifier", "MODULE:FUNCTION")


def by_name(name: str, train: ImageSet, test: ImageSet | None = None, *, weights: str = "") -> Extractor:
    """The extractor with a name of `NAMES`: Inception, a classifier of these images, or the user's own function.

    train, test: real images. weights: path of Inception's weights, '' to look for them.
    Raises UserError for an unknown name, or if the extractor is not available.
    """
    if name == "inception":
        return inception_extractor(weights or None)
    if name == "classifier":
        return classifier_extractor(train, test)
    module, colon, function_name = name.partition(":")
    if not colon:
        raise UserError(f"features: found {name!r}, expected one of {', '.join(NAMES)}")
    try:
        function = getattr(importlib.import_module(module), function_name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"features: {name!r} cannot be imported ({error}); check the name and PYTHONPATH") from error
    return from_function(function, name, np.asarray(train.images[:8]))


def from_function(function: Any, name: str, images: np.ndarray) -> Extractor:
    """An extractor from a user's function: uint8 [B, H, W, C] to float [B, F], or to (that, logits [B, K]).

    JAX must be able to trace it. images: a few, uint8 [N, H, W, C]; the hash of their features tells the function
    from another one of the same name. Raises UserError if the result has a wrong shape.
    """

    def with_logits(variables: Any, images: Any) -> tuple[Any, Any]:
        result = function(images)
        return result if isinstance(result, tuple) else (result, None)

    vectors, logits = with_logits({}, jnp.asarray(images))
    if vectors.ndim != 2 or len(vectors) != len(images):
        raise UserError(f"features: {name!r} gave {vectors.shape} for {images.shape}, expected ({len(images)}, F)")
    results = [np.asarray(vectors)] + ([] if logits is None else [np.asarray(logits)])
    classes = 0 if logits is None else logits.shape[1]
    return Extractor(name, digest(name, *results), with_logits, {}, vectors.shape[1], classes)
