"""Whether there are enough images for a metric, and if not, what to do or what to measure instead."""

from collections.abc import Iterable, Mapping

from dcgan_jax.evaluation.metric_names import MIN_IMAGES, MetricSpec
from dcgan_jax.runtime.errors import UserError

IMAGES_OF = {"train": "training images", "test": "held-out images"}
# Measures to take instead, the first ones first.
ALTERNATIVES = ("fid", "kid", "prdc", "memorisation")


def check(specs: Iterable[MetricSpec], real: Mapping[str, int], features: int, *, samples: int | None = None) -> None:
    """Raises UserError, with advice that works, for the first metric that has too few images.

    real: the number of real images by split. features: numbers in a feature vector. samples: the number of generated
    images that there are, of which the metric takes `spec.count`; None if any number of them can be made.
    """
    for spec in specs:
        split, least = _split(spec), _least(spec.metric, features)
        expected = f"more than the {features} features" if spec.metric == "fid" else f"at least {least}"
        counts = {"generated images": spec.count}
        if samples is not None and samples < spec.count:
            least, expected = spec.count, f"at least {spec.count}"
            counts = {"generated images": samples}
        if split:
            counts["real images" if samples is not None else IMAGES_OF[split]] = real[split]
        for kind, count in counts.items():
            if count < least:
                raise UserError(
                    f"config.eval_metrics: {spec.name}: found {count} {kind}, expected {expected}; "
                    f"{_advice(spec, real, features, samples)}"
                )


def _split(spec: MetricSpec) -> str:
    return "train" if spec.metric == "memorisation" else spec.split


def _least(metric: str, features: int) -> int:
    """The least number of images of each kind.

    With no more than the features, the covariance is singular, and FID depends on their number more than on their
    quality.
    """
    return max(MIN_IMAGES[metric], features + 1) if metric == "fid" else MIN_IMAGES[metric]


def _advice(spec: MetricSpec, real: Mapping[str, int], features: int, samples: int | None) -> str:
    least, split = _least(spec.metric, features), _split(spec)
    if samples is None and (not split or real[split] >= least):
        return f"ask for more, such as {spec.metric}{least}{spec.split and '_' + spec.split}"
    if samples is not None and samples >= least and (not split or real[split] >= least):
        return f"take {spec.metric}, which uses all {samples}"
    split = split or "train"
    possible = [
        metric
        for metric in ALTERNATIVES
        if real["train" if metric == "memorisation" else split] >= _least(metric, features)
        and (samples is None or samples >= _least(metric, features))
    ]
    if samples is None:
        names = [
            f"{metric}{max(spec.count, _least(metric, features))}{'' if metric == 'memorisation' else '_' + split}"
            for metric in possible
        ]
    else:
        names = possible
    return f"give more images, or take {' or '.join(names)}" if names else "give more images"
