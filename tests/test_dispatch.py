"""Several steps a call: the same run as with one, from wherever it goes on, and stopped where it should be."""

import json
from collections.abc import Callable

import jax
import numpy as np
import pytest

from dcgan_jax import train
from dcgan_jax.fields import INTERVALS
from dcgan_jax.run import checkpoint
from dcgan_jax.runtime import dispatch
from dcgan_jax.runtime.signals import Preempted, StopVote


@pytest.mark.parametrize(
    ("start", "end", "count", "ends"),
    [
        (0, 3, 1, [1, 2, 3]),
        (0, 9, 3, [3, 6, 9]),
        (2, 11, 3, [3, 6, 9, 10, 11]),
        (4, 5, 3, [5]),
        (1, 4, 5, [2, 3, 4]),
        (0, 3, 5, [1, 2, 3]),
        (6, 6, 3, []),
    ],
)
def test_calls_of_several_steps_begin_and_end_at_multiples(start, end, count, ends):
    made = list(dispatch.schedule(start, end, count))
    assert [call.stop for call in made] == ends
    assert [step for call in made for step in call] == list(range(start, end))
    assert all(len(call) == 1 or (len(call) == count and call.start % count == 0) for call in made)


def test_the_programs_are_those_that_the_schedule_calls():
    for start in range(8):
        for end in range(start + 1, 14):
            for count in range(1, 7):
                called = list(dict.fromkeys(len(call) for call in dispatch.schedule(start, end, count)))
                assert dispatch.sizes(start, end, count) == called, (start, end, count)


@pytest.mark.parametrize(
    ("backend", "fields", "count"),
    [
        ("cpu", {}, 1),
        ("cpu", {"steps_per_call": 5}, 5),
        ("gpu", {}, 10),
        ("tpu", {"log_every": 64, "sample_every": 320, "checkpoint_every": 640}, 16),
        ("gpu", {"log_every": 100, "sample_every": 7 * 34, "checkpoint_every": 34}, 2),
        ("gpu", {"log_every": 1}, 1),
        ("gpu", {"steps_per_call": 1}, 1),
    ],
)
def test_accelerators_make_as_many_as_the_logs_allow(tiny, monkeypatch, backend, fields, count):
    config = tiny(**fields)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    intervals = [config[name] for name in INTERVALS]
    assert dispatch.steps_per_call(config.steps_per_call, intervals) == count


EVERY = dict(log_every=6, sample_every=6, checkpoint_every=6)


class Requests:
    """A request to stop that comes in the call of this number; and the numbers of all calls so far."""

    def __init__(self, stop_in: int | None = None):
        self.stop_in, self.calls, self.held = stop_in, 0, False

    @property
    def name(self) -> str | None:
        return "SIGTERM" if self.stop_in and self.calls >= self.stop_in else None

    def hold(self) -> None:
        self.held = True


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """The numbers under which the loop has asked for requests, once a call."""
    numbers = []
    original = StopVote.vote

    def vote(stop, call):
        numbers.append(call)
        stop._requests.calls += 1
        return original(stop, call)

    monkeypatch.setattr(StopVote, "vote", vote)
    return numbers


@pytest.fixture
def exact(tiny) -> Callable:
    """Trains in float64; labels and flips tell if a step has the images of another."""

    def run(workdir, *, requests=None, placement="host", **fields):
        config = tiny(dtype="float64", num_classes=10, num_steps=8, **EVERY | fields)
        config.data.update(placement=placement, flip=True)
        with jax.enable_x64(True):
            return train.train(config, workdir, requests=requests or Requests())

    return run


@pytest.fixture(scope="module")
def singly(tmp_path_factory):
    return tmp_path_factory.mktemp("singly") / "run"


@pytest.fixture
def by_single_steps(exact, singly):
    """The folder of 8 steps, one a call."""
    if not checkpoint.steps(singly):
        exact(singly, steps_per_call=1)
    return singly


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(one, other):
    rates = {"images_per_sec", "data_wait", "overhead"}
    for a, b in zip(lines(one), lines(other), strict=True):
        assert a.keys() == b.keys()
        assert a["step"] == b["step"]
        for name in a.keys() - rates:
            assert a[name] == pytest.approx(b[name], abs=1e-8)
    trees = [checkpoint.read(workdir)[0] for workdir in (one, other)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-8), *trees)


@pytest.mark.nightly
@pytest.mark.parametrize("placement", ["host", "device"])
def test_several_steps_a_call_are_the_same_run(by_single_steps, exact, asked, tmp_path, placement):
    exact(tmp_path, placement=placement, steps_per_call=3)
    # JAX's preemption service wants to be asked under every number.
    assert asked == [1, 2, 3, 4], "steps 3, 6, 7 and 8"
    assert_same_run(by_single_steps, tmp_path)
    assert checkpoint.steps(tmp_path) == [6, 8]


def test_a_run_is_stopped_between_calls_and_goes_on_with_others(by_single_steps, exact, asked, tmp_path):
    for count, stop_in, end in ((3, 1, 3), (6, 2, 5)):
        requests = Requests(stop_in)
        with pytest.raises(Preempted, match=f"stopped at step {end} on SIGTERM"):
            exact(tmp_path, requests=requests, steps_per_call=count)
        assert requests.held
        assert checkpoint.steps(tmp_path)[-1] == end
    asked.clear()
    exact(tmp_path, steps_per_call=2)
    assert asked == [1, 2], "steps 6 and 8"
    assert_same_run(by_single_steps, tmp_path)
