"""Names of metrics."""

import contextlib
import functools
import itertools
import re

import pytest

from dcgan_jax.evaluation import counts, metric_names
from dcgan_jax.runtime.errors import UserError


def test_a_name_fixes_the_protocol():
    specs = metric_names.parse("fid50k_train, kid1000_test,is5k,prdc10k_train")
    assert [(spec.metric, spec.count, spec.split) for spec in specs] == [
        ("fid", 50_000, "train"),
        ("kid", 1000, "test"),
        ("is", 5000, ""),
        ("prdc", 10_000, "train"),
    ]
    assert specs[3].result_names == ("precision10k_train", "recall10k_train", "density10k_train", "coverage10k_train")
    assert specs[0].result_names == ("fid50k_train",)


def test_two_sets_of_images_have_no_splits():
    specs = metric_names.parse_without_splits("fid,kid2k,memorisation", 3000)
    assert [(spec.metric, spec.count) for spec in specs] == [("fid", 3000), ("kid", 2000), ("memorisation", 3000)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("", "found none"),
        ("fid", "did you mean fid"),
        ("fid50k", "fid50k_train or fid50k_test"),
        ("is50k_train", "expected is50k"),
        ("kid500_train", "at least 1000 samples for kid; 500 are enough for is, prdc, memorisation"),
        ("prdc5_train", "at least 6"),
        ("is9", "at least 10"),
        ("fid99999k_train", "at most 10000000"),
        ("fid" + "9" * 5000 + "_train", "is no measure"),
        ("fdi50k_train", "did you mean fid50k_train"),
        ("fid10k_train,fid10k_train", "twice"),
    ],
)
def test_mistakes_are_named(names, expected):
    with pytest.raises(UserError, match=expected):
        metric_names.parse(names)


def test_mistakes_with_two_sets_are_named():
    with pytest.raises(UserError, match="no measure of two"):
        metric_names.parse_without_splits("fid_train")


NAMES_WITHOUT_SPLITS = ("fid", "kid", "is", "prdc", "memorisation", "fid20", "kid1k", "is10", "prdc6", "prdc10k")


@pytest.mark.parametrize("features", [1, 16, 192, 2048])
def test_advice_for_too_few_images_leads_to_something_that_works(features):
    """Of two sets of any numbers of images; of a run, which can make any number of samples, with any number of them."""
    followed = 0
    for fake, real in itertools.product((1, 2, 5, 6, 17, 192, 1000, 3000), repeat=2):
        parse = functools.partial(metric_names.parse_without_splits, count=fake)
        for name in NAMES_WITHOUT_SPLITS:
            followed += _follow(name, parse, {"train": real}, features, fake)
        for name in ("fid2_train", "fid2k_test", "kid1000_test", "is10", "prdc6_test", "memorisation2"):
            followed += _follow(name, metric_names.parse, {"train": real, "test": fake}, features, None)
    assert followed > 500


def _follow(name, parse, real, features, samples):
    """Checks a measure and, if there are too few images, all that the error advises; returns how many these are."""
    try:
        counts.check(parse(name), real, features, samples=samples)
    except UserError as error:
        advice = str(error).rpartition("; ")[2]
        others = re.findall(r"\b(?:fid|kid|is|prdc|memorisation)(?:\d+k?)?(?:_\w+)?\b", advice)
        for other in others:
            counts.check(parse(other), real, features, samples=samples)
        return len(others)
    return 0


@pytest.mark.parametrize(
    ("name", "fake", "real", "told"),
    [
        ("fid", 192, 192, "found 192 generated images, expected more than the 192 features; .* take prdc or memor"),
        ("kid", 192, 192, "found 192 generated images, expected at least 1000; give more images, or take prdc or"),
        ("kid", 500, 400, "found 500 generated images, expected at least 1000; give more images, or take fid or"),
        ("prdc", 5, 8, "found 5 generated images, expected at least 6; give more images, or take memorisation"),
        ("prdc", 8, 5, "found 5 real images, expected at least 6"),
        ("is", 5, 2, "found 5 generated images, expected at least 10"),
        ("memorisation", 1, 1, "found 1 generated images, expected at least 2; give more images$"),
        ("kid10k", 500, 5000, "found 500 generated images, expected at least 10000; give more images, or take fid"),
        ("fid10k", 3000, 3000, "found 3000 generated images, expected at least 10000; take fid, which uses all 3000"),
        ("prdc", 6, 6, ""),
        ("is", 10, 1, ""),
        ("fid", 193, 193, ""),
        ("kid", 1000, 1000, ""),
    ],
)
def test_too_few_images_of_two_sets(name, fake, real, told):
    specs = metric_names.parse_without_splits(name, fake)
    with pytest.raises(UserError, match=told) if told else contextlib.nullcontext():
        counts.check(specs, {"train": real}, 192, samples=fake)


def test_too_few_images_of_a_run():
    real = {"train": 300, "test": 100}
    with pytest.raises(UserError, match=r"found 100 generated images, expected more .*; ask for more.* fid193_train$"):
        counts.check(metric_names.parse("fid100_train"), real, 192)
    with pytest.raises(UserError, match=r"found 100 held-out images, .*or take prdc500_test or memorisation500$"):
        counts.check(metric_names.parse("fid500_test"), real, 192)
