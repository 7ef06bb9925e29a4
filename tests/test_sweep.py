"""Sweeps: which points there are, the commands for them, what is run, skipped and told, and the table of all."""

import csv
import io
import json
import shlex
import signal
import subprocess

import pytest
from conftest import ROOT, call, call_command

from dcgan_jax import fields
from dcgan_jax.run import comparison, points
from dcgan_jax.runtime.errors import UserError

DIGITS = ("--config=configs/digits.py", "--config.data.prepared=prepared")


def test_a_grid_has_every_combination_the_last_field_changing_fastest():
    found = points.grid(points.parse(["generator_lr=1e-4,5e-4", "seed=0, 1"]))
    assert [tuple(point.values()) for point in found] == [(1e-4, 0), (1e-4, 1), (5e-4, 0), (5e-4, 1)]
    assert [points.name_of(point) for point in found][1] == "generator_lr=0.0001,seed=1"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("image_size=32,64", [(32,), (64,)]),
        ("image_size=32,64;64,64", [(32, 64), (64, 64)]),
        ("augment=;color,cutout", ["", "color,cutout"]),
        ("data.flip=true,False", [True, False]),
        ("config.r1=0,1", [0.0, 1.0]),
    ],
)
def test_values_are_of_the_kind_of_their_field(text, values):
    ((found),) = points.parse([text]).values()
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


def test_names_of_points_are_names_of_folders_that_differ():
    names = [points.name_of({"data.path": path, "seed": 0}) for path in ("a/b", "a-b", "a b", "a%2Fb", "..")]
    assert len(set(names)) == len(names)
    assert not any("/" in name or name.startswith(".") for name in names)
    with pytest.raises(UserError, match="letters for a folder"):
        points.name_of({"data.path": "x" * 300})


def test_random_points_are_in_their_ranges_and_named_in_full():
    texts = ["generator_lr=1e-4..1e-2 log", "width=4..6:log", "ema_decay=0.9..0.99", "loss=hinge,wasserstein"]
    found = points.random(points.parse(texts), 60, seed=1)
    assert all(1e-4 <= point["generator_lr"] <= 1e-2 for point in found)
    assert {point["width"] for point in found} == {4, 5, 6}
    assert {type(point["width"]) for point in found} == {int}
    assert {point["loss"] for point in found} == {"hinge", "wasserstein"}
    low = sum(point["generator_lr"] < 1e-3 for point in found)
    assert 15 < low < 45, "half of the logarithms lie below the middle"
    assert len(set(map(points.name_of, found))) == 60
    for point in found:
        assert float(fields.shown(point["generator_lr"])) == point["generator_lr"]
    assert points.random(points.parse(texts), 20, seed=1) == found[:20]
    assert points.random(points.parse(texts), 20, seed=2) != found[:20]


def test_printed_commands_are_those_of_the_points(tmp_path):
    arguments = (*DIGITS, "--config.num_steps=4", "--set", "data.path=my pictures", "--set=seed=0,1")
    done = call("sweep", *arguments, f"--workdir={tmp_path}/new")
    assert (done.returncode, done.stderr) == (0, "")
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    for seed, words in enumerate(commands):
        assert words[1:3] == ["launch/train.py", "--config=digits"]
        assert {"--config.data.path=my pictures", "--config.num_steps=4", f"--config.seed={seed}"} < set(words)
        assert words[-1] == f"--workdir={tmp_path}/new/data.path=my%20pictures,seed={seed}"
    assert list(tmp_path.iterdir()) == [], "nothing is written"
    named = call_command("sweep", "--config=digits:torch", *arguments[1:])
    assert named.stdout.startswith("dcgan-jax train --config=digits:torch ")
    assert "--workdir=sweeps/digits/data.path=my%20pictures,seed=0\n" in named.stdout


WRONG = [
    (("--set=sed=1",), "config.sed: unknown field; did you mean config.seed?"),
    (("--set=data=1",), "config.data: unknown field"),
    (("--set=seed=",), "found no values of seed"),
    (("--set=seed=1,,2",), "found '' for seed, expected a whole number"),
    (("--set=generator_lr=1e-4,0.0001",), "found '0.0001' twice"),
    (("--set=seed=1", "--set=config.seed=2"), "found seed twice"),
    (("--set=seed=1", "--config.seed=2"), "found seed, which --config.seed gives too"),
    (("--set=seed",), "expected FIELD=VALUE"),
    ((), "--set: missing"),
    (("--set=recipe=paper",), "found 'recipe'"),
    (("--set=b1=0.5,1",), "config.b1: found 1.0"),
    (("--set=image_size=32,50",), "config.image_size: found (50, 50)"),
    (("--set=seed=0..3",), "give --random=N"),
    (("--set=seed=3..0", "--random=1"), "expected a range LOW..HIGH"),
    (("--set=seed=0..inf", "--random=1"), "expected a whole number"),
    (("--set=generator_lr=0..1 log", "--random=1"), "above 0 before the dots"),
    (("--set=seed=0..1", "--random=3"), "only 2 different points"),
    (("--set=seed=0..100000", "--random=100000"), "expected at most 10000"),
    (
        (f"--set=seed={','.join(map(str, range(101)))}", f"--set=keep={','.join(map(str, range(1, 101)))}"),
        "--set: found 10100 points, expected at most 10000",
    ),
    (("--set=seed=1", "--seed=1"), "--set seed=1"),
    (("--set=seed=1", "--workdir="), "--workdir: missing"),
    (("--table=csv",), "--workdir: missing"),
    (
        ("--set=seed=1", "--run", "--workdir=gs://bucket/sweep"),
        "--workdir: found 'gs://bucket/sweep', expected a local",
    ),
    (("--set=seed=1", "--run", f"--workdir={__file__}"), f"--workdir: {__file__!r} is a file, expected a folder"),
    (("--set=seed=1", "--run", "--workdir=/proc/sweep"), "--workdir: '/proc"),
]


@pytest.mark.parametrize(("arguments", "told"), WRONG, ids=[told for _, told in WRONG])
def test_a_mistake_is_one_line_before_anything_runs(arguments, told, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    done = call("sweep", *DIGITS, *arguments, *(() if "--workdir" in told else (f"--workdir={tmp_path}/new", "--run")))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert list(tmp_path.iterdir()) == []


class Trains:
    """Stands in for `subprocess.Popen`: a training that writes what one leaves, and ends with a code by the seed."""

    codes: dict[str, int]
    started: list[str]

    def __init__(self, command):
        flags = dict(word.removeprefix("--").split("=", 1) for word in command if word.startswith("--"))
        self.code = self.codes.get(flags["config.seed"], 0)
        self.started.append(flags["config.seed"])
        if not self.code:
            written(ROOT / flags["workdir"], seed=int(flags["config.seed"]))
        self.signals = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def wait(self):
        return self.code

    def terminate(self):
        self.signals.append(signal.SIGTERM)


def written(workdir, seed, qualities=(0.5, 0.3, 0.4), steps=3):
    """The files of a run that a table reads; its quality gets worse with the seed."""
    config = dict(seed=seed, num_steps=3, batch_size=10, quality=True)
    (workdir / "checkpoints" / str(steps)).mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(json.dumps(config))
    lines = [
        {"step": step, "d_loss": 1.0, "g_loss": 2.0, "images_per_sec": 2.0, "quality": quality + seed}
        for step, quality in enumerate(qualities[:steps], 1)
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9, "d_l')


@pytest.fixture
def training(monkeypatch):
    monkeypatch.setattr(Trains, "codes", {}, raising=False)
    monkeypatch.setattr(Trains, "started", [], raising=False)
    monkeypatch.setattr(subprocess, "Popen", Trains)
    # What stands in writes few fields: it is another configuration than the one it was called with.
    monkeypatch.setattr("dcgan_jax.config.differences", lambda old, new: [])
    return Trains


def test_a_sweep_goes_on_after_a_failure_skips_what_is_done_and_resumes_the_rest(tmp_path, training):
    sweep = ("sweep", *DIGITS, "--config.num_steps=3", "--set=seed=2,1,0", f"--workdir={tmp_path}/s", "--run")
    training.codes["1"] = 2
    done = call(*sweep)
    assert done.returncode == 1
    assert training.started == ["2", "1", "0"]
    assert f"point 2 of 3 failed with exit code 2: {tmp_path}/s/seed=1\n" in done.stderr
    assert done.stderr.endswith(f"1 of 3 points failed: {tmp_path}/s/seed=1\n")
    table = (tmp_path / "s" / "table.md").read_text()
    assert done.stdout == f"{table}{tmp_path}/s/table.md\n"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert rows[0][:6] == ["run", "seed", "status", "best quality", "at step", "last quality"]
    assert rows[2] == ["seed=0", "0", "done", "0.3", "2", "0.4", "1", "2", "15"]
    assert [row[0] for row in rows[2:]] == ["seed=0", "seed=2", "seed=1"], "the best first, the unmeasured last"
    assert rows[4][2] == "not started"
    training.codes.clear()
    training.started.clear()
    again = call(*sweep)
    assert again.returncode == 0
    assert training.started == ["1"]
    assert "point 1 of 3, finished: " in again.stderr
    longer = call(*sweep, "--config.num_steps=4", "--table=json")
    assert training.started == ["1", "2", "1", "0"], "what is to be longer is not finished"
    assert longer.returncode == 0


def test_a_stopped_point_stops_the_sweep(tmp_path, training):
    training.codes["0"] = 75
    done = call("sweep", *DIGITS, "--set=seed=0,1", f"--workdir={tmp_path}/s", "--run")
    assert (done.returncode, training.started, done.stdout) == (75, ["0"], "")
    assert done.stderr.endswith("stopped at point 1 of 2; the same command goes on\n")


def test_a_request_to_stop_is_passed_on_and_ends_the_sweep(tmp_path, training, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)

    children = []

    def wait(child):
        children.append(child)
        signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)  # sent, it would reach other listeners of the process
        return 0

    monkeypatch.setattr(training, "wait", wait)
    done = call("sweep", *DIGITS, "--set=seed=0,1", f"--workdir={tmp_path}/s", "--run")
    assert (done.returncode, training.started) == (75, ["0"])
    assert [child.signals for child in children] == [[signal.SIGTERM]]
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_run_in_a_points_folder_is_told_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    written(tmp_path / "seed=1", seed=1)
    done = call("sweep", *DIGITS, "--set=seed=0,1", f"--workdir={tmp_path}", "--run")
    assert done.returncode == 2
    assert f"{tmp_path}/seed=1' was written by another configuration (batch_size: 10 there, 64 here; " in done.stderr


def test_a_table_is_of_any_folder_of_runs(tmp_path):
    written(tmp_path / "b", seed=0)
    written(tmp_path / "a", seed=1, steps=2)
    (tmp_path / "notes").mkdir()
    evaluated = {"metric": "quality", "value": 0.1, "step": 3, "features": "own"}
    (tmp_path / "a" / "evaluation.jsonl").write_text(json.dumps(evaluated) + "\n")
    made = json.loads(call("sweep", f"--workdir={tmp_path}", "--table=json").stdout)
    assert made == [
        {"run": "a", "seed": 1, "status": "step 2 of 3", "best quality": 0.1, "at step": 3, "last quality": 0.1,
         "d_loss": 1.0, "g_loss": 2.0, "seconds": 10},
        {"run": "b", "seed": 0, "status": "done", "best quality": 0.3, "at step": 2, "last quality": 0.4,
         "d_loss": 1.0, "g_loss": 2.0, "seconds": 15},
    ]  # fmt: skip
    done = call("sweep", f"--workdir={tmp_path}", "--table=csv")
    assert [row["run"] for row in csv.DictReader(io.StringIO(done.stdout))] == ["a", "b"]
    assert call("sweep", f"--workdir={tmp_path}/notes", "--table=csv").returncode == 2


def test_the_best_may_be_the_highest(tmp_path):
    for seed in (0, 1):
        written(tmp_path / str(seed), seed=seed)
        config = json.loads((tmp_path / str(seed) / "config.json").read_text())
        config |= {"best_metric": "quality", "best_is": "highest"}
        (tmp_path / str(seed) / "config.json").write_text(json.dumps(config))
    found = comparison.rows([tmp_path / "0", tmp_path / "1"])
    assert [(row["run"], row["best quality"], row["at step"]) for row in found] == [("1", 1.5, 1), ("0", 0.5, 1)]
