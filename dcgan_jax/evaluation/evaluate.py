"""Measures samples by metrics, the same way during training and afterwards."""

import datetime
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax import data
from dcgan_jax.evaluation import extractors, metrics
from dcgan_jax.evaluation.features import Extractor, Features, Reader, extract
from dcgan_jax.evaluation.metric_names import MIN_IMAGES, MetricSpec, parse, parse_without_splits
from dcgan_jax.evaluation.moments import moments_of
from dcgan_jax.evaluation.reference import Reference
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.versions import versions

NUM_CLOSEST = 16  # samples that are shown beside their nearest training images

# One result, with everything it depends on: {'metric': 'fid10k_test', 'value': 31.2, ...}.
ResultLine = dict[str, Any]


class Evaluator:
    """Measures samples by several metrics.

    references: real images by split, 'train' and 'test', as far as the metrics need them.
    Raises UserError, before anything is computed, if a split is missing or has too few images for a metric.
    """

    def __init__(self, specs: list[MetricSpec], extractor: Extractor, references: dict[str, Reference], seed: int = 0):
        self.specs, self.extractor, self.references, self.seed = specs, extractor, references, seed
        for spec in specs:
            _check(spec, extractor, references)

    def __call__(self, read: Reader, **about: Any) -> list[ResultLine]:
        """The results for the samples that `read` returns; the same on all processes.

        Each is a line of evaluation.jsonl: `about` (such as the checkpoint's step), metric, value, further values of
        the metric, and what it was measured with.
        """
        began = time.perf_counter()
        count = max(spec.count for spec in self.specs)
        samples = extract(self.extractor, read, np.arange(count), "samples")
        results = [result for spec in self.specs for result in self._measure(spec, samples)]
        seconds = time.perf_counter() - began
        provenance = {
            "features": self.extractor.name,
            "features_sha256": self.extractor.digest,
            **self.extractor.about,
            "seed": self.seed,
            "real": {
                split: {"count": reference.count, "sha256": reference.image_set.card["sha256"]["images"]}
                for split, reference in self.references.items()
            },
            "versions": versions(),
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "images_per_sec": round(count / seconds, 1),
        }
        return [about | result | provenance for result in results]

    def _measure(self, spec: MetricSpec, samples: Features) -> list[ResultLine]:
        fake = samples.vectors[: spec.count]
        if spec.metric == "fid":
            value = metrics.frechet_distance(moments_of(fake), self.references[spec.split].moments())
            return [{"metric": spec.name, "value": value}]
        if spec.metric == "is":
            assert samples.logits is not None
            return [_with_errors(spec.name, metrics.inception_score(samples.logits[: spec.count]))]
        if spec.metric == "memorisation":
            return [{"metric": spec.name} | memorisation(fake, self.references)]
        real = self.references[spec.split].vectors(spec.count)
        if spec.metric == "kid":
            return [_with_errors(spec.name, metrics.kid(fake, real))]
        values = metrics.prdc(fake, real)
        return [
            {"metric": name, "value": value} for name, value in zip(spec.result_names, values.values(), strict=True)
        ]


def _check(spec: MetricSpec, extractor: Extractor, references: dict[str, Reference]) -> None:
    split = "train" if spec.metric == "memorisation" else spec.split
    if spec.metric == "is" and not extractor.classes:
        raise UserError(f"metrics: {spec.name} needs classes, which {extractor.name} has not")
    if not split:
        return
    if split not in references:
        raise UserError(
            f"metrics: {spec.name} needs held-out images, and there are none; name them by "
            "--config.data.test=PATH, or measure against _train"
        )
    real, name = references[split].count, f"{references[split].split} images"
    if spec.metric == "fid":
        for kind, count in (("samples", spec.count), (name, real)):
            if count <= extractor.size:
                raise UserError(
                    f"metrics: {spec.name}: found {count} {kind}, expected more than the {extractor.size} features: "
                    "with fewer, the covariance is singular, and FID depends on the number of images more than on "
                    "their quality; take kid, or other features"
                )
    if real < MIN_IMAGES[spec.metric]:
        raise UserError(
            f"metrics: {spec.name}: found {real} {name}, expected at least {MIN_IMAGES[spec.metric]}; take another "
            "measure"
        )


def _with_errors(name: str, estimate: metrics.Estimate) -> ResultLine:
    error = None if np.isnan(estimate.standard_error) else estimate.standard_error  # JSON has no NaN
    return {"metric": name, "value": estimate.value, "standard_error": error, "spread": estimate.spread}


def memorisation(fake: np.ndarray, references: dict[str, Reference]) -> ResultLine:
    """The probability that a sample is closer to the training images than another real image is.

    0.5 is ideal, near 1 the samples are copies, near 0 they are far from all images (Meehan, Chaudhuri and Dasgupta,
    "A Non-Parametric Test to Detect Data-Copying in Generative Models", 2020). The other real images are the held-out
    ones, or if there are none, each training image is compared with the rest.
    `closest`: (sample, training image, distance) of the samples that are closest to a training image.
    """
    train = references["train"].vectors(references["train"].count)
    nearest, fake_distances = metrics.nearest_neighbours(fake, train)
    if "test" in references:
        test = references["test"].vectors(references["test"].count)
        _, real_distances = metrics.nearest_neighbours(test, train)
    else:
        _, real_distances = metrics.nearest_neighbours(train, train, exclude_self=True)
    from scipy.stats import mannwhitneyu  # imported late: it takes a second, and training rarely needs it

    probability = mannwhitneyu(real_distances, fake_distances).statistic / (len(real_distances) * len(fake))
    order = np.argsort(fake_distances)[:NUM_CLOSEST]
    closest = [(int(i), int(nearest[i]), round(float(fake_distances[i]), 6)) for i in order]
    against = "test" if "test" in references else "train"
    return {"value": float(probability), "against": against, "closest": closest}


def from_config(config: ConfigDict, metrics: str, features: str, *, weights: str = "", seed: int = 0) -> Evaluator:
    """An evaluator of samples of a run with this validated configuration.

    metrics: names, as in `metric_names`. features: a name, as in `extractors`. weights: path of Inception's weights.
    Real images are prepared if necessary. Raises UserError for unknown names, or if something needed is missing.
    """
    specs = parse(metrics)
    train = data.load(config, labelled=True)
    wants_test = features == "classifier" or any(spec.split != "train" for spec in specs)
    test = data.held_out(config) if wants_test else None
    extractor = extractors.by_name(features, train, test, weights=weights)
    references = {"train": Reference(train, extractor, "train")}
    if test:
        references["test"] = Reference(test, extractor, "test")
    return Evaluator(specs, extractor, references, seed)


def from_image_sets(
    fake: data.ImageSet, real: data.ImageSet, metrics: str, features: str, *, weights: str = ""
) -> Evaluator:
    """An evaluator of one set of images against another, by metrics without splits.

    Raises UserError for unknown names, too few images, or if the features are not available.
    """
    specs = parse_without_splits(metrics, len(fake.images))
    sizes = [images.images.shape[1:] for images in (fake, real)]
    if sizes[0] != sizes[1] and features != "inception":  # which resizes
        raise UserError(
            f"--images: found generated images of {sizes[0]} and real ones of {sizes[1]}, expected one size; pass "
            "--features=inception, which resizes them, or prepare both in one size (launch/prepare.py "
            "--config=configs/folder.py --config.image_size=HEIGHT,WIDTH --config.data.path=...) and pass their folders"
        )
    extractor = extractors.by_name(features, real, weights=weights)
    return Evaluator(specs, extractor, {"train": Reference(real, extractor)})
