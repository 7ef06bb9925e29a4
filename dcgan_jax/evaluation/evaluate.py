"""Measures samples by metrics, the same way during training and afterwards."""

import datetime
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax import data
from dcgan_jax.evaluation import counts, extractors, metrics
from dcgan_jax.evaluation.extractors import Choice
from dcgan_jax.evaluation.features import Extractor, Features, NotFinite, Reader, extract
from dcgan_jax.evaluation.metric_names import MetricSpec, parse, parse_without_splits
from dcgan_jax.evaluation.moments import moments_of
from dcgan_jax.evaluation.reference import Reference
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.versions import versions

NUM_CLOSEST = 16  # samples that are shown beside their nearest training images

# One result, with everything it depends on: {'metric': 'fid10k_test', 'value': 31.2, ...}.
ResultLine = dict[str, Any]


class Evaluator:
    """Measures samples by several metrics.

    references: real images by split, 'train' and 'test', as far as the metrics need them; enough for each.
    """

    def __init__(self, specs: list[MetricSpec], extractor: Extractor, references: dict[str, Reference], seed: int = 0):
        self.specs, self.extractor, self.references, self.seed = specs, extractor, references, seed

    def __call__(self, read: Reader, **about: Any) -> list[ResultLine]:
        """The results for the samples that `read` returns; the same on all processes.

        Each is a line of evaluation.jsonl: `about` (such as the checkpoint's step), metric, value, further values of
        the metric, and what it was measured with. Raises NotFinite if a value or the features are not finite.
        """
        began = time.perf_counter()
        count = max(spec.count for spec in self.specs)
        samples = extract(self.extractor, read, np.arange(count), "samples")
        results = [result for spec in self.specs for result in self._measure(spec, samples)]
        for result in results:
            _check_finite(result, self.extractor.name)
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


def check_names(metrics: str, features: str, *, splits: bool = True) -> list[MetricSpec]:
    """The metrics by these names, as `from_config` takes them, or without `splits` as `from_image_sets` does.

    Raises UserError, before there are images, for unknown names of metrics or features.
    """
    specs = parse(metrics) if splits else parse_without_splits(metrics)
    extractors.check_name(features)
    return specs


def check_counts(
    specs: list[MetricSpec], choice: Choice | Extractor, real: dict[str, int], samples: int | None = None
) -> None:
    """Raises UserError if a metric has too few images (`counts`), no held-out images, or no classes."""
    for spec in specs:
        if spec.metric == "is" and not choice.classes:
            raise UserError(
                f"config.eval_metrics: {spec.name} needs classes, of which {choice.name} gives no logits; pass "
                "--config.eval_features=inception, or another measure"
            )
        if spec.split and spec.split not in real:
            raise UserError(
                f"config.eval_metrics: {spec.name} needs held-out images, and there are none; measure "
                "against _train, or name them by --config.data.test=PATH"
            )
    counts.check(specs, real, choice.size, samples=samples)


def _check_finite(result: ResultLine, features: str) -> None:
    numbers = [result[name] for name in ("value", "standard_error", "spread") if result.get(name) is not None]
    if not np.isfinite(numbers).all():
        raise NotFinite(
            f"config.eval_metrics: {result['metric']} is {result['value']} by the features {features}, expected a "
            "finite number; take other features, or another measure"
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
    Real images are prepared if necessary. Raises UserError for unknown names, if something needed is missing, or if
    there are too few images, before features are learned or computed.
    """
    specs = check_names(metrics, features)
    train = data.load(config, labelled=True)
    wants_test = features == "classifier" or any(spec.split != "train" for spec in specs)
    test = data.held_out(config) if wants_test else None
    sets = {"train": train} | ({"test": test} if test else {})
    choice = extractors.choose(features, train, test, weights=weights)
    check_counts(specs, choice, {split: len(images.images) for split, images in sets.items()})
    extractor = choice.make()
    names = {"train": "training images", "test": "held-out images"}
    references = {split: Reference(images, extractor, names[split]) for split, images in sets.items()}
    return Evaluator(specs, extractor, references, seed)


def from_image_sets(
    fake: data.ImageSet, real: data.ImageSet, metrics: str, features: str, *, weights: str = ""
) -> Evaluator:
    """An evaluator of one set of images against another, by metrics without splits.

    Raises UserError, before anything is computed, for unknown names, too few images, or if the features are not
    available.
    """
    specs = parse_without_splits(metrics, len(fake.images))
    sizes = [images.images.shape[1:] for images in (fake, real)]
    for size in sizes:
        extractors.check_channels(features, size[-1])
    if sizes[0] != sizes[1] and features != "inception":  # which resizes
        measurable = all(size[-1] in (1, 3) for size in sizes)
        resizing = "pass --features=inception, which resizes them, or " if measurable else ""
        raise UserError(
            f"--images: found generated images of {sizes[0]} and real ones of {sizes[1]}, expected one size; "
            f"{resizing}prepare both in one size (python launch/prepare.py --config=configs/folder.py "
            "--config.image_size=HEIGHT,WIDTH --config.channels=C --config.data.path=...) and pass their folders"
        )
    choice = extractors.choose(features, real, weights=weights)
    check_counts(specs, choice, {"train": len(real.images)}, samples=len(fake.images))
    extractor = choice.make()
    return Evaluator(specs, extractor, {"train": Reference(real, extractor)})
