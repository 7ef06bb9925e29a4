"""What the loop calls every so many steps: one snapshot for all, and a rate that is of training alone."""

import json
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import SMALL, Job, call

from dcgan_jax import inference, train
from dcgan_jax.run import checkpoint, hooks, monitor, prepare
from dcgan_jax.runtime import signals


class FakeTime:
    """A clock that stands still but for what `takes`."""

    def __init__(self):
        self.now, self.time = 0.0, time.time

    def perf_counter(self):
        return self.now

    monotonic = perf_counter

    def takes(self, seconds, function):
        def slow(*arguments, **keywords):
            self.now += seconds
            return function(*arguments, **keywords)

        return slow


@pytest.fixture
def clock(monkeypatch):
    clock = FakeTime()
    monkeypatch.setattr(monitor, "time", clock)
    return clock


def test_a_lap_counts_steps_outside_of_pauses(clock):
    measured = monitor.Clock()
    clock.now += 2
    with measured.paused():
        clock.now += 100
    measured.count(8, in_pause=False)
    measured.count(1, in_pause=True)
    assert list(measured.timing_waits(iter(range(3)))) == [0, 1, 2]
    assert measured.lap() == (4, 0, 100 / 102)
    clock.now += 4
    measured.count(2, in_pause=False)
    assert measured.lap() == (0.5, 0, 0), "a lap begins where the last one ended"


def test_the_time_until_a_batch_is_there_is_waiting(clock):
    measured = monitor.Clock()

    def batches():
        for batch in range(3):
            clock.now += 1
            yield batch

    for _ in measured.timing_waits(batches()):
        clock.now += 3
        measured.count(1, in_pause=False)
    assert measured.lap() == (3 / 12, 3 / 12, 0)


def test_the_first_call_counts_with_its_compilation_if_there_is_no_other(clock):
    measured = monitor.Clock()
    with measured.paused():
        clock.now += 10
    measured.count(1, in_pause=True)
    assert measured.lap() == (0.1, 0, 1)


def test_images_per_second_are_of_training_alone(tiny, tmp_path, monkeypatch, clock):
    # The results of a step come after a second, and everything between steps takes twenty.
    monkeypatch.setattr(signals.StopVote, "record", clock.takes(1, signals.StopVote.record))
    monkeypatch.setattr(inference.TrainedGAN, "sample", clock.takes(20, inference.TrainedGAN.sample))
    monkeypatch.setattr(hooks, "recalibrate", clock.takes(20, inference.recalibrate))
    monkeypatch.setattr(checkpoint.Checkpoints, "save", clock.takes(20, checkpoint.Checkpoints.save))
    monkeypatch.setattr(prepare, "_evaluator", lambda config: clock.takes(20, lambda read, step: []))
    monkeypatch.setattr(prepare, "Quality", lambda image_set, after: clock.takes(20, lambda read: 1.0))
    intervals = dict(log_every=1, sample_every=3, checkpoint_every=4, eval_every=2)
    config = tiny(num_steps=8, eval_metrics="fid10k_train", eval_features="classifier", quality=True, **intervals)
    train.train(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["images_per_sec"] for line in lines] == [config.batch_size] * 8
    assert {line["data_wait"] for line in lines} == {0}


def test_later_steps_compile_nothing(tiny, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(train, "_programs", train._programs.__wrapped__)  # each run compiles its own

    def compiled(name, num_steps):
        caplog.clear()
        config = tiny(num_steps=num_steps, log_every=1, sample_every=9, checkpoint_every=9)
        with jax.log_compiles(True):
            train.train(config, tmp_path / name)
        return sum(record.getMessage().startswith("Compiling") for record in caplog.records)

    compiled("first", 1)  # with what later runs of this process share
    assert compiled("one step", 1) == compiled("three steps", 3) > 0


def test_every_process_has_the_same_hooks_due_at_the_same_steps(tiny):
    config = tiny(num_steps=60, sample_every=4, checkpoint_every=6, eval_every=10, eval_metrics="fid10k_train")
    run = prepare.Run(config, "run", SimpleNamespace(card={}), "host", lambda read, step: [], lambda read: 1.0)

    def due(output):
        chosen = hooks.make_hooks(run, output, 0)
        stops = [(step, stopping) for step in range(1, 61) for stopping in (False, True)]
        return [[hook.due(step, last=step == 60, stopping=stopping) for hook in chosen] for step, stopping in stops]

    # Process 0 has an output, the others have none; they would wait for each other in different collectives.
    assert due(hooks.Output("monitor", "checkpoints")) == due(None)


def recorded(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def measured(monkeypatch):
    """What was measured of each checkpoint: the samples that were read."""
    read_samples = []

    def quality(read):
        read_samples.append(read(np.arange(70)))
        return float(read_samples[-1].mean())

    monkeypatch.setattr(prepare, "Quality", lambda image_set, after: quality)
    return read_samples


def test_quality_is_in_the_line_of_each_checkpoint(tiny, tmp_path, measured, capfd):
    config = tiny(num_steps=10, log_every=3, sample_every=9, checkpoint_every=4, eval_every=0, seed=3, quality=True)
    train.train(config, tmp_path)
    lines = recorded(tmp_path)
    assert [line["step"] for line in lines] == [3, 4, 6, 8, 9, 10]
    assert [line["step"] for line in lines if "quality" in line] == checkpoint.steps(tmp_path) == [4, 8, 10]
    for line in lines:
        assert {"step", "d_loss", "g_loss", "images_per_sec", "spread", "collapsed"} <= line.keys()
    for samples, step in zip(measured, (4, 8, 10), strict=True):
        assert (samples == inference.load(tmp_path, step).sample(70, seed=3)).all()
        quality = checkpoint.read(tmp_path, step)[1]["metrics"]["quality"]
        assert quality == next(line["quality"] for line in lines if line["step"] == step) == samples.mean()
    shown = capfd.readouterr().err
    assert f"quality {measured[0].mean():.4g}" in next(line for line in shown.splitlines() if "step 6/10" in line)
    assert "quality" not in next(line for line in shown.splitlines() if "step 3/10" in line)
    events = b"".join(file.read_bytes() for file in (tmp_path / "tensorboard").iterdir())
    assert events.count(b"quality/quality\x15") == 3


def test_a_line_holds_what_an_evaluation_measured(tiny, tmp_path, monkeypatch):
    line = {"metric": "fid10k_train", "value": 7.5, "features": "own", "step": 2}
    monkeypatch.setattr(prepare, "_evaluator", lambda config: lambda read, step: [line])
    train.train(
        tiny(num_steps=2, eval_every=2, eval_metrics="fid10k_train", eval_features="classifier", quality=False),
        tmp_path,
    )
    assert recorded(tmp_path)[-1]["fid10k_train"] == 7.5


def test_the_state_does_not_depend_on_whether_quality_is_measured(tiny, tmp_path, measured):
    config = dict(num_steps=4, checkpoint_every=2, sample_every=4)
    states = [train.train(tiny(**config, quality=on), tmp_path / str(on)) for on in (True, False)]
    assert len(measured) == 2
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), *states))
    assert not any("quality" in line for line in recorded(tmp_path / "False"))


@pytest.mark.nightly
def test_two_processes_measure_what_one_measures(tmp_path):
    flags = (*SMALL, "--config.num_steps=4", "--config.checkpoint_every=2", "--config.quality=True")
    done = call("train", *flags, f"--workdir={tmp_path}/one")
    assert done.returncode == 0, done.stderr
    with Job(tmp_path, 2, 2, *flags, f"--workdir={tmp_path}/two") as job:
        assert job.wait() == [0, 0], job.told()
    one, two = ([line["quality"] for line in recorded(tmp_path / name) if "quality" in line] for name in ("one", "two"))
    assert len(one) == 2
    assert two == pytest.approx(one, rel=1e-3)
    assert sum(" by quality" in output.read_text() for output in job.outputs) == 1


def test_a_moment_has_one_snapshot_for_all_hooks(tiny, tmp_path, monkeypatch):
    made, seen = [], []
    recalibrate = inference.recalibrate
    monkeypatch.setattr(hooks, "recalibrate", lambda *a: made.append(1) or recalibrate(*a))
    monkeypatch.setattr(prepare, "_evaluator", lambda config: lambda read, step: seen.append(read([0])) or [])
    measures = dict(eval_every=2, eval_metrics="fid10k_train", eval_features="classifier")
    config = tiny(num_steps=2, log_every=1, sample_every=2, checkpoint_every=2, **measures)
    state = train.train(config, tmp_path)
    assert len(made) == 2, "before the first step, and after the last"
    assert len(seen) == 1
    saved = inference.TrainedGAN(config, checkpoint.read(tmp_path)[0])
    assert (seen[0] == saved.sample(1)).all()
    assert jax.tree.all(
        jax.tree.map(lambda a, b: (a == b).all(), saved.generator_variables["params"], state.ema.params)
    )
