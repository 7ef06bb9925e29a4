"""Long work shows how far it is; short work, and all but the first process, show nothing."""

import io
import json
import sys
import threading
from contextlib import suppress

import jax
import numpy as np
import pytest

from dcgan_jax import inference
from dcgan_jax.runtime import compile_times
from dcgan_jax.runtime import progress as module
from dcgan_jax.runtime.progress import Progress, progress


class Screen(io.StringIO):
    """A stream that tells when something was written."""

    def __init__(self, terminal=False):
        super().__init__()
        self.terminal, self.written = terminal, threading.Event()

    def isatty(self):
        return self.terminal

    def write(self, text):
        count = super().write(text)
        self.written.set()
        return count


@pytest.fixture
def screen(monkeypatch):
    def make(quiet, terminal=False):
        stream = Screen(terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(module, "QUIET", quiet)
        monkeypatch.setattr(module, "INTERVAL", quiet)
        return stream

    return make


def test_the_time_left_is_by_what_came_after_the_first(monkeypatch):
    clock = iter((0.0, 0.0, 60.0, 70.0))  # the first one waited for a compilation
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    work = Progress("preparing", 100, "images", compiles=True)
    assert str(work) == "preparing: 0/100 images, compiling"
    work.update(10)
    assert str(work) == "preparing: 10/100 images"
    work.update(10)
    assert str(work) == "preparing: 20/100 images  01:20 left"


def test_a_line_is_printed_while_nothing_moves(screen):
    stream = screen(quiet=0.001)
    for _ in progress([1], "hashing", "images"):
        assert stream.written.wait(30)
    assert stream.getvalue().startswith("hashing: 0/1 images\n")
    assert "\r" not in stream.getvalue()


def test_a_terminal_gets_a_bar(screen):
    stream = screen(quiet=0.001, terminal=True)
    with Progress("hashing", 4, "images", done=2):
        assert stream.written.wait(30)
    assert "hashing: 2/4 images" in stream.getvalue()
    assert "50%" in stream.getvalue()


def test_short_work_shows_nothing(screen):
    stream = screen(quiet=30)
    assert list(progress([1, 2], "hashing", "images")) == [1, 2]
    assert not stream.getvalue()


def test_short_work_after_much_without_a_line_shows_one(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    silence = module._Silence()

    def work(seconds, pause=0.0):
        now[0] += pause
        silence.begins()
        remaining = silence.remaining()
        now[0] += seconds
        silence.lasts()
        return remaining

    # Each shorter than what is shown, but 7.5 s in all.
    assert [work(1.5) for _ in range(6)] == [2, 2, 2, 2, 1, 0]
    silence.ends()
    assert work(1.5) == module.QUIET
    assert work(1.5, pause=60) == module.QUIET, "nobody waits for what has ended"
    assert [work(0.1, pause=1.0) for _ in range(9)] == [module.QUIET] * 9, "pauses are no work"


def test_of_two_the_inner_one_is_shown(screen):
    stream = screen(quiet=0.001)
    with Progress("drawing"):
        assert stream.written.wait(30)
        with Progress("features", 3, "images"):
            while stream.getvalue().count("features") < 5:
                stream.written.wait(0.01)
            told = stream.getvalue().partition("features")[2].splitlines()
    assert not [line for line in told[2:] if "drawing" in line]  # one may have been on its way


def test_what_can_tell_the_time_left_is_shown_rather_than_what_is_within_it(screen):
    stream = screen(quiet=0.001)
    with Progress("features", 3, "images") as outer:
        outer.update()
        outer.update()
        with Progress("generating", 2, "images"):
            while stream.getvalue().count("features") < 5:
                stream.written.wait(0.01)
    assert "generating" not in stream.getvalue()


@pytest.fixture
def known(monkeypatch, tmp_path):
    """The file of compilation times."""
    monkeypatch.setattr(compile_times, "_file", lambda: tmp_path / compile_times.NAME)
    return tmp_path / compile_times.NAME


def compiling(seconds, shapes, *, read=0.0):
    """Work that has waited for the compiler, or that has read a program from the cache."""
    with Progress("sampling", 4, "images", compiles=shapes) as work:
        work._compilation._began -= seconds
        for event, sign in compile_times._EVENTS.items():
            compile_times._count(event, seconds if sign > 0 else read)
        work.update()


def test_a_wait_for_the_compiler_tells_how_long_the_last_one_was(known):
    compiling(31.2, {"kernel": np.zeros((2, 3)), "layer": 1})
    same, other = ({"kernel": np.ones((2, size)), "layer": 1} for size in (3, 4))
    with Progress("sampling", 4, "images", compiles=same) as work:
        assert str(work) == "sampling: 0/4 images, compiling, 00:31 last time"
        work.update()
        assert str(work) == "sampling: 1/4 images"
    assert str(Progress("sampling", compiles=same)) == "sampling  00:00 so far, 00:31 last time"
    assert str(Progress("sampling", 4, "images", compiles=other)) == "sampling: 0/4 images, compiling"
    assert str(Progress("judging", 4, "images", compiles=same)) == "judging: 0/4 images, compiling"


def test_what_was_read_from_the_cache_or_failed_says_nothing_of_the_compiler(known):
    compiling(31.0, 1, read=30.5)
    with suppress(ZeroDivisionError), Progress("sampling", compiles=1):
        compile_times._count(next(iter(compile_times._EVENTS)), 31.0)
        raise ZeroDivisionError
    assert not known.exists()


def test_what_jax_compiles_is_counted():
    compile_times._listen()
    before = compile_times._compiled()
    jax.jit(lambda x: x + before)(1.0)  # a constant that no other run has
    assert compile_times._compiled() > before


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"": null}', "missing folder"])
def test_a_file_of_times_that_is_damaged_is_no_error(known, damage, monkeypatch):
    if damage == "missing folder":
        monkeypatch.setattr(compile_times, "_file", lambda: known.parent / "missing" / known.name)
    else:
        known.write_text(damage)
    assert compile_times.Compilation("sampling", 1).last() is None
    compiling(31.0, 1)
    assert compile_times.Compilation("sampling", 1).last() == (None if "missing" in damage else 31.0)


def test_the_newest_times_are_kept(known, monkeypatch):
    monkeypatch.setattr(compile_times, "MOST", 3)
    for size in (1, 2, 3, 1, 4):
        compiling(9.0, size)
    assert [name.partition("[")[2][0] for name in json.loads(known.read_text())] == ["3", "1", "4"]
    assert [path.name for path in known.parent.iterdir()] == [known.name]


def test_a_trained_gan_shows_what_it_makes(straight_run, monkeypatch):
    shown = []

    class Recorded(Progress):
        def __exit__(self, *error):
            shown.append((self._title, self._total, self._done, self._compilation is not None))
            super().__exit__(*error)

    monkeypatch.setattr(inference, "Progress", Recorded)
    gan = inference.load(straight_run)
    gan.discriminate(gan.sample(65))
    made = [("generating", 65, 65, True), ("discriminating", 65, 65, True)]
    assert shown == [(f"loading {straight_run}", None, 0, False), *made]


def test_one_process_of_several_shows_it(screen, monkeypatch):
    stream = screen(quiet=0.0001)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with Progress("hashing") as work:
        assert not work._thread.is_alive()
    assert not stream.getvalue()
