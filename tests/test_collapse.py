"""The rule that calls a run collapsed."""

import json
import re

import pytest
from conftest import launch

from dcgan_jax import checkpoint
from dcgan_jax import config as configuration
from dcgan_jax.collapse import LINES, STEPS, Watch, retried

HEALTHY = {"spread": 0.8, "d_accuracy_real": 0.95, "d_accuracy_fake": 0.97, "d_saturated": 0.0}
ALIKE = HEALTHY | {"spread": 0.05}
LOST = HEALTHY | {"d_accuracy_real": 1.0, "d_accuracy_fake": 1.0, "d_saturated": 0.9}


def told(lines, every=50):
    watch = Watch()
    return [watch(i * every, line) for i, line in enumerate(lines, 1)]


def test_a_healthy_run_is_left_alone():
    assert set(told([HEALTHY] * 100)) == {None}


@pytest.mark.parametrize(("line", "reason"), [(ALIKE, "alike"), (LOST, "tells all images apart")])
@pytest.mark.parametrize(("every", "needed"), [(50, LINES), (1, STEPS + 1), (10, 11), (1000, LINES)])
def test_a_collapse_is_told_after_some_lines_in_a_row(line, reason, every, needed):
    found = told([HEALTHY] * 3 + [line] * needed + [HEALTHY], every)
    assert found[: 3 + needed - 1] == [None] * (3 + needed - 1)
    assert reason in str(found[3 + needed - 1])
    assert found[3 + needed - 1].since == 4 * every
    assert found[-1] is None


def test_single_bad_lines_are_no_collapse():
    assert set(told([HEALTHY, ALIKE, ALIKE, LOST, ALIKE, LOST, LOST, ALIKE, LOST] * 20)) == {None}


def test_a_confident_discriminator_alone_is_no_collapse():
    # It may be right on all images for long while the generator learns.
    assert set(told([LOST | {"d_saturated": 0.3}] * 100)) == {None}


def test_a_generator_that_has_not_begun_to_paint_has_not_collapsed():
    assert set(told([ALIKE] * 50)) == {None}
    assert told([ALIKE] * 50 + [HEALTHY] + [ALIKE] * LINES)[-1]


def test_a_retried_run_is_another_one():
    config = configuration.default_config()
    again = [retried(config, rollbacks) for rollbacks in range(3)]
    assert again[0].to_dict() == config.to_dict()
    assert len({one.seed for one in again}) == 3
    assert [one.generator_lr for one in again] == [2e-4, 1e-4, 5e-5]
    configuration.validate(again[2])


# Rates at which each of three seeds was lost on two versions of JAX, which round differently; lower ones leave it to
# chance. A checkpoint comes before every line.
TOO_HIGH = (
    "--config=configs/digits.py",
    "--config.image_size=16",
    "--config.width=8",
    "--config.batch_size=32",
    "--config.generator_lr=1",
    "--config.discriminator_lr=1",
    "--config.seed=2",
    "--config.log_every=10",
    "--config.sample_every=1000",
    "--config.checkpoint_every=5",
    "--config.keep=50",
    "--config.num_steps=250",
)


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_run_that_collapses_goes_back_and_tries_again(tmp_path):
    workdir = tmp_path / "run"
    done = launch("train", *TOO_HIGH, f"--workdir={workdir}", "--config.on_collapse=rollback")
    assert "training has collapsed" in done.stderr
    (first, *_) = sorted(int(path.name) for path in (workdir / "collapsed").iterdir())
    before = lines(workdir / "collapsed" / str(first) / "metrics.jsonl")
    assert before[-1]["step"] == first
    assert before[-1]["collapsed"] == 1
    after = {line["step"]: line for line in lines(workdir / "metrics.jsonl")}
    since = first - STEPS
    target = (since - 1) // 5 * 5
    line_after = target // 10 * 10 + 10
    assert f"going back to step {target}" in done.stderr
    for line in before:  # nothing of what came before is lost, and what comes after it is another run
        if line["step"] <= target:
            assert after[line["step"]] == line
    assert after[line_after]["g_loss"] != next(line for line in before if line["step"] == line_after)["g_loss"]
    if done.returncode == 0:
        steps = checkpoint.steps(workdir)
        assert steps[-1] == 250
        assert checkpoint.read(workdir)[1]["rollbacks"] >= 1
        assert {path.name for path in (workdir / "collapsed" / str(first)).iterdir()} >= {"metrics.jsonl"}
    else:
        assert done.returncode == 1, done.stderr
        assert "after 3 rollbacks" in done.stderr


def test_a_run_that_collapses_may_stop(tmp_path):
    workdir = tmp_path / "run"
    done = launch("train", *TOO_HIGH, f"--workdir={workdir}", "--config.on_collapse=stop")
    assert done.returncode == 1, done.stderr
    assert "training has collapsed: " in done.stderr
    assert re.search(r"the checkpoint of step \d+ is from before", done.stderr)
    assert checkpoint.steps(workdir)[0] == 5


def test_a_run_that_does_not_collapse_is_not_called_so(straight_run):
    assert {line["collapsed"] for line in lines(straight_run / "metrics.jsonl")} == {0}
