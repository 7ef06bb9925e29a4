"""The rule that calls a run collapsed."""

import pytest

from dcgan_jax import config as configuration
from dcgan_jax.collapse import LINES, YOUNG, Watch, retried

HEALTHY = {"spread": 0.8, "d_accuracy_real": 0.95, "d_accuracy_fake": 0.97, "d_saturated": 0.0}
ALIKE = HEALTHY | {"spread": 0.05}
LOST = HEALTHY | {"d_accuracy_real": 1.0, "d_accuracy_fake": 1.0, "d_saturated": 0.9}


def told(lines):
    watch = Watch()
    return [watch(line) for line in lines]


def test_a_healthy_run_is_left_alone():
    assert set(told([HEALTHY] * 100)) == {None}


@pytest.mark.parametrize(("line", "reason"), [(ALIKE, "alike"), (LOST, "tells all images apart")])
def test_a_collapse_is_told_after_some_lines_in_a_row(line, reason):
    found = told([HEALTHY] * YOUNG + [line] * LINES + [HEALTHY])
    assert found[: YOUNG + LINES - 1] == [None] * (YOUNG + LINES - 1)
    assert reason in found[YOUNG + LINES - 1]
    assert found[-1] is None


def test_single_bad_lines_are_no_collapse():
    assert set(told([HEALTHY, ALIKE, ALIKE, LOST, ALIKE, LOST, LOST, ALIKE, LOST] * 20)) == {None}


def test_a_confident_discriminator_alone_is_no_collapse():
    # It may be right on all images for long while the generator learns.
    assert set(told([LOST | {"d_saturated": 0.3}] * 100)) == {None}


def test_a_young_run_is_spared():
    assert told([ALIKE] * YOUNG)[: YOUNG - 1] == [None] * (YOUNG - 1)


def test_a_retried_run_is_another_one():
    config = configuration.default_config()
    again = [retried(config, rollbacks) for rollbacks in range(3)]
    assert again[0].to_dict() == config.to_dict()
    assert len({one.seed for one in again}) == 3
    assert [one.generator_lr for one in again] == [2e-4, 1e-4, 5e-5]
    configuration.validate(again[2])
