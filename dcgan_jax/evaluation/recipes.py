"""The names of measures: a name fixes the recipe, so that two numbers of one name can be compared.

    fid50k_train   FID of 50,000 samples against all training images
    fid10k_test    FID of 10,000 samples against all held-out images
    kid50k_train   KID of 50,000 samples against 50,000 training images, or all if they are fewer
    is50k          Inception score of 50,000 samples
    prdc10k_train  precision, recall, density and coverage of 10,000 samples against as many training images
    memorisation10k  how near 10,000 samples lie to the training images, against held-out or other training images

The number may be any. Which features they are taken on is told beside each result.
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

from dcgan_jax.errors import UserError
from dcgan_jax.evaluation.distances import KID_SUBSET, NEIGHBOURHOOD, SCORE_SPLITS

# Fewest images of each kind, whatever the features.
FEWEST = {"fid": 2, "kid": KID_SUBSET, "is": SCORE_SPLITS, "prdc": NEIGHBOURHOOD + 1, "memorisation": 2}
PRDC = ("precision", "recall", "density", "coverage")


@dataclass(frozen=True)
class Recipe:
    """One measure: name, what is measured, of how many samples, and against which images ('train', 'test' or '')."""

    name: str
    metric: str
    count: int
    split: str

    @property
    def values(self) -> tuple[str, ...]:
        """The names of its results, such as fid10k_test; four for prdc10k_train: precision10k_train, ..."""
        rest = self.name.removeprefix(self.metric)
        return tuple(f"{part}{rest}" for part in PRDC) if self.metric == "prdc" else (self.name,)


def parse(names: str) -> list[Recipe]:
    """The recipes of a list such as 'fid50k_train,prdc10k_train'. Raises UserError for a name that is none."""
    return _each_once(names, _of_run)


def parse_bare(names: str, count: int) -> list[Recipe]:
    """The recipes of a list such as 'fid,kid10k', for `count` images against others: there are no splits.

    Raises UserError for a name that is none, or that needs more images than there are.
    """

    def one(name: str) -> Recipe:
        match = re.fullmatch(r"(fid|kid|is|prdc|memorisation)(?:(\d+)(k?))?", name)
        if not match:
            raise UserError(
                f"metrics: {name!r} is no measure of two sets of images, expected such as fid, fid10k, prdc10k"
            )
        metric, digits, thousands = match.groups()
        wanted = _count(name, metric, digits, thousands) if digits else count
        if wanted > count:
            raise UserError(
                f"metrics: {name}: found {count} images, expected at least {wanted}; give more, or take {metric}"
            )
        return Recipe(name, metric, wanted, "" if metric in ("is", "memorisation") else "train")

    return _each_once(names, one)


def _each_once(names: str, one: Callable[[str], Recipe]) -> list[Recipe]:
    found = [one(name.strip()) for name in names.split(",") if name.strip()]
    if not found:
        raise UserError("metrics: found none, expected names such as fid10k_train,prdc10k_train")
    if len(set(found)) < len(found):
        raise UserError(f"metrics: found a name twice in {names!r}, expected each once")
    return found


def _of_run(name: str) -> Recipe:
    match = re.fullmatch(r"(fid|kid|is|prdc|memorisation)(\d+)(k?)(?:_(train|test))?", name)
    if not match:
        known = ["fid50k_train", "fid10k_test", "kid50k_train", "is50k", "prdc10k_train", "memorisation10k"]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0) or known[:1]
        raise UserError(f"metrics: {name!r} is no measure; did you mean {close[0]}? ({', '.join(known)}, any number)")
    metric, digits, thousands, split = match.groups()
    count = _count(name, metric, digits, thousands)
    if metric in ("is", "memorisation") and split:
        raise UserError(f"metrics: found {name!r}, expected {name.removesuffix(f'_{split}')}")
    if metric in ("fid", "kid", "prdc") and not split:
        raise UserError(f"metrics: found {name!r}, expected {name}_train or {name}_test: what it is measured against")
    return Recipe(name, metric, count, split or "")


def _count(name: str, metric: str, digits: str, thousands: str) -> int:
    count = int(digits) * (1000 if thousands else 1)
    if count < FEWEST[metric]:
        raise UserError(f"metrics: found {name!r}, expected at least {FEWEST[metric]} samples for {metric}")
    return count
