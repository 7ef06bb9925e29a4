"""Extractors by the names that commands and configurations give them."""

import importlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from dcgan_jax.data import ImageSet
from dcgan_jax.errors import UserError
from dcgan_jax.evaluation.classifier import classifier
from dcgan_jax.evaluation.features import Extractor, digest
from dcgan_jax.evaluation.weights import inception_extractor

NAMES = ("inception", "classifier", "MODULE:FUNCTION")


def named(name: str, train: ImageSet, test: ImageSet | None = None, *, weights: str = "") -> Extractor:
    """'inception' (its weights' file may be given), 'classifier' of these images, or a function of the user's.

    Raises UserError for another name, or where the extractor cannot be had.
    """
    if name == "inception":
        return inception_extractor(weights or None)
    if name == "classifier":
        return classifier(train, test)
    module, colon, function = name.partition(":")
    if not colon:
        raise UserError(f"features: found {name!r}, expected one of {', '.join(NAMES)}")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"features: {name!r} cannot be imported ({error}); check the name and PYTHONPATH") from error
    return own(found, name, np.asarray(train.images[:8]))


def own(function: Any, name: str, images: np.ndarray) -> Extractor:
    """A function of the user's: uint8 [B, H, W, C] to float [B, F], or to that and logits [B, K]; JAX must trace it.

    images: some, uint8 [N, H, W, C]: what it makes of them tells it from others of its name.
    """

    def pair(variables: Any, images: Any) -> tuple[Any, Any]:
        found = function(images)
        return found if isinstance(found, tuple) else (found, None)

    vectors, logits = pair({}, jnp.asarray(images))
    if vectors.ndim != 2 or len(vectors) != len(images):
        raise UserError(f"features: {name!r} gave {vectors.shape} for {images.shape}, expected ({len(images)}, F)")
    parts = [np.asarray(vectors)] + ([] if logits is None else [np.asarray(logits)])
    classes = 0 if logits is None else logits.shape[1]
    return Extractor(name, digest(name, *parts), pair, {}, vectors.shape[1], classes)
