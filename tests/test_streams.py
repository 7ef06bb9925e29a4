"""Closed streams and pipes without a reader: nothing is told, and the exit code is that of the work."""

import io
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from dcgan_jax.runtime import streams


def pipe_without_reader():
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize("buffering", [io.BufferedWriter, lambda raw: raw], ids=["buffered", "unbuffered"])
def test_what_nobody_reads_is_lost_without_an_error(buffering):
    raw = io.FileIO(pipe_without_reader(), "w")
    original = io.TextIOWrapper(buffering(raw), encoding="latin-1", write_through=True)
    stream = streams._forgiving(original, streams._Pipe)
    assert stream.encoding == "latin-1"
    print("\xe9" * 100_000, file=stream, flush=True)
    stream.close()
    original.close()


def test_other_errors_stay_but_for_those_of_stderr():
    with open("/dev/full", "w", encoding="utf-8") as full:
        stream = streams._forgiving(full, streams._Pipe)
        with pytest.raises(OSError, match="No space left"):
            print("text", file=stream, flush=True)
        print("text", file=streams._forgiving(full, streams._Errors), flush=True)


def test_what_an_encoding_lacks_is_printed_by_its_code(tmp_path):
    with open(tmp_path / "printed", "w", encoding="ascii") as file:
        print("\xfc", file=streams._forgiving(file, streams._Pipe), flush=True)
    assert (tmp_path / "printed").read_text() == "\\xfc\n"


def test_streams_that_a_test_has_put_there_are_left_alone(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    streams.forgive_closed_pipes()
    assert sys.stdout is sys.stderr is stream


# Nothing that a launcher opens may get the number of a closed stream: libraries would print into it.
LAUNCHER = """
import os, runpy, sys
pipe = os.pipe
def checked():
    ends = pipe()
    if min(ends) <= 2:
        os._exit(9)
    return ends
os.pipe = checked
sys.argv = ["launch/train.py", *sys.argv[1:]]
sys.path.insert(0, "launch")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(("argument", "closed", "code"), [("--help", "2>&-", 0), ("--config=none.py", ">&- 2>&-", 2)])
def test_a_launcher_ends_with_the_code_of_its_work(argument, closed, code):
    write = pipe_without_reader()
    command = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-c", LAUNCHER, argument]
    done = subprocess.run(command, cwd=ROOT, stdout=write, timeout=60)
    os.close(write)
    assert done.returncode == code
