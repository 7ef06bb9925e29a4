"""Long work shows how far it is; short work, and all but the first process, show nothing."""

import io
import sys
import threading

import jax
import pytest

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
        monkeypatch.setattr(module, "INTERVAL", 0.001)
        return stream

    return make


def test_the_time_left_is_by_what_came_after_the_first(monkeypatch):
    clock = iter((0.0, 0.0, 60.0, 70.0))  # the first one waited for a compilation
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    work = Progress("preparing", 100, "images", compiles=True)
    assert str(work) == "preparing: 0/100 images, compiling, once"
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


def test_of_two_the_inner_one_is_shown(screen):
    stream = screen(quiet=0.001)
    with Progress("drawing"):
        assert stream.written.wait(30)
        with Progress("features", 3, "images"):
            while stream.getvalue().count("features") < 5:
                stream.written.wait(0.01)
            told = stream.getvalue().partition("features")[2].splitlines()
    assert not [line for line in told[2:] if "drawing" in line]  # one may have been on its way


def test_one_process_of_several_shows_it(screen, monkeypatch):
    stream = screen(quiet=0.0001)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with Progress("hashing") as work:
        assert not work._thread.is_alive()
    assert not stream.getvalue()
