"""Several processes on loopback: the same training on any number, errors on all, none waits for one that died."""

import json
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import ROOT, SMALL, Job, call, free_port, launch
from PIL import Image

from dcgan_jax.run import checkpoint
from dcgan_jax.runtime import cluster
from dcgan_jax.runtime.errors import TrainingError, UserError

# Labels and flips belong to places in the batch: runs are equal only if their images come in the same order.
EXACT = (*SMALL, "--config.dtype=float64", "--config.num_classes=10", "--config.data.flip=True")
EXACT = (*EXACT, "--config.checkpoint_every=1000", "--config.sample_every=1000")


def train_exactly(workdir, steps, processes, devices, *flags):
    arguments = (*EXACT, f"--config.num_steps={steps}", f"--workdir={workdir}", *flags)
    if processes == 1:
        done = launch("train", *arguments, devices=devices, JAX_ENABLE_X64="1")
        assert done.returncode == 0, done.stderr
        return
    with Job(workdir.parent / f"{workdir.name}_{steps}", processes, devices, *arguments, JAX_ENABLE_X64="1") as job:
        assert job.wait() == [0] * processes, job.told()


def assert_equal_runs(one, other, logged):
    (one_tree, one_meta), (other_tree, other_meta) = checkpoint.read(one), checkpoint.read(other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-8), one_tree, other_tree)
    assert one_meta["data"] == other_meta["data"]
    assert [line["step"] for line in lines(other)] == logged
    by_step = {line["step"]: line for line in lines(one)}
    for line in lines(other):
        assert line["d_loss"] == pytest.approx(by_step[line["step"]]["d_loss"], abs=1e-8)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(made_once):
    """Ten steps in float64 on one device."""
    workdir = made_once("alone", lambda workdir: train_exactly(workdir, 10, 1, 1))
    assert checkpoint.read(workdir)[0]["generator"]["params"]["conv_0"]["kernel"].dtype == np.float64
    return workdir


def test_other_processes_and_devices_train_the_same_network(alone, tmp_path):
    # Calls of five steps by 2 processes with 2 devices each.
    train_exactly(tmp_path / "run", 10, 2, 2, "--config.log_every=5", "--config.steps_per_call=5")
    assert_equal_runs(alone, tmp_path / "run", logged=[5, 10])


@pytest.mark.nightly
def test_other_processes_go_on_with_a_run(alone, tmp_path):
    # A call of five steps and one of a single step by 2 processes with 2 devices each; then 1 process with 4.
    train_exactly(tmp_path / "run", 6, 2, 2, "--config.log_every=5", "--config.steps_per_call=5")
    train_exactly(tmp_path / "run", 10, 1, 4)
    assert_equal_runs(alone, tmp_path / "run", logged=[5, 6, 7, 8, 9, 10])


@pytest.mark.nightly
@pytest.mark.parametrize(("processes", "devices"), [(4, 1), (2, 2), (1, 4)])
def test_a_whole_run_by_processes_and_devices(alone, tmp_path, processes, devices):
    train_exactly(tmp_path / "run", 10, processes, devices)
    assert_equal_runs(alone, tmp_path / "run", logged=list(range(1, 11)))


def wait_until(job, reached):
    deadline = time.monotonic() + 200
    while not reached():
        assert time.monotonic() < deadline, job.told()
        assert all(process.poll() is None for process in job.processes), job.told()
        time.sleep(0.1)


def wait_for_steps(job, workdir):
    wait_until(job, lambda: (workdir / "metrics.jsonl").exists() and len(lines_so_far(workdir)) >= 5)


def lines_so_far(workdir):
    return (workdir / "metrics.jsonl").read_text().splitlines()


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.nightly), 4])
def test_a_stop_request_to_one_process_stops_all_at_the_same_step(tmp_path, count):
    workdir = tmp_path / "run"
    flags = ("--config.num_steps=100000", f"--config.log_every={count}", f"--config.steps_per_call={count}")
    with Job(tmp_path, 2, 2, *SMALL, *flags, f"--workdir={workdir}") as job:
        wait_for_steps(job, workdir)
        job.processes[1].send_signal(signal.SIGTERM)
        assert job.wait(60) == [75, 75], job.told()
    step = lines(workdir)[-1]["step"]
    assert checkpoint.steps(workdir)[-1] == step
    assert job.told().count(f"stopped at step {step} on") == 2


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_when_one_process_dies_the_other_ends_and_a_restart_resumes(tmp_path, victim):
    workdir = tmp_path / "run"
    with Job(tmp_path, 2, 1, *SMALL, "--config.num_steps=100000", f"--workdir={workdir}") as job:
        wait_for_steps(job, workdir)
        wait_until(job, lambda: checkpoint.steps(workdir))  # written beside the steps, which may be well past it
        job.processes[victim].kill()
        code = job.processes[1 - victim].wait(60)
        # 1 with one line, or JAX's own abort if its service noticed first.
        assert code in (1, -signal.SIGABRT), job.told()
    assert "gone" in job.told() or "another task died" in job.told()
    kept = checkpoint.steps(workdir)[-1]
    done = call("train", *SMALL, f"--config.num_steps={kept + 1}", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert f"resuming {workdir} from step {kept}" in done.stderr
    assert [line["step"] for line in lines(workdir)] == list(range(1, kept + 2))


FOLDER = ("--config.data.source=folder", "--config.data.prepared={tmp}/prepared", "--config.data.path={tmp}/images")
MISTAKES = {
    "config.width: 4 on process 0, 5 on process 1": ((), ("--config.width=5",)),
    # Each host may have its images in another place.
    "error: process 1: config.data.path: '/does/not/exist'": (
        FOLDER,
        (*FOLDER[:2], "--config.data.path=/does/not/exist"),
    ),
    "error: process 0: workdir: '{tmp}/file' is a file": (("--workdir={tmp}/file",), ()),
}


@pytest.mark.parametrize(
    "told", [pytest.param(told, marks=pytest.mark.nightly if "workdir" in told else ()) for told in MISTAKES]
)
def test_a_mistake_on_one_process_ends_all(tmp_path, told):
    (tmp_path / "file").write_text("")
    (tmp_path / "images").mkdir()
    Image.new("L", (16, 16)).save(tmp_path / "images" / "one.png")
    each = [[flag.format(tmp=tmp_path) for flag in flags] for flags in MISTAKES[told]]
    for flags in each:
        if not any(flag.startswith("--workdir") for flag in flags):
            flags.append(f"--workdir={tmp_path}/run")
    with Job(tmp_path, 2, 1, *SMALL, "--config.num_steps=3", each=each) as job:
        assert job.wait(120) == [2, 2], job.told()
    for output in job.outputs:
        assert output.read_text().splitlines()[-1].startswith("error: ")
    assert told.format(tmp=tmp_path) in job.told()
    assert not (tmp_path / "run").exists()


def test_a_process_whose_job_does_not_start_ends_in_time(tmp_path):
    with Job(tmp_path, 2, 1, *SMALL, "--start_timeout=3", f"--workdir={tmp_path}/run") as job:
        job.processes[1].kill()
        assert job.wait(60)[0] == 1
    assert "did not come together at 127.0.0.1" in job.outputs[0].read_text()
    assert not (tmp_path / "run").exists()


TALK = """
import sys, time, jax, numpy as np
from dcgan_jax.runtime import cluster, multihost
from dcgan_jax.runtime.errors import TrainingError, UserError
port, process = sys.argv[1], int(sys.argv[2])
cluster.start(coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=process, timeout=60)
assert multihost.gather("a" * process + "é") == ["é", "aé"]
tree = {"x": np.array([-0.0, 1.5, np.inf]) * (1 - process), "y": np.int32(7 - process), "z": np.zeros((0, 3))}
got = multihost.broadcast(tree)
assert np.signbit(got["x"][0]) and got["x"].tolist() == [0, 1.5, np.inf] and got["y"] == 7 and got["z"].shape == (0, 3)
assert got["x"].dtype == np.float64 and got["y"].dtype == np.int32
multihost.KEEP_ALIVE = 0.1
assert multihost.run_on_all(lambda: time.sleep(1 - process) or process) == process
for kind, expected in ((UserError, UserError), (TrainingError, TrainingError), (KeyError, TrainingError)):
    try:
        with multihost.fail_on_all():
            if process == 1:
                raise kind("wrong here")
    except Exception as error:
        assert isinstance(error, kind if process else expected), repr(error)
        assert process == 1 or str(error).startswith("process 1: "), error
    else:
        raise AssertionError
try:
    multihost.check_equal({"same": 1, "lists": [1, 2 + process]})
except UserError as error:
    assert "lists: [1, 2] on process 0, [1, 3] on process 1" in str(error) and "same" not in str(error)
else:
    raise AssertionError
print("talked")
"""


def test_what_processes_send_one_another(tmp_path):
    command = [sys.executable, "-c", TALK, str(free_port())]
    both = [subprocess.Popen([*command, str(i)], cwd=ROOT, stdout=-1, stderr=-2, text=True) for i in (0, 1)]
    for process in both:
        told = process.communicate(timeout=120)[0]
        assert process.returncode == 0, told
        assert "talked" in told


WRONG_STARTS = [
    (dict(coordinator="host"), "--num_processes: missing"),
    (dict(num_processes=2, process_id=0), "--coordinator: missing"),
    (dict(coordinator="host", num_processes=2, process_id=0), "expected HOST:PORT"),
    (dict(coordinator="host:0", num_processes=2, process_id=0), "expected HOST:PORT"),
    (dict(coordinator="host:80", num_processes=2, process_id=2), "expected a number from 0 to 1"),
    (dict(coordinator="host:80", num_processes=0, process_id=0), "expected at least 1"),
]


@pytest.mark.parametrize(("arguments", "told"), WRONG_STARTS, ids=[told for _, told in WRONG_STARTS])
def test_starts_that_do_not_fit_together_are_told(arguments, told):
    with pytest.raises(UserError, match=told):
        cluster.start(**arguments)


SIGNS = [
    {"SLURM_STEP_NUM_TASKS": "2"},
    {"OMPI_COMM_WORLD_SIZE": "4"},
    {"PMI_SIZE": "2"},
    {"TPU_WORKER_HOSTNAMES": "a,b"},
    {"MEGASCALE_NUM_SLICES": "2"},
    {},  # on a TPU machine, which may be one of many
]


@pytest.mark.parametrize("environment", SIGNS, ids=lambda environment: next(iter(environment), "TPU"))
@pytest.mark.parametrize("error", [ValueError("no address"), RuntimeError("port in use"), OSError("no metadata")])
def test_signs_of_several_processes_never_end_in_runs_of_their_own(monkeypatch, environment, error):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cluster, "_on_tpu", lambda: not environment)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    # The scripts start a job again unless it ends with a mistake of the user's: these failures may pass.
    kind = UserError if isinstance(error, ValueError) else TrainingError
    with pytest.raises(kind, match=str(error)):
        cluster.start()
    cluster.start(num_processes=1)


@pytest.mark.parametrize("environment", [{}, {"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_NTASKS": "4"}])
def test_without_them_a_process_is_alone(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cluster, "_on_tpu", lambda: False)
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: joined.append(True))
    cluster.start()
    assert not joined
