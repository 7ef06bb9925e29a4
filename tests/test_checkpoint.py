"""Checkpoints: whole or set aside, never wrong; the newest and the best kept; nothing in them runs."""

import contextlib
import json
import logging
import os
import pickle
import shutil

import jax
import numpy as np
import pytest
from conftest import SMALL, call, launch

from dcgan_jax import config as configuration
from dcgan_jax import load, state, train
from dcgan_jax.run import checkpoint, prepare
from dcgan_jax.runtime.errors import TrainingError, UserError


def equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    return all(map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


@pytest.fixture
def run(straight_run, tmp_path):
    """A copy of a run with checkpoints of steps 20 and 40."""
    return shutil.copytree(straight_run, tmp_path / "run")


@pytest.fixture(scope="module")
def whole(straight_run):
    """What the checkpoints of that run hold, by step."""
    return {step: checkpoint.read(straight_run, step) for step in (20, 40)}


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_by_a_byte(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def garbage(path):
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def remove(path):
    path.unlink()


def flip(place):
    def flip_a_bit(path):
        content = bytearray(path.read_bytes())
        if content:
            content[int(place * (len(content) - 1))] ^= 4
        path.write_bytes(content)

    flip_a_bit.__name__ = f"flip_at_{place}"
    return flip_a_bit


DAMAGES = [cut_in_half, cut_by_a_byte, empty, zeros, garbage, remove, *map(flip, (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1))]
# By what they hold: orbax's own notes, our meta, the tree's description, the index of the arrays, and the arrays.
FILES = ["_CHECKPOINT_METADATA", "meta/metadata", "state/_METADATA", "state/manifest.ocdbt", "arrays"]


def file_of(place, name):
    if name != "arrays":
        return place / name
    return max((path for path in place.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_newest_checkpoint_is_never_a_wrong_state(run, whole, caplog, damage, name):
    damage(file_of(run / "checkpoints" / "40", name))
    tree, meta = checkpoint.read(run)
    step = int(tree["step"])
    assert equal(tree, whole[step][0])
    assert meta == whole[step][1]
    if step == 20:
        assert f"{str(run / 'checkpoints' / '40')!r} is damaged" in caplog.text


def test_a_checkpoint_that_training_removes_meanwhile_is_not_called_damaged(run, caplog, monkeypatch):
    reading = checkpoint._read

    def removed(directory, step):
        monkeypatch.setattr(checkpoint, "_read", reading)
        shutil.rmtree(directory / str(step))
        return reading(directory, step)

    monkeypatch.setattr(checkpoint, "_read", removed)
    assert checkpoint.read(run)[0]["step"] < 40
    assert "damaged" not in caplog.text


def test_an_empty_folder_and_a_renamed_one_are_damaged_too(run):
    shutil.rmtree(run / "checkpoints" / "40")
    shutil.copytree(run / "checkpoints" / "20", run / "checkpoints" / "60")
    (run / "checkpoints" / "80").mkdir()
    assert checkpoint.steps(run) == [20, 60, 80]
    assert checkpoint.read(run)[0]["step"] == 20
    with pytest.raises(UserError, match="it holds step 20"):
        checkpoint.read(run, 60)


@pytest.mark.parametrize("damage", ["state/manifest.ocdbt", "meta/metadata"])
def test_a_damaged_checkpoint_that_was_asked_for_is_told(run, damage):
    (run / "checkpoints" / "40" / damage).write_bytes(b"garbage")
    with pytest.raises(UserError, match=r"is damaged .* move that folder away") as error:
        checkpoint.read(run, 40)
    assert "\n" not in str(error.value)


def test_training_sets_a_damaged_newest_checkpoint_aside_and_goes_on_from_the_one_before(run, whole):
    file_of(run / "checkpoints" / "40", "arrays").write_bytes(b"garbage")
    (run / "damaged" / "40").mkdir(parents=True)
    done = call("train", *SMALL, "--config.num_steps=40", f"--workdir={run}")
    assert done.returncode == 0, done.stderr
    assert f"the damaged one of step 40 is now {run}/damaged/40-1" in done.stderr
    assert f"resuming {run} from step 20" in done.stderr
    assert equal(checkpoint.read(run, 40)[0], whole[40][0])
    assert any(path.read_bytes() == b"garbage" for path in (run / "damaged" / "40-1").rglob("*") if path.is_file())


def test_where_all_are_damaged_nothing_is_begun_anew(run):
    for step in (20, 40):
        (run / "checkpoints" / str(step) / "state" / "manifest.ocdbt").unlink()
    before = sorted(run.rglob("*"))
    done = call("train", *SMALL, "--config.num_steps=60", f"--workdir={run}")
    assert done.returncode == 2
    assert "are damaged (20, 40)" in done.stderr.splitlines()[-1]
    assert sorted(run.rglob("*")) == before


def test_a_checkpoint_without_a_hash_is_read_with_a_warning(run, caplog):
    path = run / "checkpoints" / "40" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    del meta["sha256"]
    path.write_text(json.dumps(meta))
    assert checkpoint.read(run)[0]["step"] == 40
    assert "damage would go unnoticed" in caplog.text


def test_a_checkpoint_of_another_network_names_each_leaf(straight_run, tiny):
    with pytest.raises(UserError) as error:
        checkpoint.restore(straight_run, state.abstract(tiny(width=8, latent_dim=100)))
    told = str(error.value)
    assert "discriminator/batch_stats/norm_1/mean: found float32[8], expected float32[16]" in told
    assert "generator/params/conv_1/kernel: found float32[4, 4, 1, 4], expected float32[4, 4, 1, 8]" in told
    assert "56 leaves do not fit" in told


def save(workdir, values, **options):
    checkpoints = checkpoint.Checkpoints(workdir, **options)
    for step, value in values.items():
        checkpoints.save(step, state.GANState(np.int32(step), {"w": np.ones(3)}, {}, {}), {}, {"fid": value})
    checkpoints.wait()
    checkpoints.close()
    return checkpoint.steps(workdir)


@pytest.mark.parametrize(("best_is", "kept"), [("lowest", [2, 3, 5, 6]), ("highest", [1, 4, 5, 6])])
def test_the_best_are_kept_beside_the_newest(tmp_path, best_is, kept):
    options = dict(keep=2, keep_best=2, best_metric="fid", best_is=best_is)
    values = {1: 9.0, 2: 1.0, 3: 2.0, 4: 8.0, 5: 3.0, 6: 4.0}
    assert save(tmp_path / "straight", values, **options) == kept
    # The metrics of earlier checkpoints are known again after a restart.
    save(tmp_path / "resumed", {step: values[step] for step in (1, 2, 3)}, **options)
    assert save(tmp_path / "resumed", {step: values[step] for step in (4, 5, 6)}, **options) == kept


def test_a_run_keeps_its_best_checkpoint(tiny, tmp_path):
    config = tiny(num_steps=8, log_every=1, checkpoint_every=1, keep=1, best_metric="d_loss")
    train.train(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    best = min(lines, key=lambda line: line["d_loss"])
    assert checkpoint.steps(tmp_path) == sorted({best["step"], 8})
    assert checkpoint.read(tmp_path, best["step"])[1]["metrics"]["d_loss"] == best["d_loss"]


def test_by_default_the_best_by_quality_is_kept(tiny, tmp_path, monkeypatch):
    numbers = iter((0.5, 0.2, 0.4, 0.6, 0.3))
    monkeypatch.setattr(prepare, "Quality", lambda image_set, after: lambda read: next(numbers))
    train.train(tiny(num_steps=5, checkpoint_every=1, keep=1, quality=True), tmp_path)
    assert checkpoint.steps(tmp_path) == [2, 5]
    assert checkpoint.best(tmp_path) == checkpoint.read(tmp_path, "best")[0]["step"] == 2


BEST_BY = [
    ({}, ("quality", "lowest")),
    ({"best_is": "highest"}, ("quality", "lowest")),
    ({"eval_every": 5, "eval_metrics": "kid10k_train, fid5k_test,fid10k_train"}, ("fid5k_test", "lowest")),
    ({"eval_every": 0, "eval_metrics": "fid5k_test"}, ("quality", "lowest")),
    ({"eval_every": 5, "eval_metrics": "is10k"}, ("quality", "lowest")),
    ({"quality": False}, ("", "lowest")),
    ({"best_metric": "is10k", "best_is": "highest", "eval_every": 5, "eval_metrics": "is10k"}, ("is10k", "highest")),
]


@pytest.mark.parametrize(("fields", "expected"), BEST_BY)
def test_what_the_best_is_by(tiny, fields, expected):
    assert configuration.best_by(tiny(**{"quality": True} | fields)) == expected


def test_quality_that_is_not_measured_cannot_choose(tiny):
    with pytest.raises(UserError, match="found 'quality', expected another metric, as quality is False"):
        tiny(best_metric="quality", quality=False)


def test_the_best_of_a_run_that_measured_nothing_is_an_error(tiny, tmp_path):
    train.train(tiny(num_steps=1, quality=False), tmp_path)
    with pytest.raises(UserError, match="'best', but nothing measures this run"):
        checkpoint.read(tmp_path, "best")
    # As a checkpoint of an older version, which has no such field.
    meta = tmp_path / "checkpoints" / "1" / "meta" / "metadata"
    content = json.loads(meta.read_text())
    del content["config"]["quality"], content["sha256"]
    meta.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"'quality' in this run, which no checkpoint .* has; pass a number"):
        load(tmp_path, "best")
    with pytest.raises(UserError, match="found 'newest', expected a checkpoint's step, or 'best'"):
        load(tmp_path, "newest")


FULL_DISK = {
    "checkpoint": (("--config.log_every=20", "--config.sample_every=1000"), "step 60 could not be saved"),
    "record": (("--config.checkpoint_every=1000", "--config.sample_every=1000"), "cannot be written to any more"),
}


@pytest.mark.parametrize("what", ["checkpoint", pytest.param("record", marks=pytest.mark.nightly)])
def test_a_full_disk_stops_the_run_and_leaves_the_last_good_checkpoint(run, whole, what):
    # No file may grow beyond 16 kB: the arrays of a checkpoint do not fit, and the record some steps later.
    (run / "metrics.jsonl").unlink()
    flags, told = FULL_DISK[what]
    limited = f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({2**14}, {2**14}))"
    done = launch("train", *SMALL, *flags, "--config.num_steps=200", f"--workdir={run}", before=limited)
    assert done.returncode == 1, done.stderr
    error = done.stderr.splitlines()[-1]
    assert told in error
    assert "the checkpoint of step 40 is the last good one" in error
    assert equal(checkpoint.read(run)[0], whole[40][0])


class Planted:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_strangers_checkpoint_runs_no_code(run, tmp_path):
    proof = tmp_path / "proof"
    plants = {
        "pickle": pickle.dumps(Planted(proof)),
        "npy": b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + b"\n",
        "python": f"__import__('os').system('touch {proof}')".encode(),
        "yaml": f"!!python/object/apply:os.system ['touch {proof}']".encode(),
        "json": json.dumps({"py/reduce": [{"py/function": "os.system"}, {"py/tuple": [f"touch {proof}"]}]}).encode(),
    }
    plants["npy"] += plants["pickle"]
    os.system(f"touch {tmp_path}/works")
    assert (tmp_path / "works").exists()
    shutil.rmtree(run / "checkpoints" / "20")
    files = [path.relative_to(run) for path in (run / "checkpoints").rglob("*") if path.is_file()]
    newcomers = ["checkpoints/40/state/checkpoint", "checkpoints/40/__init__.py", "checkpoints/40/state/tree.pkl"]
    logging.disable()
    try:
        for plant in plants.values():
            for name in [*files, *newcomers]:
                before = (run / name).read_bytes() if (run / name).exists() else None
                (run / name).write_bytes(plant)
                with contextlib.suppress(UserError):
                    load(run)
                if before is None:
                    (run / name).unlink()
                else:
                    (run / name).write_bytes(before)
    finally:
        logging.disable(logging.NOTSET)
    assert not proof.exists()


def test_a_failed_save_is_raised_by_the_next_call_and_only_once(tmp_path, monkeypatch):
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    tiny_state = state.GANState(np.int32(1), {"w": np.ones(3)}, {}, {})
    checkpoints.save(1, tiny_state, {})
    checkpoints.wait()
    monkeypatch.setattr(checkpoints._manager, "save", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space")))
    checkpoints.save(2, tiny_state, {})
    with pytest.raises(TrainingError, match=r"step 2 could not be saved .*No space.*step 1 is the last good one"):
        checkpoints.wait()
    checkpoints.check()
    checkpoints.close()
    assert checkpoint.steps(tmp_path) == [1]
