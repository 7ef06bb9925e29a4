"""Python's collector of garbage: out of the way of imports and traces, and left as the user has it."""

import gc
import subprocess
import sys

import pytest

from dcgan_jax.runtime import collector


@pytest.fixture
def collections():
    """How often each generation was collected since; what the test suite set is put back."""
    thresholds, frozen, was_on = gc.get_threshold(), gc.get_freeze_count(), gc.isenabled()
    gc.unfreeze()
    gc.enable()
    found = []

    def note(phase, info):
        if phase == "start":
            found.append(info["generation"])

    gc.callbacks.append(note)
    yield found
    gc.callbacks.remove(note)
    gc.set_threshold(*thresholds)
    if frozen:
        gc.freeze()
    if not was_on:
        gc.disable()


def make(count):
    return [[] for _ in range(count)]


def test_nothing_is_collected_inside_nor_gone_through_at_the_end(collections):
    gc.set_threshold(700, 10, 10)
    with collector.paused_to_import("a module of no package"):
        collections.clear()
        kept = make(100_000)
    assert not collections
    assert len(gc.get_objects(generation=0)) < 1000 < len(kept)
    assert not gc.get_freeze_count()
    more = make(2000)
    assert collections  # again, as before
    del more


def test_garbage_from_inside_is_found_later(collections):
    class Node:
        pass

    with collector.paused_to_import("a module of no package"):
        node = Node()
        node.itself = node
        del node
    gc.collect()
    assert not any(isinstance(x, Node) for x in gc.get_objects())


def test_what_the_user_has_frozen_or_turned_off_stays_so(collections):
    kept = make(2000)
    gc.freeze()
    frozen = gc.get_freeze_count()
    assert frozen >= len(kept)
    with collector.paused_to_import("a module of no package"):
        pass
    assert gc.get_freeze_count() == frozen
    gc.disable()
    gc.set_threshold(700, 10, 10)
    with collector.paused_to_import("a module of no package"):
        pass
    collector.collect_rarely()
    assert not gc.isenabled()
    assert gc.get_threshold() == (700, 10, 10)


def test_what_is_imported_already_changes_nothing(collections):
    gc.set_threshold(700, 10, 10)

    class Node:
        pass

    for _ in range(50):
        with collector.paused_to_import("gc"):
            for _ in range(300):
                node = Node()
                node.itself = node
    assert sum(isinstance(x, Node) for x in gc.get_objects()) < 2000


def test_it_is_on_again_after_an_error(collections):
    with pytest.raises(ValueError, match="inside"), collector.paused_to_import("a module of no package"):
        raise ValueError("inside")
    assert gc.isenabled()


def test_launchers_collect_rarely_and_imports_of_the_package_leave_the_settings_alone():
    program = (
        "import gc, sys; told = lambda: (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count() < 1000); "
        "before = told(); import dcgan_jax; dcgan_jax.UserError; print(told() == before); "
        "sys.path[:0] = ['launch']; import cli; sys.argv = ['x']; "
        "cli.run(lambda: print(gc.get_threshold()), '')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True", str(collector.THRESHOLDS)]
