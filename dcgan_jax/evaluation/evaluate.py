"""Samples measured by recipes, the same way in training and afterwards, and the results written down."""

import datetime
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from scipy.stats import mannwhitneyu

from dcgan_jax import checkpoint, data
from dcgan_jax.errors import UserError
from dcgan_jax.evaluation import distances
from dcgan_jax.evaluation.extraction import Reader, extract, moments_of
from dcgan_jax.evaluation.extractors import named
from dcgan_jax.evaluation.features import Extractor, Features
from dcgan_jax.evaluation.recipes import FEWEST, Recipe, parse, parse_bare
from dcgan_jax.evaluation.reference import Reference

SHOWN = 16  # samples that are shown beside their nearest training images


# A number with what belongs to it: {'metric': 'fid10k_test', 'value': 31.2, ...}.
Line = dict[str, Any]


class Evaluator:
    """Measures samples by recipes.

    references: the real images by split, 'train' and 'test'; those that the recipes name.
    Raises UserError, before anything is computed, where a split is missing or a measure has too few images.
    """

    def __init__(self, recipes: list[Recipe], extractor: Extractor, references: dict[str, Reference], seed: int = 0):
        self.recipes, self.extractor, self.references, self.seed = recipes, extractor, references, seed
        for recipe in recipes:
            self._check(recipe)

    def __call__(self, read: Reader, **about: Any) -> list[Line]:
        """The results for samples, which `read` makes by their indices, uint8 [N, H, W, C]; alike on all processes.

        Each is a line of evaluation.jsonl: `about` (such as the checkpoint's step), metric, value, what belongs to the
        value, and by what it was measured.
        """
        began = time.perf_counter()
        count = max(recipe.count for recipe in self.recipes)
        samples = extract(self.extractor, read, np.arange(count), "samples")
        found = [line for recipe in self.recipes for line in self._measure(recipe, samples)]
        seconds = time.perf_counter() - began
        extractor = self.extractor
        by = {
            "features": extractor.name,
            "features_sha256": extractor.digest,
            **extractor.about,
            "seed": self.seed,
            "real": {
                split: {"count": reference.count, "sha256": reference.image_set.card["sha256"]["images"]}
                for split, reference in self.references.items()
            },
            "versions": checkpoint.versions(),
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "images_per_sec": round(count / seconds, 1),
        }
        return [about | line | by for line in found]

    def _measure(self, recipe: Recipe, samples: Features) -> list[Line]:
        fake = samples.vectors[: recipe.count]
        if recipe.metric == "fid":
            value = distances.frechet(moments_of(fake), self.references[recipe.split].moments())
            return [{"metric": recipe.name, "value": value}]
        if recipe.metric == "is":
            assert samples.logits is not None
            return [_estimated(recipe.name, distances.inception_score(samples.logits[: recipe.count]))]
        if recipe.metric == "memorisation":
            return [{"metric": recipe.name} | memorisation(fake, self.references)]
        real = self.references[recipe.split].vectors(recipe.count)
        if recipe.metric == "kid":
            return [_estimated(recipe.name, distances.kernel(fake, real))]
        values = distances.precision_recall(fake, real)
        return [{"metric": name, "value": value} for name, value in zip(recipe.values, values.values(), strict=True)]

    def _check(self, recipe: Recipe) -> None:
        split = "train" if recipe.metric == "memorisation" else recipe.split
        if recipe.metric == "is" and not self.extractor.classes:
            raise UserError(f"metrics: {recipe.name} needs classes, which {self.extractor.name} has not")
        if not split:
            return
        if split not in self.references:
            raise UserError(
                f"metrics: {recipe.name} needs held-out images, and there are none; name them by "
                "--config.data.test=PATH, or measure against _train"
            )
        if recipe.metric == "fid":
            for kind, count in (
                ("samples", recipe.count),
                (f"{self.references[split].split} images", self.references[split].count),
            ):
                if count <= self.extractor.size:
                    raise UserError(
                        f"metrics: {recipe.name}: found {count} {kind}, expected more than the {self.extractor.size} "
                        "features: the covariance of fewer is singular, and the distance says more of their number "
                        "than of the images; take kid, or other features"
                    )
        if self.references[split].count < FEWEST[recipe.metric]:
            raise UserError(
                f"metrics: {recipe.name}: found {self.references[split].count} {self.references[split].split} images, "
                f"expected at least {FEWEST[recipe.metric]}; take another measure"
            )


def _estimated(name: str, estimate: distances.Estimate) -> Line:
    error = None if np.isnan(estimate.standard_error) else estimate.standard_error  # JSON has no NaN
    return {"metric": name, "value": estimate.value, "standard_error": error, "spread": estimate.spread}


def memorisation(fake: np.ndarray, references: dict[str, Reference]) -> Line:
    """The probability that a sample lies nearer to the training images than a real image that is not among them.

    A half for samples as new as those; near one for copies, near zero for samples that are far from all images (the
    statistic of Meehan, Chaudhuri and Dasgupta, "A Non-Parametric Test to Detect Data-Copying in Generative Models",
    2020). The other real images are the held-out ones, or where there are none each training image against the rest.
    `closest`: of the samples nearest to a training image, sample, image and distance.
    """
    train = references["train"].vectors(references["train"].count)
    nearest, distances_of_fake = distances.nearest(fake, train)
    if "test" in references:
        _, distances_of_real = distances.nearest(references["test"].vectors(references["test"].count), train)
    else:
        _, distances_of_real = distances.nearest(train, train, apart=True)
    farther = mannwhitneyu(distances_of_real, distances_of_fake).statistic / (len(distances_of_real) * len(fake))
    order = np.argsort(distances_of_fake)[:SHOWN]
    closest = [(int(i), int(nearest[i]), round(float(distances_of_fake[i]), 6)) for i in order]
    against = "test" if "test" in references else "train"
    return {"value": float(farther), "against": against, "closest": closest}


def from_config(config: ConfigDict, metrics: str, features: str, *, weights: str = "", seed: int = 0) -> Evaluator:
    """What measures the samples of a run with this validated configuration, by recipes and features of these names.

    Raises UserError where a name is none, or what it needs cannot be had; real images are prepared if need be.
    """
    recipes = parse(metrics)
    train = data.load(config, labelled=True)
    wants_test = features == "classifier" or any(recipe.split != "train" for recipe in recipes)
    test = data.held_out(config) if wants_test else None
    extractor = named(features, train, test, weights=weights)
    references = {"train": Reference(train, extractor, "train")}
    if test:
        references["test"] = Reference(test, extractor, "test")
    return Evaluator(recipes, extractor, references, seed)


def of_images(fake: data.ImageSet, real: data.ImageSet, metrics: str, features: str, *, weights: str = "") -> Evaluator:
    """What measures one set of images against another, by recipes without splits.

    Raises UserError where a name is none, there are too few images, or the features cannot be had.
    """
    recipes = parse_bare(metrics, len(fake.images))
    sizes = [images.images.shape[1:] for images in (fake, real)]
    if sizes[0] != sizes[1] and features != "inception":  # which takes any
        raise UserError(
            f"--images: found generated images of {sizes[0]} and real ones of {sizes[1]}, expected one size"
        )
    extractor = named(features, real, weights=weights)
    return Evaluator(recipes, extractor, {"train": Reference(real, extractor)})
