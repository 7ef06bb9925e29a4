"""Names of metrics. A name fixes the protocol, so that two numbers with the same name can be compared.

    fid50k_train     FID of 50,000 samples against all training images
    fid10k_test      FID of 10,000 samples against all held-out images
    kid50k_train     KID of 50,000 samples against 50,000 training images, or all if there are fewer
    is50k            Inception score of 50,000 samples
    prdc10k_train    precision, recall, density and coverage of 10,000 samples against as many training images
    memorisation10k  whether 10,000 samples are closer to the training images than other real images are

The number may be any. The features that a metric is computed on are part of each result.
"""

import difflib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

from dcgan_jax.evaluation.metrics import DENSITY_NEIGHBOUR, KID_SUBSET_SIZE, SCORE_PARTS
from dcgan_jax.runtime.errors import UserError

# The least number of images of each kind, whatever the features; FID needs more than these (`counts`).
MIN_IMAGES = {
    "fid": 2,
    "kid": KID_SUBSET_SIZE,
    "is": SCORE_PARTS,
    "prdc": DENSITY_NEIGHBOUR + 1,
    "memorisation": 2,
}
ALONE = ("is", "memorisation")  # whose names have no split: they need no real images, or all of them
MAX_SAMPLES = 10_000_000  # their features are held in memory
_METRIC = "|".join(MIN_IMAGES)
PRDC_NAMES = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class MetricSpec:
    """What a metric's name stands for.

    name: such as fid10k_test. metric: a key of `MIN_IMAGES`. count: number of samples.
    split: the real images, 'train' or 'test', or '' if the metric needs none or all of them.
    """

    name: str
    metric: str
    count: int
    split: str

    @property
    def result_names(self) -> tuple[str, ...]:
        """The names of its results: its own, or precision10k_train, recall10k_train, ... for prdc10k_train."""
        rest = self.name.removeprefix(self.metric)
        return tuple(f"{part}{rest}" for part in PRDC_NAMES) if self.metric == "prdc" else (self.name,)


def parse(names: str) -> list[MetricSpec]:
    """The metrics in a list such as 'fid50k_train,prdc10k_train'. Raises UserError for an unknown name."""
    return _parse_list(names, _parse_name)


def parse_without_splits(names: str, count: int = sys.maxsize) -> list[MetricSpec]:
    """The metrics in a list such as 'fid,kid10k', for images against one set of others. Raises UserError if unknown.

    count: the number of images, of metrics whose names have none; by default not known as yet.
    """

    def parse_name(name: str) -> MetricSpec:
        match = re.fullmatch(rf"({_METRIC})(?:(\d{{1,9}})(k?))?", name)
        if not match:
            raise UserError(
                f"config.eval_metrics: {name!r} is no measure of two sets of images, expected such as fid, fid10k, "
                "prdc10k"
            )
        metric, digits, thousands = match.groups()
        wanted = _count(name, metric, digits, thousands) if digits else count
        return MetricSpec(name, metric, wanted, "" if metric in ALONE else "train")

    return _parse_list(names, parse_name)


def _parse_list(names: str, parse_name: Callable[[str], MetricSpec]) -> list[MetricSpec]:
    specs = [parse_name(name.strip()) for name in names.split(",") if name.strip()]
    if not specs:
        raise UserError("config.eval_metrics: found none, expected names such as fid10k_train,prdc10k_train")
    if len(set(specs)) < len(specs):
        raise UserError(f"config.eval_metrics: found a name twice in {names!r}, expected each once")
    return specs


def _parse_name(name: str) -> MetricSpec:
    match = re.fullmatch(rf"({_METRIC})(\d{{1,9}})(k?)(?:_(train|test))?", name)
    if not match:
        known = ["fid50k_train", "fid10k_test", "kid50k_train", "is50k", "prdc10k_train", "memorisation10k"]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0) or known[:1]
        raise UserError(
            f"config.eval_metrics: {name!r} is no measure; did you mean {close[0]}? ({', '.join(known)}, any number)"
        )
    metric, digits, thousands, split = match.groups()
    count = _count(name, metric, digits, thousands)
    if metric in ALONE and split:
        raise UserError(f"config.eval_metrics: found {name!r}, expected {name.removesuffix(f'_{split}')}")
    if metric not in ALONE and not split:
        raise UserError(
            f"config.eval_metrics: found {name!r}, expected {name}_train or {name}_test: what it is measured against"
        )
    return MetricSpec(name, metric, count, split or "")


def _count(name: str, metric: str, digits: str, thousands: str) -> int:
    count = int(digits) * (1000 if thousands else 1)
    if not MIN_IMAGES[metric] <= count <= MAX_SAMPLES:
        bound = f"at least {MIN_IMAGES[metric]}" if count < MIN_IMAGES[metric] else f"at most {MAX_SAMPLES}"
        # FID needs more than there are features, which names do not tell.
        others = [other for other, least in MIN_IMAGES.items() if least <= count <= MAX_SAMPLES and other != "fid"]
        instead = f"; {count} are enough for {', '.join(others)}" if others else ""
        raise UserError(f"config.eval_metrics: found {name!r}, expected {bound} samples for {metric}{instead}")
    return count
