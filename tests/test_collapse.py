"""The rule that recognises a collapse, and what a run does then."""

import json

import jax.numpy as jnp
import pytest
from conftest import SMALL, call, launch

from dcgan_jax import config as configuration
from dcgan_jax import steps
from dcgan_jax.fields import METRICS
from dcgan_jax.run import checkpoint, collapse
from dcgan_jax.run.collapse import LINES, STEPS, Watch, history, retried
from dcgan_jax.runtime import files

HEALTHY = {"spread": 0.8, "d_accuracy_real": 0.95, "d_accuracy_fake": 0.97, "d_saturated": 0.0}
ALIKE = HEALTHY | {"spread": 0.05}
LOST = HEALTHY | {"d_accuracy_real": 1.0, "d_accuracy_fake": 1.0, "d_saturated": 0.9}


def watched(lines, every=50):
    """What the rule says after each line."""
    watch = Watch()
    return [watch(i * every, line) for i, line in enumerate(lines, 1)]


def test_a_healthy_run_is_left_alone():
    assert set(watched([HEALTHY] * 100)) == {None}


@pytest.mark.parametrize(("line", "reason"), [(ALIKE, "alike"), (LOST, "tells all images apart")])
@pytest.mark.parametrize(("every", "needed"), [(50, LINES), (1, STEPS + 1), (10, 11), (1000, LINES)])
def test_a_collapse_is_reported_after_some_lines_in_a_row(line, reason, every, needed):
    reports = watched([HEALTHY] * 3 + [line] * needed + [HEALTHY], every)
    assert reports[: 3 + needed - 1] == [None] * (3 + needed - 1)
    assert reason in str(reports[3 + needed - 1])
    assert reports[3 + needed - 1].since == 4 * every
    assert reports[-1] is None


def test_single_bad_lines_are_no_collapse():
    assert set(watched([HEALTHY, ALIKE, ALIKE, LOST, ALIKE, LOST, LOST, ALIKE, LOST] * 20)) == {None}


def test_a_confident_discriminator_alone_is_no_collapse():
    # It may be right on all images for long while the generator learns.
    assert set(watched([LOST | {"d_saturated": 0.3}] * 100)) == {None}


def test_a_generator_that_has_not_begun_to_paint_has_not_collapsed():
    assert set(watched([ALIKE] * 50)) == {None}
    assert watched([ALIKE] * 50 + [HEALTHY] + [ALIKE] * LINES)[-1]


@pytest.mark.parametrize("line", [ALIKE, LOST])
def test_a_resumed_run_remembers_the_lines_before(line):
    lines = [{"step": 50 * i} | (HEALTHY if i < 3 else line) for i in range(1, 2 + LINES)]
    straight = Watch()
    assert {straight(each["step"], each) for each in lines} == {None}
    resumed = Watch(**json.loads(json.dumps(history(lines))))
    for watch in (straight, resumed):
        assert watch(50 * (2 + LINES), line).since == 150
    assert history([{"step": 1, "d_loss": 1.0}]) == history([]), "a line of an older version"


def test_a_retried_run_is_another_one():
    config = configuration.default_config()
    again = [retried(config, rollbacks) for rollbacks in range(3)]
    assert again[0].to_dict() == config.to_dict()
    assert len({one.seed for one in again}) == 3
    assert [one.generator_lr for one in again] == [2e-4, 1e-4, 5e-5]
    configuration.validate(again[2])


SEED = 5
FALLS_AT = 60  # the last step before a collapse
FLAGS = (
    *SMALL,
    f"--config.seed={SEED}",
    "--config.log_every=20",
    "--config.sample_every=1000",
    "--config.checkpoint_every=20",
    "--config.keep=50",
)


def stub(collapses):
    """A step that trains nothing; its metrics are those of a lost run after FALLS_AT steps, if collapses(seed)."""

    def train_step(method, state, batch):
        lost = jnp.logical_and(state.step >= FALLS_AT, collapses(method.seed))
        values = {name: jnp.where(lost, LOST[name], HEALTHY[name]) for name in HEALTHY if name != "spread"}
        distance = jnp.abs(state.step + 1.0 - 40)  # the best checkpoint is that of step 40
        metrics = dict.fromkeys(METRICS, jnp.float32(method.seed)) | {"d_loss": distance} | values
        return state.replace(step=state.step + 1), metrics

    return train_step


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def step_names(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


@pytest.mark.parametrize(
    ("resumed", "best_metric", "target"), [(False, "", 60), (True, "d_loss", 40)], ids=["fresh", "resumed"]
)
def test_a_run_that_collapses_goes_back_and_tries_again(tmp_path, monkeypatch, resumed, best_metric, target):
    workdir = tmp_path / "run"
    flags = (*FLAGS, f"--workdir={workdir}", "--config.on_collapse=rollback", f"--config.best_metric={best_metric}")
    monkeypatch.setattr(steps, "train_step", stub(lambda seed: seed == SEED))
    if resumed:
        assert call("train", *flags, "--config.num_steps=20").returncode == 0
    locked = []

    def watched(function):
        def looking(*arguments):
            held = files.lock(workdir / ".lock", wait=False)
            locked.append(held is None)
            if held:
                held.__exit__(None, None, None)
            return function(*arguments)

        return looking

    with monkeypatch.context() as patched:
        for name in ("go_back", "retried"):  # between two attempts, and at the start of each
            patched.setattr(collapse, name, watched(getattr(collapse, name)))
        done = call("train", *flags, "--config.num_steps=200")
    assert done.returncode == 0, done.stderr
    assert locked == [True] * 3, "nobody else may enter while a run goes back"
    assert "step 180: training has collapsed" in done.stderr
    assert f"going back to step {target}" in done.stderr
    assert step_names(workdir / "collapsed") == [180]
    assert step_names(workdir / "collapsed" / "180") == [step for step in range(20, 180, 20) if step > target]
    before = lines(workdir / "collapsed" / "180" / "metrics.jsonl")
    after = lines(workdir / "metrics.jsonl")
    assert [line["step"] for line in before] == list(range(20, 200, 20))
    assert before[-1]["collapsed"] == 1
    assert [line["step"] for line in after] == list(range(20, 220, 20))
    # Nothing from before is lost, and what comes after it is another run.
    unchanged = target // 20
    assert after[:unchanged] == before[:unchanged]
    assert {line["g_loss"] for line in after[unchanged:]} == {collapse.retried(config_of(workdir), 1).seed}
    assert {line["collapsed"] for line in after} == {0}
    assert checkpoint.steps(workdir) == list(range(20, 220, 20))
    assert checkpoint.read(workdir)[1]["rollbacks"] == 1
    again = call("train", *flags, "--config.num_steps=220")
    assert (again.returncode, checkpoint.read(workdir)[1]["rollbacks"]) == (0, 1), again.stderr


def config_of(workdir):
    config = configuration.default_config()
    config.seed = json.loads((workdir / "config.json").read_text())["seed"]
    return config


def test_a_run_that_collapses_again_and_again_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "train_step", stub(lambda seed: True))
    arguments = ("--config.num_steps=200", f"--workdir={tmp_path}/run", "--config.on_collapse=rollback")
    done = call("train", *FLAGS, *arguments)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("going back to step 60") == 3
    assert "after 3 rollbacks; the checkpoint of step 60 is from before" in done.stderr.splitlines()[-1]


def test_a_run_that_collapses_may_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "train_step", stub(lambda seed: True))
    arguments = ("--config.num_steps=200", f"--workdir={tmp_path}/run", "--config.on_collapse=stop")
    done = call("train", *FLAGS, *arguments)
    assert done.returncode == 1, done.stderr
    assert "training has collapsed: " in done.stderr.splitlines()[-1]
    assert "the checkpoint of step 60 is from before" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run" / "collapsed").exists()


def test_by_default_a_collapse_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "train_step", stub(lambda seed: True))
    done = call("train", *FLAGS, "--config.num_steps=220", f"--workdir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("training has collapsed") == 1
    assert [line["collapsed"] for line in lines(tmp_path / "run" / "metrics.jsonl")] == [0.0] * 8 + [1.0] * 3


def test_a_collapse_that_began_before_a_resume_is_noticed_where_the_straight_run_notices_it(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "train_step", stub(lambda seed: True))
    for end in (120, 180):  # it begins at 80, and shows at 180
        done = call("train", *FLAGS, f"--config.num_steps={end}", f"--workdir={tmp_path}/run")
        assert done.returncode == 0, done.stderr
    assert [line["collapsed"] for line in lines(tmp_path / "run" / "metrics.jsonl")] == [0.0] * 8 + [1.0]


def test_a_run_that_does_not_collapse_is_not_called_so(straight_run):
    assert {line["collapsed"] for line in lines(straight_run / "metrics.jsonl")} == {0}


# The generator hardly learns, so that the discriminator wins, whatever the seed and the rounding.
UNEQUAL = (
    *SMALL,
    "--config.generator_lr=1e-8",
    "--config.discriminator_lr=0.05",
    "--config.log_every=10",
    "--config.sample_every=1000",
    "--config.checkpoint_every=5",
    "--config.keep=50",
    "--config.on_collapse=rollback",
)


@pytest.mark.nightly
@pytest.mark.parametrize("resumed", [False, True], ids=["fresh", "resumed"])
def test_a_real_collapse_is_noticed(tmp_path, resumed):
    workdir = tmp_path / "run"
    if resumed:
        assert launch("train", *UNEQUAL, "--config.num_steps=20", f"--workdir={workdir}").returncode == 0
    done = launch("train", *UNEQUAL, "--config.num_steps=400", f"--workdir={workdir}")
    assert done.returncode == 1, done.stderr
    first = step_names(workdir / "collapsed")[0]
    assert f"going back to step {first - STEPS - 5}" in done.stderr
    assert "after 3 rollbacks" in done.stderr.splitlines()[-1]
    assert checkpoint.steps(workdir)[-1] >= first - STEPS - 5
