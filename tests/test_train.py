"""Whole runs of the launcher: what they write, resume, refuse, and exit with."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conftest import ROOT, SMALL, call, launch
from flax import serialization
from PIL import Image

import dcgan_jax
from dcgan_jax import data, inference, state, steps, train
from dcgan_jax.run import checkpoint, initial, monitor, prepare
from dcgan_jax.run import workdir as workdir_of_run
from dcgan_jax.runtime.errors import TrainingError, UserError
from dcgan_jax.runtime.signals import Preempted


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_states_equal(one, other):
    one, other = checkpoint.read(one)[0], checkpoint.read(other)[0]
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=jax.tree_util.keystr(path))


def test_a_run_leaves_what_the_contract_says(straight_run):
    assert json.loads((straight_run / "config.json").read_text())["image_size"] == [16, 16]
    assert sorted(path.name for path in (straight_run / "checkpoints").iterdir()) == ["20", "40"]
    assert [line["step"] for line in lines(straight_run)] == list(range(1, 41))
    for line in lines(straight_run):
        assert {"d_loss", "g_loss", "images_per_sec", "data_wait"} <= line.keys()
        assert line["images_per_sec"] > 0
        assert 0 <= line["data_wait"] <= 1
    names = sorted(path.name for path in (straight_run / "samples").iterdir())
    assert names == ["reals.png", "step_00000000.png", "step_00000020.png", "step_00000040.png"]
    for name in names:
        with Image.open(straight_run / "samples" / name) as picture:
            assert picture.size == (8 * 18 - 2, 8 * 18 - 2)
    assert any((straight_run / "tensorboard").iterdir())


def test_resuming_equals_the_straight_run(straight_run, tmp_path):
    first = call("train", *SMALL, "--config.num_steps=20", f"--workdir={tmp_path}/run")
    assert f"starting {tmp_path}/run at step 0\n" in first.stderr
    second = call("train", *SMALL, "--config.num_steps=40", f"--workdir={tmp_path}/run")
    assert f"resuming {tmp_path}/run from step 20\n" in second.stderr
    assert_states_equal(straight_run, tmp_path / "run")
    rates = {"images_per_sec", "data_wait", "overhead"}
    for one, other in zip(lines(straight_run), lines(tmp_path / "run"), strict=True):
        assert {k: one[k] for k in one.keys() - rates} == {k: other[k] for k in other.keys() - rates}
    for name in ("step_00000000.png", "step_00000040.png"):
        assert (straight_run / "samples" / name).read_bytes() == (tmp_path / "run" / "samples" / name).read_bytes()
    third = call("train", *SMALL, "--config.num_steps=40", f"--workdir={tmp_path}/run")
    assert third.returncode == 0
    assert third.stderr.startswith("nothing to do")


def test_a_run_may_start_from_the_networks_of_another(straight_run, tmp_path):
    donor = shutil.copytree(straight_run, tmp_path / "donor")
    arguments = (*SMALL, f"--config.init={donor}", f"--workdir={tmp_path}/run")
    wrong = call("train", *arguments, "--config.width=8", "--config.num_steps=1")
    assert wrong.returncode == 2
    told = "float32[8], expected float32[16]; discriminator/batch_stats/norm_1/var"
    assert told in wrong.stderr
    assert "; pass --config.width=4\n" in wrong.stderr
    assert not (tmp_path / "run").exists()
    assert call("train", *arguments, "--config.num_steps=1").returncode == 0
    found, expected = (checkpoint.read(run)[0] for run in (tmp_path / "run", donor))
    # One step moves a weight by about the learning rate.
    for name in ("generator", "discriminator"):
        kernels = [tree[name]["params"]["conv_1"]["kernel"] for tree in (found, expected)]
        np.testing.assert_allclose(*kernels, atol=2e-3)
    shutil.rmtree(donor)  # it is needed at the start alone
    assert f"resuming {tmp_path}/run from step 1\n" in call("train", *arguments, "--config.num_steps=2").stderr
    other = call("train", *SMALL, f"--workdir={tmp_path}/run", "--config.num_steps=3")
    assert (other.returncode, "another configuration (init: " in other.stderr) == (2, True)
    paper = call("train", "--config=configs/digits.py:paper", f"--workdir={tmp_path}/run")
    assert paper.returncode == 2
    assert "another configuration, of the recipe 'default', not 'paper' (batch_size: " in paper.stderr
    assert re.search(r"; and \d+ more\); pass another --workdir, or the old recipe", paper.stderr)


def test_what_starts_from_another_run_has_its_networks_and_new_optimizers(straight_run):
    donor, meta = checkpoint.read(straight_run)
    config = inference.configured({"config": meta["config"] | {"init": str(straight_run), "seed": 5}}, straight_run)
    tree = serialization.to_state_dict(initial.state(config, initial.networks(config)))
    fresh = serialization.to_state_dict(state.create(config))
    assert tree["step"] == 0
    for name in ("generator", "discriminator", "ema"):
        for collection in tree[name]:
            source = fresh if collection == "opt_state" else donor
            jax.tree.map(np.testing.assert_array_equal, tree[name][collection], source[name][collection])


@pytest.mark.nightly
def test_other_devices_give_the_same_run(straight_run, tmp_path):
    done = launch("train", *SMALL, "--config.num_steps=3", f"--workdir={tmp_path}/run", devices=1)
    assert done.returncode == 0, done.stderr
    for one, other in zip(lines(straight_run)[:3], lines(tmp_path / "run"), strict=True):
        assert one["d_loss"] == pytest.approx(other["d_loss"], rel=1e-4)
        assert one["g_loss"] == pytest.approx(other["g_loss"], rel=1e-4)


def test_records_beyond_the_checkpoint_are_written_again(straight_run, tmp_path):
    # As after a crash at step 30: the newest checkpoint is 20, the record goes further and its last line is cut.
    workdir = tmp_path / "run"
    shutil.copytree(straight_run, workdir)
    shutil.rmtree(workdir / "checkpoints" / "40")
    record = (workdir / "metrics.jsonl").read_text()
    (workdir / "metrics.jsonl").write_text("\n".join(record.split("\n")[:30]) + '\n{"step": 31, "d_lo')
    done = call("train", *SMALL, "--config.num_steps=40", f"--workdir={workdir}")
    assert "dropping 11 lines after step 20" in done.stderr
    assert [line["step"] for line in lines(workdir)] == list(range(1, 41))
    assert_states_equal(straight_run, workdir)


def test_a_stop_request_saves_and_exits_with_75(straight_run, tmp_path):
    workdir = tmp_path / "run"
    command = [sys.executable, "launch/train.py", *SMALL, "--config.num_steps=100000", f"--workdir={workdir}"]
    command.append(f"--config.data.prepared={os.environ['DCGAN_TEST_PREPARED']}")
    # Not into a pipe: nobody reads it, and what does not fit into it would stop the run.
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 240  # a busy machine takes its time to compile
        while not (workdir / "metrics.jsonl").exists() or not lines(workdir):
            assert time.monotonic() < deadline, "no step was finished"
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 75
    assert checkpoint.steps(workdir)[-1] == lines(workdir)[-1]["step"]


WRONG = [
    (("--config=configs/nothing.py",), "does not exist"),
    (("--config", "configs/no_such_file.py"), "'configs/no_such_file.py' does not exist"),
    (("--config=configs/digits.py:papr",), "expected one of 'default', 'stable', 'paper', 'torch'"),
    (("--config=configs/digits.py", "--config.generater_lr=1"), "did you mean config.generator_lr?"),
    (("--config=configs/digits.py", "--config.batch_size=many"), "batch_size: found 'many', expected a whole number"),
    (("--config=configs/digits.py", "--config.r1=: many"), "--config.r1: found ': many', expected a number"),
    (
        ("--config=configs/digits.py", "--config.data.flip=yes"),
        "flip: found 'yes', expected true or false",
    ),
    (("--config=configs/digits.py", "--config.image_size=50"), "expected multiples of 8"),
    (("--config=configs/digits.py", "--nothing=1"), "nothing"),
    (("--config=configs/digits.py", "loose"), "found 'loose'"),
    ((), "--config: missing"),
    (("--config=",), "--config: missing"),
    (("--config=configs/digits.py", "--config.steps_per_call=1999999999"), "try 50"),
    (("--config=README.md",), "get_config()"),
    (("--config=configs/digits.py", "--config.image_size=16", "--config.image_size=32"), "found twice"),
    (("--config=configs/folder.py",), "config.data.path: missing"),
    (("--config=configs/folder.py", "--config.data.path=/does/not/exist"), "'/does/not/exist' does not exist"),
    (("--config=configs/digits.py", "--config.batch_size=63"), "multiple of the 4 devices; try 64"),
    (
        ("--config=configs/digits.py", "--config.eval_every=3", "--config.eval_metrics=fid"),
        "config.eval_metrics: 'fid'",
    ),
    (
        (*SMALL, "--config.eval_every=3", "--config.eval_metrics=fid9_train", "--config.eval_features=inceptoin"),
        "config.eval_features: found 'inceptoin'",
    ),
    (
        (*SMALL, "--config.eval_every=3", "--config.eval_metrics=is9k", "--config.inception_weights=nowhere"),
        "config.inception_weights: 'nowhere' cannot be read",
    ),
]


@pytest.mark.parametrize(("arguments", "told"), WRONG, ids=[told for _, told in WRONG])
def test_a_mistake_ends_with_2_and_one_line_before_anything_is_written(tmp_path, arguments, told):
    done = call("train", *arguments, f"--workdir={tmp_path}/run")
    assert done.returncode == 2
    (error,) = done.stderr.splitlines()
    assert told in error
    assert not (tmp_path / "run").exists()


def test_another_configuration_does_not_touch_the_run(straight_run):
    before = {path: path.stat().st_mtime_ns for path in straight_run.rglob("*")}
    done = call("train", *SMALL, "--config.width=5", "--config.b1=0.9", f"--workdir={straight_run}")
    assert done.returncode == 2
    assert "b1: 0.5 there, 0.9 here; width: 4 there, 5 here" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in straight_run.rglob("*")} == before


def test_two_runs_in_one_folder_are_refused(tiny, tmp_path):
    workdir = tmp_path / "run"
    with workdir_of_run.take(workdir), pytest.raises(UserError, match="another process is training"):
        train.train(tiny(num_steps=1), workdir)
    assert sorted(path.name for path in workdir.iterdir()) == [".lock"]
    train.train(tiny(num_steps=1), workdir)
    assert checkpoint.steps(workdir) == [1]


@pytest.mark.parametrize("content", ["// mine", "[1]", '{"a": 1}', '{"seed": 0, "batch_size": 64, "data": "imagenet"}'])
def test_someone_elses_config_json_is_refused(tiny, tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="is not a run's configuration"):
        train.train(tiny(), tmp_path)
    assert (tmp_path / "config.json").read_text() == content


def test_before_the_first_step_another_configuration_may_take_the_folder(straight_run, tiny, tmp_path):
    shutil.copy(straight_run / "config.json", tmp_path)
    train.train(tiny(num_steps=1), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["latent_dim"] == 6


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "samples", "tensorboard"])
def test_a_file_in_place_of_a_folder_and_the_other_way_round_is_refused(tiny, tmp_path, name):
    train.train(tiny(num_steps=1), tmp_path)
    if (tmp_path / name).is_dir():
        shutil.rmtree(tmp_path / name)
        (tmp_path / name).write_text("")
    else:
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"{name}' is a f"):
        train.train(tiny(num_steps=2), tmp_path)


def test_someone_elses_folder_is_refused(tiny, tmp_path):
    (tmp_path / "samples").mkdir()
    with pytest.raises(UserError, match=r"holds samples but no config\.json"):
        train.train(tiny(image_size=(16, 16)), tmp_path)


def poisoned(poison, step, train_step=steps.train_step):
    """A train_step that goes wrong at one step."""

    def poisoned_step(method, state, batch):
        updated, metrics = train_step(method, state, batch)
        return poison(updated, metrics, jnp.where(updated.step == step, jnp.nan, 1.0))

    return poisoned_step


def bad_loss(state, metrics, factor):
    return state, metrics | {"g_loss": factor * metrics["g_loss"]}


def bad_weights(state, metrics, factor):
    params = jax.tree.map(lambda leaf: factor * leaf, state.generator.params)
    return state.replace(generator=state.generator.replace(params=params)), metrics


@pytest.mark.parametrize("poison", [bad_loss, bad_weights])
@pytest.mark.parametrize("checkpoint_every", [1, 2])
def test_what_is_not_finite_stops_the_run_and_is_never_saved(tiny, tmp_path, monkeypatch, poison, checkpoint_every):
    monkeypatch.setattr(steps, "train_step", poisoned(poison, 4))
    config = tiny(num_steps=40, checkpoint_every=checkpoint_every)
    with pytest.raises(TrainingError) as error:
        train.train(config, tmp_path / "run")
    last = {1: 3, 2: 2}[checkpoint_every]
    assert checkpoint.steps(tmp_path / "run")[-1] == last
    assert str(error.value).startswith("step 4: ")
    assert f"the checkpoint of step {last} is the last good one" in str(error.value)
    assert "learning rates" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("step", [4, 5, 6])
def test_a_loss_that_is_not_finite_is_noticed_within_a_call(tiny, tmp_path, monkeypatch, step):
    monkeypatch.setattr(steps, "train_step", poisoned(bad_loss, step))
    config = tiny(num_steps=40, steps_per_call=3, log_every=3, sample_every=30, checkpoint_every=3)
    with pytest.raises(TrainingError, match=rf"^step {step}: .*g_loss is nan.* of step 3 is the last good one"):
        train.train(config, tmp_path / "run")
    assert [line["step"] for line in lines(tmp_path / "run")] == [3]


def test_a_failure_of_training_exits_with_1(tmp_path):
    done = call("train", *SMALL, "--config.generator_lr=1e30", "--config.num_steps=9", f"--workdir={tmp_path}/run")
    assert done.returncode == 1
    assert "there is no checkpoint yet" in done.stderr.splitlines()[-1]


def test_the_newest_checkpoints_are_kept(tiny, tmp_path):
    train.train(tiny(num_steps=5, checkpoint_every=1, keep=2, keep_best=0), tmp_path / "run")
    assert checkpoint.steps(tmp_path / "run") == [4, 5]


@pytest.fixture
def qualities(monkeypatch):
    """qualities(numbers): what a run measures at its checkpoints, one after the other."""

    def use(numbers):
        values = iter(numbers)
        monkeypatch.setattr(prepare, "Quality", lambda image_set, after: lambda read: next(values))

    return use


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ((0.5, 0.2, 0.4, 0.23), "best by quality is step 2 (0.2), which --step=best takes: step 4 is 15% worse (0.23)"),
        (
            (0.5, 0.2, 0.4, 0.2005),
            "best by quality is step 2 (0.2), which --step=best takes: step 4 is less than 1% worse (0.2005)",
        ),
        ((0.5, 0.2, 0.3, 0.1), "best by quality is the last one measured, step 4 (0.1)"),
        ((0.0, 0.2, 0.3, 0.1), "best by quality is step 1 (0), which --step=best takes: step 4 has 0.1"),
    ],
)
def test_the_last_line_says_which_step_was_the_best(tiny, tmp_path, caplog, qualities, numbers, told):
    qualities(numbers)
    with caplog.at_level(logging.INFO, "dcgan_jax"):
        train.train(tiny(num_steps=4, checkpoint_every=1, keep=1, quality=True), tmp_path)
    assert caplog.messages[-1] == f"done: step 4 in {tmp_path}; launch/sample.py makes images; {told}"
    assert dcgan_jax.load(tmp_path, step="best").step == 1 + numbers.index(min(numbers))


def test_the_last_line_of_a_resumed_run_knows_the_checkpoints_before(tiny, tmp_path, caplog, qualities):
    qualities((0.2, 0.4, 0.8, 0.3))
    for num_steps in (2, 4):
        with caplog.at_level(logging.INFO, "dcgan_jax"):
            train.train(tiny(num_steps=num_steps, checkpoint_every=1, keep=1, quality=True), tmp_path)
    assert "best by quality is step 1 (0.2), which --step=best takes: step 4 is 50% worse (0.3)" in caplog.messages[-1]


def test_a_best_checkpoint_that_was_not_to_be_kept_is_not_offered(tiny, tmp_path, caplog, qualities):
    qualities((0.2, 0.4))
    with caplog.at_level(logging.INFO, "dcgan_jax"):
        train.train(tiny(num_steps=2, checkpoint_every=1, keep=1, keep_best=0, quality=True), tmp_path)
    assert "step 1 (0.2), which config.keep_best=0 did not keep: step 2 is 100% worse (0.4)" in caplog.messages[-1]


def test_nothing_is_said_where_nothing_was_measured(tiny, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "dcgan_jax"):
        train.train(tiny(num_steps=2, quality=False), tmp_path)
    assert caplog.messages[-1] == f"done: step 2 in {tmp_path}; launch/sample.py makes images"


def test_a_run_that_is_stopped_says_so_too_and_measures_nothing_then(tiny, tmp_path, monkeypatch):
    class Requests:
        name = None

        def hold(self):
            pass

    requests, numbers = Requests(), iter((0.2, 0.3))

    def quality(read):
        value = next(numbers)
        requests.name = "SIGTERM" if value == 0.3 else None
        return value

    monkeypatch.setattr(prepare, "Quality", lambda image_set, after: quality)
    config = tiny(num_steps=100, log_every=50, checkpoint_every=2, quality=True)
    with pytest.raises(Preempted, match=r"step 5 on SIGTERM.* best by quality is step 2 .*step 4 is 50% worse"):
        train.train(config, tmp_path, requests=requests)
    assert checkpoint.steps(tmp_path) == [2, 4, 5]
    assert [(line["step"], line["quality"]) for line in lines(tmp_path)] == [(2, 0.2), (4, 0.3)]


def test_a_run_of_an_older_version_resumes(straight_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(straight_run, workdir)
    config = json.loads((workdir / "config.json").read_text())
    for name in ("quality", "best_metric", "keep_best"):
        del config[name]
    (workdir / "config.json").write_text(json.dumps(config))
    old = {"step": 40, "d_loss": 1.0, "g_loss": 1.0, "images_per_sec": 1.0}
    (workdir / "metrics.jsonl").write_text(json.dumps(old) + "\n")
    done = call("train", *SMALL, "--config.num_steps=41", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in lines(workdir)] == [40, 41]


def test_plain_orbax_restores_the_documented_tree(straight_run):
    with ocp.CheckpointManager(straight_run / "checkpoints", item_names=("state", "meta")) as manager:
        restored = manager.restore(
            manager.latest_step(),
            args=ocp.args.Composite(state=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore()),
        )
    state, meta = restored["state"], restored["meta"]
    assert state["step"] == 40
    assert state.keys() == {"step", "generator", "discriminator", "ema"}
    assert state["generator"].keys() == state["discriminator"].keys() == {"params", "batch_stats", "opt_state"}
    assert state["ema"].keys() == {"params", "batch_stats"}
    assert {"config", "versions", "data"} <= meta.keys()
    assert meta["data"]["count"] == 1797


def test_a_damaged_config_file_does_not_cost_the_run(straight_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(straight_run, workdir)
    (workdir / "config.json").write_text("")
    assert "nothing to do" in call("train", *SMALL, "--config.num_steps=40", f"--workdir={workdir}").stderr
    done = call("train", *SMALL, "--config.num_steps=40", "--config.width=5", f"--workdir={workdir}")
    assert "width: 4 there, 5 here" in done.stderr


def test_lost_checkpoints_are_not_a_fresh_start(straight_run, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(straight_run, workdir)
    shutil.rmtree(workdir / "checkpoints")
    with (workdir / "metrics.jsonl").open("a") as record:
        record.write('{"step": 41}\n')
    before = (workdir / "metrics.jsonl").read_bytes()
    done = call("train", *SMALL, "--config.num_steps=60", f"--workdir={workdir}")
    assert done.returncode == 2
    assert "metrics up to step 41, but no checkpoint" in done.stderr
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_a_workdir_that_cannot_be_is_told(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    for workdir, told in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "run", "cannot be used"),
        (tmp_path / ("x" * 300), "cannot be used"),
        ("~nobody_of_this_name/x", "cannot be used"),
        ("gs://bucket/run", "expected a local path"),
    ):
        with pytest.raises(UserError, match=told):
            train.train(tiny(), workdir)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"data.source": "folder", "data.path": "nowhere"}, "does not exist"),
        ({"data.source": "folder"}, "missing"),
        ({"data.source": "idx", "data.path": "nowhere"}, "does not exist"),
        ({"data.source": "prepared", "data.path": "nowhere"}, "no card.json"),
        ({"eval_every": 2, "eval_metrics": "fid"}, "did you mean"),
    ],
)
def test_what_is_missing_is_told_before_anything_is_traced(tiny, tmp_path, monkeypatch, fields, told):
    def refuse(*_):
        raise AssertionError("tracing")

    monkeypatch.setattr(train, "_programs", refuse)
    monkeypatch.chdir(tmp_path)
    config = tiny()
    for name, value in fields.items():
        config.update_from_flattened_dict({name: value})
    with pytest.raises(UserError, match=told):
        train.train(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())
    with pytest.raises(AssertionError, match="tracing"):
        train.train(tiny(), tmp_path / "run")


def test_a_new_class_is_told_as_other_images(tiny, tmp_path):
    for name in ("1", "10", "2"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("L", (16, 16), 99).save(tmp_path / "pets" / name / "0.png")
    config = tiny(num_classes=2)
    config.data.update(source="folder", path=str(tmp_path / "pets"))
    card = data.load_any(config).card
    earlier = card | {"count": 2, "classes": ["1", "10"], "sha256": {"images": "0" * 64}}
    with pytest.raises(
        UserError, match=r"\(count: 2 there, 3 here; classes: .*bring the old ones back, or .*num_classes=3$"
    ):
        prepare.prepare(config, tmp_path / "run", workdir_of_run.Claim(card=earlier), print)
    config.num_classes = 3
    earlier = card | {"classes": ["1", "10", "2"], "sha256": card["sha256"] | {"labels": "0" * 64}}
    del earlier["reading"]
    with pytest.raises(UserError, match=r"\(folders and archives are read by other rules now; classes: "):
        prepare.prepare(config, tmp_path / "run", workdir_of_run.Claim(card=earlier), print)


def test_images_that_have_changed_are_noticed(tiny, tmp_path, monkeypatch):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(8):
        Image.new("L", (16, 16), i).save(pictures / f"{i}.png")
    config = tiny(num_steps=1)
    config.data.update(source="folder", path=str(pictures))
    train.train(config, tmp_path / "run")
    config.num_steps = 2
    record = (tmp_path / "run" / "config.json").read_bytes()
    Image.new("L", (16, 16), 99).save(pictures / "0.png")
    with pytest.raises(
        UserError, match=r"\(other sha256 of images\); pass .*=prepared .*path=.*pictures-16x16x1-\w+, where"
    ):
        train.train(config, tmp_path / "run")
    (pictures / "0.png").unlink()
    with pytest.raises(UserError, match="count: 8 there, 7 here"):
        train.train(config, tmp_path / "run")
    assert (tmp_path / "run" / "config.json").read_bytes() == record


def test_a_line_comes_every_ten_seconds_where_there_is_no_bar(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "INTERVAL", -1)
    done = call("train", *SMALL, "--config.num_steps=4", "--config.log_every=9", f"--workdir={tmp_path}/run")
    told = [line for line in done.stderr.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in told] == ["1/4", "2/4", "3/4", "4/4", "4/4"]
    # Of the first nobody knows how long it took, and a report follows the last.
    assert [line.endswith(" left") for line in told] == [False, True, True, False, False]
