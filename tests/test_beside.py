"""Hooks beside training: in order, the same run as without, and no error is lost."""

import threading

import jax
import jax.numpy as jnp
import pytest
from test_dispatch import EVERY, Requests, assert_same_run

from dcgan_jax import train
from dcgan_jax.run import beside, checkpoint, collapse, prepare
from dcgan_jax.run.beside import Worker
from dcgan_jax.runtime.errors import TrainingError
from dcgan_jax.runtime.signals import Preempted


@pytest.fixture
def exact(tiny):
    def run(workdir, *, requests=None, **fields):
        config = tiny(**dict(dtype="float64", num_steps=8) | EVERY | fields)
        with jax.enable_x64(True):
            return train.train(config, workdir, requests=requests or Requests())

    return run


@pytest.fixture
def besides(monkeypatch):
    monkeypatch.setattr(beside, "suits", lambda: True)


def test_work_is_done_in_order_and_later_than_it_is_given():
    gate, done, worker = threading.Event(), [], Worker(True)
    worker.do(lambda: (gate.wait(), done.append(0)))
    worker.do(lambda: done.append(1))
    worker.check()
    assert done == []
    gate.set()
    worker.wait()
    assert done == [0, 1]
    worker.close()


def test_after_a_failure_nothing_more_is_done_and_it_is_raised_once():
    done, worker = [], Worker(True)

    def fail():
        raise ValueError("a failure")

    gate = threading.Event()
    for work in (gate.wait, fail, lambda: done.append(1)):
        worker.do(work)
    gate.set()
    with pytest.raises(ValueError, match="a failure"):
        worker.wait()
    worker.wait()
    assert done == []
    worker.close()


def test_at_once_is_at_once():
    done, worker = [], Worker(False)
    worker.do(lambda: done.append(1))
    assert done == [1]
    worker.close()


def test_work_may_wait_for_what_came_before_it():
    done, worker = [], Worker(True)
    worker.do(lambda: done.append(1))
    worker.do(lambda: (worker.wait(), done.append(2)))
    worker.wait()
    worker.close()
    assert done == [1, 2]


def test_what_waits_is_done_before_the_end():
    gate, done, worker = threading.Event(), [], Worker(True)
    worker.do(gate.wait)
    worker.do(lambda: done.append(1))
    threading.Timer(0.1, gate.set).start()
    worker.close()
    assert done == [1]


def test_settings_of_the_loop_hold_in_the_thread():
    found, worker = [], Worker(True)
    with jax.enable_x64(True):
        worker.do(lambda: found.append(jnp.zeros(1).dtype))
    worker.do(lambda: found.append(jnp.zeros(1).dtype))
    worker.wait()
    worker.close()
    assert found == ["float64", "float32"]


def test_a_run_with_hooks_beside_it_is_the_same_run(exact, besides, monkeypatch, tmp_path):
    monkeypatch.setattr(prepare, "Quality", lambda image_set, after: lambda read: float(read(range(3)).mean()))
    fields = dict(num_steps=4, log_every=1, sample_every=2, checkpoint_every=2, quality=True)
    exact(tmp_path / "beside", **fields)
    monkeypatch.setattr(beside, "suits", lambda: False)
    exact(tmp_path / "at once", **fields)
    assert_same_run(tmp_path / "at once", tmp_path / "beside")
    names = [sorted(p.name for p in (tmp_path / run / "samples").iterdir()) for run in ("at once", "beside")]
    assert names[0] == names[1]


def test_a_stopped_run_has_finished_what_was_beside_it(exact, besides, monkeypatch, tmp_path):
    requests = Requests(3)
    monkeypatch.setattr(train.StopVote, "vote", _counting(requests, train.StopVote.vote))
    with pytest.raises(Preempted, match="stopped at step 3"):
        exact(tmp_path, requests=requests, log_every=1, sample_every=2, checkpoint_every=2)
    assert checkpoint.steps(tmp_path) == [2, 3]


def _counting(requests, original):
    def vote(stop, call):
        requests.calls += 1
        return original(stop, call)

    return vote


def test_numbers_that_are_not_finite_are_told_with_the_checkpoint_that_was_on_its_way(
    exact, besides, monkeypatch, tmp_path
):
    def diverging(reporter, results):
        values = original(reporter, results)
        return values if results.steps.stop < 3 else reporter._diverged(results.steps.stop, "d_loss is nan")

    original = train.Reporter._finite_values
    monkeypatch.setattr(train.Reporter, "_finite_values", diverging)
    with pytest.raises(TrainingError, match="the checkpoint of step 2 is the last good one"):
        exact(tmp_path, log_every=1, sample_every=2, checkpoint_every=2)


def test_a_collapse_that_is_seen_beside_training_goes_back(exact, besides, monkeypatch, tmp_path):
    seen = []

    def watch(self, step, values):
        seen.append(step)
        return collapse.Collapsed(step, 3, "a collapse") if step == 4 and seen.count(4) == 1 else None

    monkeypatch.setattr(collapse.Watch, "__call__", watch)
    exact(tmp_path, log_every=1, sample_every=2, checkpoint_every=2, on_collapse="rollback")
    assert seen.count(4) == 2
    assert seen[: seen.index(4) + 1] == [1, 2, 3, 4], "nothing is written after the line that shows it"
    assert checkpoint.steps(tmp_path)[-1] == 8


def test_a_full_disk_beside_training_stops_it(exact, besides, monkeypatch, tmp_path):
    def refuse(self, *arguments):
        raise TrainingError("checkpoint: step 2 could not be saved")

    monkeypatch.setattr(checkpoint.Checkpoints, "save", refuse)
    with pytest.raises(TrainingError, match="step 2 could not be saved"):
        exact(tmp_path, log_every=2, sample_every=2, checkpoint_every=2)
