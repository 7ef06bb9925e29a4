"""The rule that recognises a collapse, and what a run does then."""

import json
import random
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL, call, launch

from dcgan_jax import config as configuration
from dcgan_jax import steps
from dcgan_jax.fields import METRICS
from dcgan_jax.run import checkpoint, collapse, hooks, prepare, reporter
from dcgan_jax.run.collapse import BEGINNING, LINES, STEPS, WORSE_FACTOR, WORSE_MEASURES, Watch, history, retried
from dcgan_jax.runtime import files

HEALTHY = {"spread": 0.8, "d_accuracy_real": 0.95, "d_accuracy_fake": 0.97, "d_saturated": 0.0}
ALIKE = HEALTHY | {"spread": 0.05}
LOST = HEALTHY | {"d_accuracy_real": 1.0, "d_accuracy_fake": 1.0, "d_saturated": 0.9}


def configured(**fields):
    config = configuration.default_config()
    config.update(fields)
    return configuration.validate(config)


def watched(lines, every=50, **fields):
    """What the rule says after each line."""
    watch = Watch(configured(num_steps=10**6, **fields))
    return [watch(i * every, line) for i, line in enumerate(lines, 1)]


def needed(every):
    """Lines in a row that are a while."""
    return max(LINES, STEPS // every + 1)


def test_a_healthy_run_is_left_alone():
    assert set(watched([HEALTHY] * 100)) == {None}


@pytest.mark.parametrize(("line", "reason"), [(ALIKE, "alike"), (LOST, "tells all images apart")])
@pytest.mark.parametrize("every", [50, 1, 10, 1000])
def test_a_collapse_is_reported_after_a_while(line, reason, every):
    healthy = needed(every)
    reports = watched([HEALTHY] * healthy + [line] * needed(every) + [HEALTHY], every, quality=False)
    assert reports[:-2] == [None] * (2 * healthy - 1)
    assert reason in str(reports[-2])
    assert reports[-2].since == (healthy + 1) * every
    assert reports[-1] is None


def test_single_bad_lines_are_no_collapse():
    bad = [HEALTHY, ALIKE, ALIKE, LOST, ALIKE, LOST, LOST, ALIKE, LOST] * 20
    assert set(watched([HEALTHY] * LINES + bad, quality=False)) == {None}


def test_a_confident_discriminator_alone_is_no_collapse():
    # It may be right on all images for long while the generator learns.
    assert set(watched([LOST | {"d_saturated": 0.3}] * 100, quality=False)) == {None}


def test_where_quality_is_measured_a_discriminator_that_wins_is_no_collapse():
    assert set(watched([HEALTHY] * LINES + [LOST] * 100)) == {None}
    assert watched([HEALTHY] * LINES + [LOST] * 100, quality=False)[-1]


def test_large_logits_are_no_collapse_where_the_loss_is_not_flat():
    assert set(watched([HEALTHY] * LINES + [LOST] * 100, quality=False, loss="wasserstein")) == {None}


def test_samples_are_alike_only_after_they_have_differed_for_a_while():
    # Faces at 64x64, width 16: one line at the start, then samples that are alike until they become faces.
    start = [HEALTHY | {"spread": spread} for spread in (0.104, 0.09, 0.06, 0.04, *[0.03] * 10, 0.2)]
    assert set(watched([*start, *[HEALTHY] * 20])) == {None}
    assert set(watched([HEALTHY] * 2 + start)) == {None}
    assert "nearly alike" in str(watched([HEALTHY] * LINES + [ALIKE] * LINES)[-1])


@pytest.mark.parametrize("num_steps", [1000, 20_000])
def test_samples_that_never_differ_are_told(num_steps):
    # Digits with a discriminator_lr of 0.02.
    grey = HEALTHY | {"spread": 0.3}
    watch = Watch(configured(num_steps=num_steps))
    reports = {step: watch(step, grey) for step in range(100, 20_000, 100)}
    first = max(BEGINNING, num_steps // 5)
    assert [step for step, report in reports.items() if report] == [*range(first, 20_000, 100)]
    assert "training does not get going" in str(reports[first])
    assert reports[first].since == 0, "there is no checkpoint from before"
    ended = [watch(20_000 + 100 * i, HEALTHY) for i in range(LINES + 1)]
    assert set(ended) == {None}


def test_with_few_lines_a_run_that_got_going_between_them_is_not_called_late():
    watch = Watch(configured(num_steps=5000))
    spreads = {1000: 0.3, 2000: 0.4, 3000: 0.49, 4000: 0.6, 5000: 0.7}
    assert {watch(step, HEALTHY | {"spread": spread}) for step, spread in spreads.items()} == {None}


def measured(qualities, num_steps, every=100, name="quality", **fields):
    """The steps of the lines in which the rule says that a run is worse. Before them samples come to differ."""
    watch = Watch(configured(num_steps=num_steps, checkpoint_every=every, **fields))
    for step in range(1, needed(1) + 1):
        watch(step - needed(1), HEALTHY)
    reports = [watch(i * every, HEALTHY | {name: quality}) for i, quality in enumerate(qualities, 1)]
    assert all("training has become worse" in str(report) for report in reports if report)
    return [report.step for report in reports if report]


def test_a_run_whose_quality_stays_far_below_its_best_is_worse():
    fallen = [0.5, 0.3, 0.2, 0.5, 0.5, 0.5, 0.5, 0.39, 0.5]
    assert measured(fallen, 10_000) == [600, 700]
    assert measured([0.2 if i % WORSE_MEASURES else 0.5 for i in range(50)], 10_000) == [], "single ones"
    assert measured([1.0, 0.9, *[0.9 * WORSE_FACTOR - 0.01] * 50], 10_000) == [], "not by the factor"
    assert measured([1.0, *[1.0] * 50], 10_000) == []


def test_what_it_says_of_a_worse_run():
    watch = Watch(configured(num_steps=10_000, checkpoint_every=100))
    lines = [HEALTHY] * 9 + [HEALTHY | {"quality": quality} for quality in (0.3, 0.2, 0.25, 0.5, 0.5, 0.6)]
    report = [watch(100 * i, line) for i, line in enumerate(lines)][-1]
    assert str(report) == (
        "step 1400: training has become worse: quality is at least 2 times its best, 0.2 at step 1000, since step 1200"
    )
    assert report.since == 1200
    assert watch(1450, HEALTHY), "until it is measured again"


@pytest.mark.parametrize(("measures", "told_at"), [(100, 3), (15, 3), (14, 2), (10, 2), (9, 1), (5, 1), (2, 1)])
def test_a_worse_run_is_told_within_a_fifth_of_its_length(measures, told_at):
    qualities = [1.0] + [3.0] * (measures - 1)
    first = min(measured(qualities, 100 * measures))
    assert first == min(1 + told_at, measures) * 100


# The classifier's FID of CIFAR-10 at checkpoints: 32x32 in bfloat16 on a GPU, which fell over; 16x16 and 32x32 in
# float32, which did not.
FIDS = [
    ((4.54, 1.70, 1.37, 15.8, 9.06), 10_000, [40_000, 50_000]),
    ((1.84, 1.69, 1.72, 1.58, 1.55, 1.55, 1.49, 1.45, 1.39, 1.42), 4000, []),
    ((2.97, 3.22, 2.62, 2.11, 1.95, 1.96, 1.75, 1.64), 4000, []),
]


@pytest.mark.parametrize(("fids", "every", "told"), FIDS)
def test_runs_that_were_measured(fids, every, told):
    asked = dict(eval_every=every, eval_metrics="fid10k_test")
    assert measured(fids, every * len(fids), every, "fid10k_test", **asked) == told


def test_at_the_last_step_there_is_no_time_to_wait():
    assert measured([1.0] * 99 + [3.0], 10_000) == [10_000]


def test_the_first_samples_are_no_measure_of_a_run():
    # A grey image may be nearer to real ones than the first patterns.
    grey = [HEALTHY | {"spread": 0.1, "quality": 1.0}] * LINES
    assert set(watched([*grey, *[HEALTHY | {"quality": 3.0}] * 20], checkpoint_every=50)) == {None}


def test_a_fid_that_is_asked_for_takes_the_place_of_quality():
    asked = dict(eval_every=100, eval_metrics="prdc10k_train,fid10k_train")
    assert measured([1.0, 3.0, 3.0, 3.0], 10_000, name="fid10k_train", **asked) == [400]
    assert measured([1.0, 3.0, 3.0, 3.0], 10_000, **asked) == []
    seldom = Watch(configured(num_steps=10_000, checkpoint_every=100, **asked | {"eval_every": 2500}))
    lines = dict.fromkeys((100, 200, 300), HEALTHY)
    lines |= {2500: HEALTHY | {"fid10k_train": 1.0}, 5000: HEALTHY | {"fid10k_train": 3.0}}
    assert [step for step, line in lines.items() if seldom(step, line)] == [5000]
    # Another metric may choose the best checkpoint, but says nothing of how much worse a run is.
    assert measured([1.0, 3.0, 3.0, 3.0], 10_000, best_metric="d_loss") == [400]


def random_lines(count):
    chance = random.Random(0)
    for i in range(1, count + 1):
        line = chance.choices([HEALTHY, ALIKE, LOST], [8, 1, 1])[0] if i % 40 < 25 else (ALIKE, LOST)[i // 40 % 2]
        yield {"step": 50 * i} | line | ({"quality": chance.uniform(0.3, 1.2)} if i % 2 == 0 else {})


@pytest.mark.parametrize("quality", [True, False])
def test_a_resumed_run_remembers_the_lines_before(quality):
    config = configured(checkpoint_every=100, quality=quality)
    lines = [line if quality or "quality" not in line else line | {"quality": 1.0} for line in random_lines(200)]
    watch = Watch(config)
    straight = [str(watch(line["step"], line)) for line in lines]
    assert len(set(straight)) > 10
    for start in range(0, 200, 7):
        resumed = Watch(config, json.loads(json.dumps(history(config, lines[:start]))))
        assert [str(resumed(line["step"], line)) for line in lines[start:]] == straight[start:]


def test_lines_that_the_straight_run_does_not_have_do_not_count():
    config = configured(checkpoint_every=100)
    lines = list(random_lines(30))
    ended = lines[-1] | {"step": 1507, "quality": 0.01}  # the last step of a run that goes on now
    assert history(config, [*lines, ended]) == history(config, lines)
    assert history(config, [{"step": 50, "d_loss": 1.0}]) == history(config, []), "a line of an older version"


def test_a_retried_run_is_another_one():
    config = configuration.default_config()
    again = [retried(config, rollbacks) for rollbacks in range(3)]
    assert again[0].to_dict() == config.to_dict()
    assert len({one.seed for one in again}) == 3
    assert [one.generator_lr for one in again] == [2e-4, 1e-4, 5e-5]
    configuration.validate(again[2])


SEED = 5
BEST, FALLS = 160, 200  # the steps of the best checkpoint, and of the last one before it gets worse
FLAGS = (
    *SMALL,
    f"--config.seed={SEED}",
    "--config.log_every=20",
    "--config.sample_every=40",
    "--config.checkpoint_every=20",
)
MEASURED = (*FLAGS, "--config.quality=True", "--config.keep=50")


@pytest.fixture
def falling(monkeypatch):
    """falling(seeds): runs train nothing, and samples differ; with these seeds they get worse after FALLS steps."""

    def make(falls):
        def train_step(method, state, batch):
            lost = jnp.logical_and(state.step >= FALLS, falls(method.seed))
            values = {name: jnp.where(lost, LOST[name], HEALTHY[name]) for name in HEALTHY if name != "spread"}
            metrics = dict.fromkeys(METRICS, jnp.float32(method.seed)) | values
            return state.replace(step=state.step + 1), metrics

        def quality_hook(quality, seed, every):
            def act(snapshot):
                worse = snapshot.step > FALLS and falls(snapshot.metrics["g_loss"])
                snapshot.metrics["quality"] = 5.0 if worse else 1 + abs(snapshot.step - BEST) / 1000

            return hooks.Hook(act, every, measures=True)

        monkeypatch.setattr(steps, "train_step", train_step)
        monkeypatch.setattr(hooks, "quality_hook", quality_hook)
        monkeypatch.setattr(prepare, "Quality", lambda image_set, after: "stands in")
        monkeypatch.setattr(collapse, "spread", lambda method, network: jnp.float32(1))
        monkeypatch.setattr(collapse, "spread_of_images", lambda images: 1.0)

    return make


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def step_names(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def sampled(folder):
    return sorted(int(path.stem.removeprefix("step_")) for path in folder.glob("step_*.png"))


def config_of(workdir):
    config = configuration.default_config()
    config.seed = json.loads((workdir / "config.json").read_text())["seed"]
    return config


@pytest.mark.parametrize("resumed", [False, True], ids=["fresh", "resumed"])
def test_a_run_that_gets_worse_goes_back_and_tries_again(tmp_path, monkeypatch, falling, resumed):
    workdir = tmp_path / "run"
    flags = (*MEASURED, f"--workdir={workdir}", "--config.on_collapse=rollback")
    falling(lambda seed: seed == SEED)
    if resumed:
        assert call("train", *flags, "--config.num_steps=160").returncode == 0
    workdir.mkdir(exist_ok=True)
    result = {"metric": "fid", "value": 1.0, "features": "own"}
    files.append_lines(workdir / "evaluation.jsonl", [result | {"step": step} for step in (0, 160, 180, 240)])
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
        for name in ("go_back", "history"):  # between two attempts, and at the start of each
            patched.setattr(collapse, name, watched(getattr(collapse, name)))
        done = call("train", *flags, "--config.num_steps=400")
    assert done.returncode == 0, done.stderr
    assert locked == [True] * 3, "nobody else may enter while a run goes back"
    assert "step 260: training has become worse" in done.stderr
    told = next(line for line in done.stderr.splitlines() if "Going back" in line)
    assert "Going back to step 160 (rollback 1 of at most 3) with generator_lr 0.00025 instead of 0.0005" in told
    assert f"other noise and another order of images. What the run wrote after that step is now in {workdir}" in told
    aside = workdir / "collapsed" / "260"
    assert step_names(workdir / "collapsed") == [260]
    # Nothing from before is lost, and what comes after it is another run.
    before, after = lines(aside / "metrics.jsonl"), lines(workdir / "metrics.jsonl")
    assert [line["step"] for line in before] == list(range(20, 280, 20))
    assert [line["collapsed"] for line in before] == [0.0] * 12 + [1.0]
    assert [line["step"] for line in after] == list(range(20, 420, 20))
    assert after[:8] == before[:8]
    assert {line["g_loss"] for line in after[8:]} == {retried(config_of(workdir), 1).seed}
    assert {line["collapsed"] for line in after} == {0}
    assert step_names(aside) == [180, 200, 220, 240]
    assert checkpoint.steps(workdir) == list(range(20, 420, 20))
    assert sampled(aside / "samples") == [200, 240]
    assert sampled(workdir / "samples") == list(range(0, 440, 40))
    assert [line["step"] for line in lines(aside / "evaluation.jsonl")] == [0, 160, 180, 240]
    assert [line["step"] for line in lines(workdir / "evaluation.jsonl")] == [0, 160]
    assert checkpoint.read(workdir)[1]["rollbacks"] == 1
    again = call("train", *flags, "--config.num_steps=420")
    assert (again.returncode, checkpoint.read(workdir)[1]["rollbacks"]) == (0, 1), again.stderr


def test_without_quality_a_run_that_collapses_goes_back_to_the_newest_checkpoint_from_before(tmp_path, falling):
    falling(lambda seed: seed == SEED)
    flags = ("--config.quality=False", "--config.keep=50", "--config.on_collapse=rollback")
    done = call("train", *FLAGS, "--config.num_steps=400", *flags, f"--workdir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert "step 320: training has collapsed: the discriminator tells all images apart" in done.stderr
    assert "Going back to step 200" in done.stderr


def test_a_run_that_gets_worse_again_and_again_is_given_up_with_other_advice(tmp_path, falling):
    workdir = tmp_path / "run"
    falling(lambda seed: True)
    done = call("train", *MEASURED, "--config.num_steps=400", f"--workdir={workdir}", "--config.on_collapse=rollback")
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("Going back to step 160") == 3
    assert "discriminator_lr 6.25e-05 instead of 0.000125" in done.stderr
    told = done.stderr.splitlines()[-1]
    assert "after 3 rollbacks; the checkpoint of step 160 is from before (--step=160)" in told
    assert "a higher --config.instance_noise than 0.1, or a lower --config.discriminator_lr than" in told
    assert "rollback" not in told.replace("after 3 rollbacks", "")
    assert checkpoint.best(workdir) == 160
    folders = {
        path.name: [line["step"] for line in lines(path / "metrics.jsonl")]
        for path in (workdir / "collapsed").iterdir()
    }
    assert folders == {name: [*range(20, 280, 20)] for name in ("260", "260-1", "260-2")}


def test_a_run_that_gets_worse_may_stop_and_keeps_its_best(tmp_path, falling):
    workdir = tmp_path / "run"
    falling(lambda seed: True)
    flags = (*FLAGS, "--config.quality=True", "--config.keep=1", "--config.num_steps=400", f"--workdir={workdir}")
    for _ in range(2):  # the same command again stops again
        done = call("train", *flags, "--config.on_collapse=stop")
        assert done.returncode == 1, done.stderr
        assert "step 260: training has become worse: " in done.stderr.splitlines()[-1]
        assert "the checkpoint of step 160 is from before" in done.stderr.splitlines()[-1]
        assert "--config.on_collapse=rollback, or =warn" in done.stderr.splitlines()[-1]
        assert checkpoint.steps(workdir) == [160, 240]
    assert not (workdir / "collapsed").exists()
    done = call("train", *flags, "--config.on_collapse=warn")
    assert done.returncode == 0, done.stderr
    assert checkpoint.steps(workdir) == [160, 400]


def test_at_its_last_step_a_run_need_not_stop(tmp_path, falling):
    falling(lambda seed: True)
    done = call("train", *MEASURED, "--config.num_steps=220", f"--workdir={tmp_path}/run", "--config.on_collapse=stop")
    assert done.returncode == 0, done.stderr
    assert "step 220: training has become worse" in done.stderr
    assert "best by quality is step 160 (1), which --step=best takes: step 220 is 400% worse (5)" in done.stderr


def test_by_default_a_collapse_is_a_warning(tmp_path, falling):
    falling(lambda seed: True)
    done = call("train", *MEASURED, "--config.num_steps=400", f"--workdir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("training has become worse") == 1
    assert "Checkpoints from before step 220 may be better (--step=best); --config.on_collapse=rollback" in done.stderr
    assert [line["collapsed"] for line in lines(tmp_path / "run" / "metrics.jsonl")] == [0.0] * 12 + [1.0] * 8


@pytest.mark.parametrize(("saved", "told"), [([20, 40], True), ([40], False), ([], False)])
def test_earlier_checkpoints_are_advised_where_there_are_some(saved, told):
    some = reporter.Reporter.__new__(reporter.Reporter)
    some._config = configured()
    output = SimpleNamespace(checkpoints=SimpleNamespace(steps=lambda: saved))
    advice = some._advice(collapse.Collapsed(60, 40, "training has become worse"), output)
    assert ("Checkpoints from before step 40" in advice) == ("rollback" in advice) == told


def test_a_collapse_that_began_before_a_resume_is_noticed_where_the_straight_run_notices_it(tmp_path, falling):
    falling(lambda seed: True)
    for end in (240, 251, 400):  # the line of step 251 is one that the straight run does not have
        done = call("train", *MEASURED, f"--config.num_steps={end}", f"--workdir={tmp_path}/run")
        assert done.returncode == 0, done.stderr
    told = {line["step"]: line["collapsed"] for line in lines(tmp_path / "run" / "metrics.jsonl")}
    assert [step for step, collapsed in told.items() if collapsed and step > 251] == list(range(260, 420, 20))


def test_a_damaged_checkpoint_to_go_back_to_leaves_all_where_it_is(tmp_path, falling):
    workdir = tmp_path / "run"
    falling(lambda seed: True)
    assert call("train", *MEASURED, "--config.num_steps=240", f"--workdir={workdir}").returncode == 0
    for file in (workdir / "checkpoints" / "160" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"garbage")
    done = call("train", *MEASURED, "--config.num_steps=400", f"--workdir={workdir}", "--config.on_collapse=rollback")
    assert done.returncode == 2
    assert "160' is damaged" in done.stderr.splitlines()[-1]
    assert not (workdir / "collapsed").exists()


def test_a_run_that_does_not_collapse_is_not_called_so(straight_run):
    assert {line["collapsed"] for line in lines(straight_run / "metrics.jsonl")} == {0}


def test_spread_is_1_of_images_like_the_real_ones(tiny):
    images = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 1), np.uint8)
    assert collapse.spread_of_images(images) == pytest.approx(np.std(images / 127.5, axis=0).mean())


# The generator hardly learns, whatever the seed and the rounding.
UNEQUAL = (
    *SMALL,
    "--config.generator_lr=1e-8",
    "--config.log_every=10",
    "--config.sample_every=1000",
    "--config.checkpoint_every=100",
    "--config.on_collapse=rollback",
)


@pytest.mark.nightly
@pytest.mark.parametrize("resumed", [False, True], ids=["fresh", "resumed"])
def test_a_real_run_that_does_not_get_going_is_ended(tmp_path, resumed):
    workdir = tmp_path / "run"
    if resumed:
        assert launch("train", *UNEQUAL, "--config.num_steps=700", f"--workdir={workdir}").returncode == 0
    done = launch("train", *UNEQUAL, "--config.num_steps=1200", f"--workdir={workdir}")
    assert done.returncode == 1, done.stderr
    told = done.stderr.splitlines()[-1]
    assert "step 1000: training does not get going: samples differ little" in told
    assert "there is no checkpoint from before. Train in another --workdir" in told
    assert not (workdir / "collapsed").exists()
    assert checkpoint.steps(workdir)[-1] == 900
