"""All launchers: one real process each, and `call`, which other tests use in its place."""

import logging
import os
import re
import shutil
import signal
import sys

import jax
import pytest
from absl import flags
from conftest import ROOT, SMALL, call, launch

from dcgan_jax import inference, train
from dcgan_jax.run import prepare
from dcgan_jax.runtime import devices

LAUNCHERS = [
    "evaluate",
    "explore",
    "export_weights",
    "figure",
    "import_weights",
    "nearest_neighbour",
    "prepare",
    "probe",
    "report",
    "sample",
    "supervised",
    "sweep",
    "train",
]


def test_the_list_of_launchers_is_complete():
    scripts = [path.stem for path in (ROOT / "launch").glob("*.py") if "cli.run(" in path.read_text()]
    assert sorted(scripts) == LAUNCHERS


@pytest.mark.parametrize("script", LAUNCHERS)
def test_each_explains_its_flags(script):
    done = launch(script, "--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    imported = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    assert "absl.flags" in imported
    assert not {"jax", "orbax", "matplotlib"} & set(imported), "an answer takes no seconds"
    assert done.stdout.count(f"    python launch/{script}.py") >= 2, "examples"
    assert len(done.stdout.splitlines()) < 80
    inside = call(script, "--help")
    assert (inside.returncode, inside.stdout, inside.stderr) == (0, done.stdout, "")


def test_the_help_of_a_figure_lists_its_own_flags():
    told = launch("figure", "walk", "--help").stdout
    assert "--seed" in told
    assert not {"--boxes", "--test"} & set(re.findall(r"--\w+", told))
    assert "--boxes" in launch("figure", "forget", "--help").stdout


@pytest.mark.parametrize("script", LAUNCHERS)
def test_a_process_and_a_call_refuse_no_arguments_alike(script):
    done, inside = launch(script), call(script)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert (inside.returncode, inside.stdout, inside.stderr) == (2, done.stdout, done.stderr)


WITH_STEP = {
    "evaluate": ("--metrics=fid100_train", "--features=own_features:blocks"),
    "export_weights": ("--format=torch",),
    "figure": ("walk",),
    "nearest_neighbour": (),
    "probe": (),
    "sample": ("--num=2",),
}


def test_the_list_of_launchers_with_a_step_is_complete():
    with_step = [name for name in LAUNCHERS if '"step", None' in (ROOT / "launch" / f"{name}.py").read_text()]
    assert with_step == sorted(WITH_STEP)


@pytest.mark.parametrize("script", WITH_STEP)
def test_each_that_takes_a_step_takes_the_best(script, best_of_two, tmp_path):
    arguments = [argument for argument in WITH_STEP[script] if not argument.startswith("--")]
    flags = [argument for argument in WITH_STEP[script] if argument.startswith("--")]
    wrong = call(script, *arguments, *flags, f"--workdir={best_of_two}", "--step=worst")
    assert wrong.returncode == 2
    assert "'worst'" in wrong.stderr or "--step=worst" in wrong.stderr
    assert "expected a checkpoint's step, " in wrong.stderr
    done = call(script, *arguments, *flags, f"--workdir={best_of_two}", "--step=best")
    assert "the best checkpoint is that of step 1" in done.stderr, done.stderr


def test_of_all_steps_those_that_are_gone_meanwhile_are_left_out(best_of_two, monkeypatch):
    loading = inference.load

    def pruned(workdir, step=None):
        if step == 1:  # by a run that is training
            shutil.rmtree(best_of_two / "checkpoints" / "1", ignore_errors=True)
        return loading(workdir, step)

    monkeypatch.setattr(inference, "load", pruned)
    measuring = ("evaluate", *WITH_STEP["evaluate"], f"--workdir={best_of_two}")
    done = call(*measuring, "--step=all")
    assert done.returncode == 0, done.stderr
    assert "step 1: left out, as its checkpoint was removed meanwhile" in done.stderr
    assert "step 2  fid100_train" in done.stdout
    assert call(*measuring, "--step=1").returncode == 2


def test_of_all_steps_the_newest_is_measured_even_if_it_is_gone_by_then(best_of_two, monkeypatch):
    loading = inference.load

    def pruned(workdir, step=None):
        gan = loading(workdir, step)
        shutil.rmtree(best_of_two / "checkpoints")  # by a run that is training, with config.keep=1
        return gan

    monkeypatch.setattr(inference, "load", pruned)
    done = call("evaluate", *WITH_STEP["evaluate"], f"--workdir={best_of_two}", "--step=all")
    assert done.returncode == 0, done.stderr
    assert "step 2  fid100_train" in done.stdout


WITHOUT_A_DEVICE = {
    "evaluate": ("--metrics=fid100", "--images=tests", "--images=tests"),
    "explore": ("--workdir={run}",),
    "export_weights": ("--format=torch", "--workdir={run}"),
    "figure": ("walk", "--workdir={run}"),
    "import_weights": ("--format=torch", "--file=x", "--out={run}/new"),
    "nearest_neighbour": ("--workdir={run}",),
    "prepare": (*SMALL, "--config.data.prepared={run}/prepared", "--deduplicate"),
    "probe": ("--workdir={run}",),
    "report": ("--workdir={run}",),
    "sample": ("--workdir={run}",),
    "supervised": ("--workdir={run}",),
    "train": (*SMALL, "--workdir={run}"),
}


def test_the_list_of_launchers_with_a_device_is_complete():
    assert sorted([*WITHOUT_A_DEVICE, "sweep"]) == LAUNCHERS


@pytest.mark.parametrize("script", WITHOUT_A_DEVICE)
def test_a_missing_device_is_one_line_and_nothing_is_written(script, straight_run, monkeypatch):
    def missing():
        raise AssertionError  # what JAX raises for JAX_PLATFORMS=cuda on a machine without

    monkeypatch.setattr(jax, "local_devices", missing)
    monkeypatch.setattr(devices, "_platforms", lambda: ["cpu"])
    before = sorted(straight_run.rglob("*"))
    done = call(script, *(argument.format(run=straight_run) for argument in WITHOUT_A_DEVICE[script]))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: JAX_PLATFORMS: found 'cpu', expected cpu, which is all that JAX finds here; ")
    assert done.stderr.count("\n") == 1
    assert sorted(straight_run.rglob("*")) == before


def test_a_process_without_the_device_names_what_there_is(straight_run):
    done = launch("sample", f"--workdir={straight_run}", JAX_PLATFORMS="cuda,gppu")
    assert done.returncode == 2
    assert done.stderr.startswith("error: JAX_PLATFORMS: found 'cuda,gppu', expected cpu, which is all that JAX finds")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "flags", "told"),
    [
        ("train", ("--config=configs/digits.py", "--workdir="), "--workdir: empty, expected a run directory; leave"),
        (
            "train",
            (*SMALL, "--config.recipe=paper"),
            "--config.recipe: found 'paper', .* write --config=configs/NAME.py:p",
        ),
        (
            "sample",
            ("--workdir={run}", "--num=1000000000000"),
            "--num: found 1000000000000, 256000 GB of images, expected",
        ),
        ("sample", ("--workdir={run}", "--step=best"), r"nothing measures this run \(config.quality is False\)"),
    ],
)
def test_what_would_do_something_else_is_refused(script, flags, told, straight_run):
    done = call(script, *(flag.format(run=straight_run) for flag in flags))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert re.search(told, done.stderr), done.stderr


def test_samples_of_the_best(best_of_two):
    done = call("sample", f"--workdir={best_of_two}", "--step=best", "--num=2")
    assert done.stdout == f"{best_of_two}/generated/step_00000001_seed_0_num_2.png\n"
    assert call("sample", f"--workdir={best_of_two}", "--num=2").stdout.count("step_00000002") == 1


@pytest.fixture
def best_of_two(tiny, tmp_path, monkeypatch):
    """A run whose first checkpoint is better than its second."""
    numbers = iter((0.2, 0.3))
    monkeypatch.setattr(prepare, "Quality", lambda image_set, after: lambda read: next(numbers))
    train.train(tiny(num_steps=2, checkpoint_every=1, latent_dim=100, quality=True), tmp_path / "run")
    return tmp_path / "run"


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
    assert f"starting {workdir} at step 0\n" in done.stderr
    assert (state(), sys.path, sys.argv) == (before, path, arguments)
    again = call("train", *SMALL, "--config.num_steps=2", f"--workdir={workdir}")
    assert again.stderr == f"nothing to do: {workdir} is at step 2 of 2\n"
    # A value of one call is not seen by the next.
    out = tmp_path / "out.png"
    assert call("sample", f"--workdir={workdir}", "--num=2", f"--out={out}").stdout == f"{out}\n"
    other = call("sample", f"--workdir={workdir}", "--num=2")
    assert other.stdout == f"{workdir}/generated/step_00000002_seed_0_num_2.png\n"
    assert state() == before
