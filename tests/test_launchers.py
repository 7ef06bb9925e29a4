"""All launchers: one real process each, and `call`, which other tests use in its place."""

import logging
import os
import signal
import sys

import pytest
from absl import flags
from conftest import ROOT, SMALL, call, launch

LAUNCHERS = [
    "evaluate",
    "export_weights",
    "figure",
    "import_weights",
    "nearest_neighbour",
    "prepare",
    "probe",
    "sample",
    "supervised",
    "train",
]


def test_the_list_of_launchers_is_complete():
    scripts = [path.stem for path in (ROOT / "launch").glob("*.py") if "cli.run(" in path.read_text()]
    assert sorted(scripts) == LAUNCHERS


@pytest.mark.parametrize("script", LAUNCHERS)
def test_each_explains_its_flags(script):
    done = launch(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python launch/{script}.py" in done.stdout
    inside = call(script, "--help")
    assert (inside.returncode, inside.stdout, inside.stderr) == (0, done.stdout, "")


@pytest.mark.parametrize("script", LAUNCHERS)
def test_a_process_and_a_call_refuse_no_arguments_alike(script):
    done, inside = launch(script), call(script)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert (inside.returncode, inside.stdout, inside.stderr) == (2, done.stdout, done.stderr)


def state():
    root, log = logging.getLogger(), logging.getLogger("dcgan_jax")
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    logs = (root.handlers[:], root.level, log.level)
    return set(flags.FLAGS), set(sys.modules) & {"cli", "processes"}, handlers, logs, os.getcwd(), dict(os.environ)


def test_calls_leave_nothing_behind(tmp_path):
    before, path, arguments = state(), sys.path[:], sys.argv[:]
    workdir = tmp_path / "run"
    done = call("train", *SMALL, "--config.num_steps=2", f"--workdir={workdir}", SOME_VARIABLE="1")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"starting {workdir} at step 0")
    assert (state(), sys.path, sys.argv) == (before, path, arguments)
    again = call("train", *SMALL, "--config.num_steps=2", f"--workdir={workdir}")
    assert again.stderr == f"nothing to do: {workdir} is at step 2 of 2\n"
    # A value of one call is not seen by the next.
    out = tmp_path / "out.png"
    assert call("sample", f"--workdir={workdir}", "--num=2", f"--out={out}").stdout == f"{out}\n"
    other = call("sample", f"--workdir={workdir}", "--num=2")
    assert other.stdout == f"{workdir}/generated/step_00000002_seed_0_num_2.png\n"
    assert state() == before
