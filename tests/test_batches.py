"""The order of batches, and their way to the step."""

import threading

import numpy as np
import pytest

from dcgan_jax import data


def numbered(count):
    return data.ImageSet(np.arange(count, dtype=np.int64).reshape(count, 1, 1, 1), None, {})


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (8, 4), (3, 8)])
def test_every_image_once_an_epoch_in_a_fresh_order(count, batch_size):
    batches = data.Batches(numbered(count), batch_size, seed=1)
    stream = np.concatenate([batches.indices(step) for step in range(20)])
    epochs = stream[: len(stream) // count * count].reshape(-1, count)
    assert (np.sort(epochs, axis=1) == np.arange(count)).all()
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_batch_is_a_function_of_seed_and_step():
    one, other = (data.Batches(numbered(50), 8, seed=1) for _ in range(2))
    for step in (7, 0, 30, 7):
        np.testing.assert_array_equal(one(step)["images"], other(step)["images"])
    assert one.indices(7).tolist() != data.Batches(numbered(50), 8, seed=2).indices(7).tolist()


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_hosts_share_the_same_global_batches(hosts):
    whole = data.Batches(numbered(21), 16, seed=3)
    parts = [data.Batches(numbered(21), 16, seed=3, process_index=h, process_count=hosts) for h in range(hosts)]
    for step in range(5):
        together = np.concatenate([part.indices(step) for part in parts])
        np.testing.assert_array_equal(together, whole.indices(step))


def test_a_batch_after_resume_is_that_of_the_straight_run():
    # In mid-epoch: no step before was asked for.
    straight = data.Batches(numbered(50), 8, seed=1)
    taken = [straight.indices(step).tolist() for step in range(10)]
    assert data.Batches(numbered(50), 8, seed=1).indices(9).tolist() == taken[9]


def test_prefetch_gives_each_step_in_turn_from_one_thread():
    threads = set()

    def work(step):
        threads.add(threading.current_thread())
        return step * step

    assert list(data.prefetch(work, range(3, 9))) == [9, 16, 25, 36, 49, 64]
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_prefetch_works_before_it_is_asked_and_not_far_ahead():
    started, second = [], threading.Event()

    def work(step):
        started.append(step)
        if step == 2:
            second.set()

    steps = data.prefetch(work, range(100), depth=2)
    next(steps)
    assert second.wait(10)  # a step that nobody asked for
    steps.close()
    assert len(started) <= 3


def test_an_error_in_a_prefetched_step_is_raised_at_its_turn():
    steps = data.prefetch(lambda step: 1 // (2 - step), range(5))
    assert [next(steps), next(steps)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(steps)
