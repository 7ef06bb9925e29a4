"""The scripts for TPU slices, Slurm and Kubernetes: what they would do, what they refuse, when they start again."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from conftest import ROOT, call

SCRIPTS = ["launch/tpu_pod.sh", "launch/slurm.sbatch", "launch/kubernetes/jobset.sh"]
FLAGS = ("--config=configs/celeba.py:paper", "--config.data.path=my pictures", '--config.data.name=a "b" $c')
TPU_POD = ("launch/tpu_pod.sh", "--name=faces", "--zone=us-central2-b", "--type=v4-32", "--bucket=mine")
JOBSET = ("launch/kubernetes/jobset.sh", "--name=faces", "--image=me/dcgan_jax:1", "--claim=disk")
GPU = (*JOBSET, "--gpus=8", "--nodes=2", "--dry-run", "--", *FLAGS)
TPU = (*JOBSET, "--tpu=tpu-v5-lite-podslice", "--topology=4x4", "--nodes=4", "--spot", "--dry-run", "--", *FLAGS)
SLURM = ("launch/slurm.sbatch", "--dry-run", *FLAGS, "--workdir=/shared/faces")
DRY_RUNS = {
    "tpu_pod": (*TPU_POD, "--dry-run", "--", *FLAGS),
    "tpu_pod_queued": (*TPU_POD, "--project=p", "--queued", "--spot", "--keep", "--dry-run", "--", *FLAGS),
    "slurm": SLURM,
    "jobset_gpu": GPU,
    "jobset_tpu": TPU,
}


def run(*command, **environment):
    # The tests may run on a cluster themselves: its variables are hidden from the scripts.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "TPU"))}
    kept |= {"TMPDIR": "/tmp"} | environment
    return subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("script", [*SCRIPTS, ".ci/run"])
def test_shellcheck_finds_nothing(script):
    done = run(Path(sys.executable).parent / "shellcheck", script)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", DRY_RUNS)
def test_a_dry_run_prints_what_would_be_done(name):
    # To renew: for each name, write what the command prints into tests/golden/NAME.txt, and read it.
    done = run(*DRY_RUNS[name])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (ROOT / "tests" / "golden" / f"{name}.txt").read_text()


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_explains_itself_without_a_cluster(script):
    done = run(script, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(f"{script} --") >= 3, "how it is called, and two examples"


WRONG = [
    (TPU_POD[:1], "--name: missing"),
    ((*TPU_POD, "--type=v4", "--", *FLAGS), "--type: found 'v4'"),
    ((*TPU_POD, "--name=Faces!", "--", *FLAGS), "--name: found 'Faces!'"),
    ((*TPU_POD, "--bucket=gs://mine", "--", *FLAGS), "without gs://"),
    ((*TPU_POD, "--retries=many", "--", *FLAGS), "--retries: found 'many'"),
    ((*TPU_POD, "--nothing", "--", *FLAGS), "unknown option --nothing"),
    (TPU_POD, "--config: missing"),
    ((*TPU_POD, "--", *FLAGS, "--workdir=x"), "--workdir=x: given by --bucket"),
    (SLURM[:2], "--config: missing"),
    (SLURM[:-1], "--workdir: missing"),
    (("launch/slurm.sbatch", *SLURM[2:]), "SLURM_JOB_ID: missing"),
    ((*JOBSET, "--", *FLAGS), "--gpus or --tpu: missing"),
    ((*JOBSET, "--gpus=8", "--tpu=x", "--topology=2x2", "--", *FLAGS), "found both"),
    ((*JOBSET, "--gpus=0", "--", *FLAGS), "--gpus: found '0'"),
    ((*JOBSET, "--tpu=x", "--", *FLAGS), "--topology: found ''"),
    ((*JOBSET, "--gpus=1", "--image=a\nb: c", "--", *FLAGS), "--image: found"),
    ((*JOBSET, "--gpus=1", "--max-restarts=-1", "--", *FLAGS), "--max-restarts: found '-1'"),
    ((*JOBSET, "--gpus=1"), "--config: missing"),
]


@pytest.mark.parametrize(("command", "told"), WRONG, ids=[told for _, told in WRONG])
def test_a_mistake_ends_with_2_and_one_line(command, told):
    done = run(*command)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert told in done.stderr


# The fields of a JobSet that we use, checked by hand against its API reference (jobset.sigs.k8s.io/docs/reference). The
# Jobs within are checked against Kubernetes's own schema.
TEXT, WHOLE, FLAG = {"type": "string"}, {"type": "integer", "minimum": 1}, {"type": "boolean"}


def record(**fields):
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


RULE = record(
    name=TEXT,
    action={"enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]},
    onJobFailureReasons={"type": "array", "items": {"enum": ["PodFailurePolicy", "BackoffLimitExceeded"]}},
)
JOBSET_SCHEMA = record(
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=record(name=TEXT),
    spec=record(
        network=record(enableDNSHostnames=FLAG, publishNotReadyAddresses=FLAG),
        failurePolicy=record(maxRestarts=WHOLE, rules={"type": "array", "items": RULE}),
        replicatedJobs={
            "type": "array",
            "items": record(name=TEXT, replicas=WHOLE, template=record(spec={"type": "object"})),
        },
    ),
)


@pytest.mark.parametrize("command", [GPU, TPU], ids=["gpu", "tpu"])
def test_the_manifests_are_valid(command):
    manifest = yaml.safe_load(run(*command).stdout)
    jsonschema.validate(manifest, JOBSET_SCHEMA)
    for replicated in manifest["spec"]["replicatedJobs"]:
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "train"}} | replicated["template"]
        kubernetes_validate.validate(job, "1.31", strict=True)
        container = job["spec"]["template"]["spec"]["containers"][0]
        assert container["args"][: len(FLAGS)] == list(FLAGS)
        assert "--workdir=/data/runs/faces" in container["args"]


@pytest.mark.parametrize("command", [GPU, SLURM], ids=["gpu", "slurm"])
def test_the_launcher_has_the_flags_that_the_scripts_pass(command):
    known = call("train", "--help").stdout
    for flag in re.findall(r"--(coordinator|num_processes|process_id|wait|workdir)\b", run(*command).stdout):
        assert f"--{flag}:" in known


def stubs(folder, **programs):
    """A folder of programs that write down how they were called."""
    folder.mkdir()
    for name, body in programs.items():
        (folder / name).write_text(f'#!/bin/bash\necho "{name} $*" >> "{folder}/calls"\n{body}\n')
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


ENDS = [  # code of the tasks, state of the job, restarts so far, code of the script, whether it is queued again
    (0, "RUNNING", 0, 0, False),
    (75, "RUNNING", 0, 0, True),
    (1, "RUNNING", 19, 0, True),
    (137, "RUNNING", 20, 137, False),
    (2, "RUNNING", 0, 2, False),
    (75, "CANCELLED", 0, 75, False),
]


@pytest.mark.parametrize(("code", "state", "restarts", "ends_with", "requeued"), ENDS)
def test_slurm_queues_a_job_again_that_may_go_on(tmp_path, code, state, restarts, ends_with, requeued):
    path = stubs(tmp_path / "bin", srun=f"exit {code}", squeue=f"echo {state}", scontrol="echo node7")
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_RESTART_COUNT": str(restarts)}
    done = run("launch/slurm.sbatch", *FLAGS, "--workdir=/x", PATH=path, PYTHON="/bin/true", **slurm)
    calls = (tmp_path / "bin" / "calls").read_text()
    assert done.returncode == ends_with, done.stderr
    assert ("scontrol requeue 7" in calls) == requeued
    assert "--coordinator=node7:20007" in calls


GCLOUD = """
next() { head -n 1 "$0.$1"; sed -i 1d "$0.$1"; }
case "$*" in
  *"tpu-vm describe"*)
    state=$(next states)
    [[ $state == [A-Z]* ]] && echo "$state" || { echo "ERROR: $state" >&2; exit 1; } ;;
  *"resources describe"*) next queue ;;
  *"tpu-vm create"* | *"resources create"*) exit "$(next creates)" ;;
  *"cat exit_code"*) next codes ;;
esac
"""
POD_RUNS = {  # states found (small letters are errors), codes of training, code of the script, slices created, deleted
    "at once": (["not found"], ["0"], 0, 1, 1),
    "reused": (["READY"], ["0"], 0, 0, 0),
    "preempted": (["not found", "PREEMPTED", "READY"], ["75", "1", "0"], 0, 2, 2),
    "a mistake": (["not found"], ["2"], 2, 1, 1),
    "hopeless": (["not found", "READY", "READY"], ["1", "", "1"], 1, 1, 1),
    "unknown": (["expired credentials"], [], 2, 0, 0),
    "someone else's": (["STOPPED"], [], 2, 0, 0),
}


def pod(folder, states, codes, *options, queue=(), creates=()):
    """Runs the script with a gcloud that answers as it is told to."""
    path = stubs(folder / "bin", gcloud=GCLOUD, sleep="")
    answers = {"states": states, "codes": codes, "queue": queue, "creates": creates or ["0"] * 9}
    for kind, values in answers.items():
        (folder / "bin" / f"gcloud.{kind}").write_text("".join(value + "\n" for value in values))
    command = [ROOT / TPU_POD[0], *TPU_POD[1:], "--retries=2", *options, "--", *FLAGS]
    environment = os.environ | {"PATH": path, "TMPDIR": str(folder), "GIT_DIR": str(ROOT / ".git")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    return done, (folder / "bin" / "calls").read_text()


@pytest.mark.parametrize("name", POD_RUNS)
def test_a_slice_is_created_reused_and_deleted(tmp_path, name):
    states, codes, ends_with, created, deleted = POD_RUNS[name]
    done, calls = pod(tmp_path, states, codes)
    assert done.returncode == ends_with, done.stderr
    assert calls.count("tpu-vm create") == created, calls
    assert calls.count("tpu-vm delete") == deleted, calls
    assert calls.count("launch/train.py") == len(codes)


def test_a_slice_that_could_not_be_created_is_not_deleted(tmp_path):
    done, calls = pod(tmp_path, ["not found"] * 3, [], creates=["1"] * 3)
    assert done.returncode == 1
    assert calls.count("tpu-vm create") == 3
    assert "delete" not in calls


def test_a_place_in_the_queue_is_waited_for_and_given_back(tmp_path):
    states = ["not found", "not found", "READY", "not found", "READY"]
    done, calls = pod(tmp_path, states, ["75", "0"], "--queued", queue=["PROVISIONING"])
    assert done.returncode == 0, done.stderr
    assert calls.count("queued-resources create") == calls.count("queued-resources delete") == 2
    assert calls.count("queued-resources describe") == 1


def test_a_queue_that_fails_is_given_up(tmp_path):
    done, calls = pod(tmp_path, ["not found"] * 9, [], "--queued", queue=["FAILED"] * 3)
    assert done.returncode == 1
    assert calls.count("queued-resources create") == calls.count("queued-resources delete") == 3


def test_a_dry_run_leaves_nothing_behind(tmp_path):
    command = [ROOT / TPU_POD[0], *DRY_RUNS["tpu_pod"][1:]]
    subprocess.run(command, cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path)}, check=True, capture_output=True)
    assert list(tmp_path.iterdir()) == []
