"""Names of metrics."""

import pytest

from dcgan_jax.evaluation import metric_names
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
        ("kid500_train", "at least 1000"),
        ("fdi50k_train", "did you mean fid50k_train"),
        ("fid10k_train,fid10k_train", "twice"),
    ],
)
def test_mistakes_are_named(names, expected):
    with pytest.raises(UserError, match=expected):
        metric_names.parse(names)


@pytest.mark.parametrize(("names", "expected"), [("fid10k", "found 3000 images"), ("fid_train", "no measure of two")])
def test_mistakes_with_two_sets_are_named(names, expected):
    with pytest.raises(UserError, match=expected):
        metric_names.parse_without_splits(names, 3000)
