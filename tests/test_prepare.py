"""Prepared sets: made once, complete or not at all, and described by their cards."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, call
from PIL import Image

from dcgan_jax import config as configuration
from dcgan_jax import data
from dcgan_jax.data import buckets, decoding, preparation, prepared
from dcgan_jax.runtime import files
from dcgan_jax.runtime.errors import UserError


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    for i in range(300):
        (folder / str(i % 3)).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (i % 256, i // 256, 7)).save(folder / str(i % 3) / f"{i:03d}.png")
    return folder


@pytest.fixture
def config(pictures, tmp_path):
    config = configuration.default_config()
    config.image_size = (8, 8)
    config.data.update(source="folder", path=str(pictures), prepared=str(tmp_path / "prepared"))
    return config


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def folders(config):
    return [path.name for path in sorted((ROOT / config.data.prepared).iterdir()) if path.is_dir()]


@pytest.mark.parametrize(
    ("size", "crop", "told"),
    [((24, 24), "center", True), ((20, 20), "center", False), ((8, 24), "none", True), ((10, 5), "center", False)],
)
def test_images_that_are_enlarged_are_told(config, caplog, size, crop, told):
    config.image_size, config.data.crop = size, crop
    data.find_or_prepare(config)
    found = [message for message in caplog.messages if "were enlarged" in message]
    expected = f"300 of the 300 images are smaller than {size[0]}x{size[1]} and were enlarged"
    assert [message[: len(expected)] for message in found] == [expected] * told


def test_a_few_images_that_are_enlarged_are_not_told(config, pictures, caplog):
    for i in range(20):
        Image.new("RGB", (4, 4)).save(pictures / "0" / f"small_{i}.png")
    data.find_or_prepare(config)
    assert not any("enlarged" in message for message in caplog.messages)
    for i in range(20, 40):
        Image.new("RGB", (7, 30)).save(pictures / "0" / f"small_{i}.png")
    data.find_or_prepare(config)
    assert any("40 of the 340 images are smaller than 8x8" in message for message in caplog.messages)


def test_a_set_is_made_once_and_then_taken_as_it_is(config, monkeypatch, caplog):
    first = data.find_or_prepare(config)
    monkeypatch.setattr(preparation, "_build", None)
    assert data.find_or_prepare(config) == first
    assert folders(config) == [first.name]


def test_the_card_says_what_the_set_is(config, pictures):
    path = data.find_or_prepare(config)
    card = json.loads((path / "card.json").read_text())
    assert (
        card
        | {
            "source": "folder",
            "path": str(pictures),
            "crop": "center",
            "resize": "lanczos",
            "image_size": [8, 8],
            "channels": 3,
            "count": 300,
            "left_out": 0,
            "classes": ["0", "1", "2"],
        }
        == card
    )
    images = (path / "images.npy").read_bytes()
    assert card["sha256"]["images"] == hashlib.sha256(images).hexdigest()
    assert len(images) == 128 + 300 * 8 * 8 * 3
    assert (path / "names.txt").read_text().splitlines()[:2] == ["0/000.png", "0/003.png"]
    assert sorted(contents(path)) == ["card.json", "images.npy", "labels.npy", "names.txt"]


def test_another_crop_size_or_file_makes_another_set(config, pictures):
    first = data.find_or_prepare(config)
    config.data.crop = "none"
    second = data.find_or_prepare(config)
    (pictures / "0" / "000.png").unlink()
    third = data.find_or_prepare(config)
    Image.new("RGB", (20, 20), (9, 9, 9)).save(pictures / "0" / "003.png")
    fourth = data.find_or_prepare(config)
    assert len({first, second, third, fourth}) == 4
    assert len(data.open_set(fourth).images) == 299


def test_what_was_prepared_serves_when_the_source_is_gone(config, pictures):
    first = data.find_or_prepare(config)
    shutil.rmtree(pictures)
    assert data.find_or_prepare(config) == first
    config.data.crop = "none"
    with pytest.raises(UserError, match="does not exist"):
        data.find_or_prepare(config)


def test_the_number_of_workers_does_not_matter(config):
    one = contents(data.find_or_prepare(config, workers=1))
    config.data.prepared += "2"
    assert contents(data.find_or_prepare(config, workers=5)) == one


def break_pictures(pictures):
    (pictures / "0" / "000.png").write_bytes(b"")  # the first
    (pictures / "2" / "299.png").write_text("not a picture")  # the last
    (pictures / "1" / "100.png").write_bytes((pictures / "1" / "100.png").read_bytes()[:40])


def test_unreadable_images_leave_no_gap(config, pictures):
    before = data.open_set(data.find_or_prepare(config))
    expected = {bytes(image): label for image, label in zip(before.images, before.labels, strict=True)}
    gone = [bytes(before.images[i]) for i in (0, 133, 299)]
    break_pictures(pictures)
    path = data.find_or_prepare(config)
    after = data.open_set(path)
    assert (after.card["count"], after.card["left_out"]) == (297, 3)
    labels = {bytes(image): label for image, label in zip(after.images, after.labels, strict=True)}
    assert labels == {image: label for image, label in expected.items() if image not in gone}
    names = (path / "names.txt").read_text().splitlines()
    for name, image in zip(names, after.images, strict=True):
        assert int(name[2:5]) == int(image[0, 0, 0]) + 256 * int(image[0, 0, 1]), "a name belongs to its image"


@pytest.mark.parametrize("moment", ["pwrite", "write_array_header_1_0", "sha256", "write_card", "unlink", "rename"])
def test_a_set_stopped_at_any_stage_ends_as_the_undisturbed_one(config, pictures, monkeypatch, moment):
    break_pictures(pictures)
    undisturbed = contents(data.find_or_prepare(config, workers=2))
    config.data.prepared += "2"
    home = {
        "pwrite": os,
        "write_array_header_1_0": np.lib.format,
        "unlink": Path,
        "rename": Path,
        "sha256": files,
        "write_card": prepared,
    }[moment]
    calls, original = [], getattr(home, moment)

    class Killed(BaseException):
        pass

    def stop(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) == (7 if moment == "pwrite" else 1):
            raise Killed
        return original(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(home, moment, stop)
        with pytest.raises(Killed):
            data.find_or_prepare(config, workers=2)
    assert all(name.endswith(".partial") for name in folders(config)), "half a set is not taken for a whole one"

    done = []
    monkeypatch.setattr(decoding, "to_pixels", lambda *a: done.append(a) or to_pixels(*a))
    assert contents(data.find_or_prepare(config, workers=2)) == undisturbed
    assert len(done) < 300, "finished work is not done again"
    assert not [name for name in folders(config) if name.endswith(".partial")]


to_pixels = decoding.to_pixels


def test_a_killed_launcher_goes_on_where_it_was(config, pictures, tmp_path):
    arguments = ("--config=configs/folder.py", "--config.image_size=32", f"--config.data.path={pictures}")
    straight = call("prepare", *arguments, f"--config.data.prepared={tmp_path}/straight")
    assert straight.returncode == 0, straight.stderr
    command = [sys.executable, "launch/prepare.py", *arguments, f"--config.data.prepared={tmp_path}/killed"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list((tmp_path / "killed").glob("*.partial/done.jsonl")):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    again = call("prepare", *arguments, f"--config.data.prepared={tmp_path}/killed")
    assert again.returncode == 0, again.stderr
    (one,), (other,) = (
        [path for path in (tmp_path / name).iterdir() if path.is_dir()] for name in ("straight", "killed")
    )
    assert contents(one) == contents(other)


def test_a_full_disk_is_told_before_and_while_writing(config, monkeypatch):
    usage = types.SimpleNamespace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(UserError, match="GB free, expected"):
            data.find_or_prepare(config)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(UserError, match="the disk is full; make room, and the same command continues"):
            data.find_or_prepare(config)
    assert data.open_set(data.find_or_prepare(config)).card["count"] == 300


def test_a_source_that_changes_meanwhile_is_told(config, pictures, monkeypatch):
    def prepare_and_change(*arguments):
        (pictures / "0" / "999.png").write_bytes(b"new")
        return to_pixels(*arguments)

    monkeypatch.setattr(decoding, "to_pixels", prepare_and_change)
    with pytest.raises(UserError, match="changed while it was being prepared"):
        data.find_or_prepare(config)
    assert folders(config) == []


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{}",
        '{"start": -5, "stop": 3, "unreadable": {}}',
        "null",
        "\x00\xff",
        '{"start": 0, "stop": 301, "unreadable": {}}',
        '{"start": "a", "stop": 3, "unreadable": 1}',
        '{"start": 0, "stop": 3, "unreadable": {"7": "?"}}',
    ],
)
def test_a_damaged_journal_is_not_believed(config, monkeypatch, line):
    undisturbed = contents(data.find_or_prepare(config))
    config.data.prepared += "2"
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_finish", None)
        with pytest.raises(TypeError):
            data.find_or_prepare(config)
    (partial,) = folders(config)
    (Path(config.data.prepared) / partial / "done.jsonl").write_text(line + "\n")
    assert contents(data.find_or_prepare(config)) == undisturbed


def test_a_short_write_is_finished(config, monkeypatch):
    undisturbed = contents(data.find_or_prepare(config))
    config.data.prepared += "2"
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, view, place: whole(file, view[:100], place))
    assert contents(data.find_or_prepare(config)) == undisturbed


def test_what_is_not_the_fault_of_an_image_costs_none(config, pictures, monkeypatch):
    reads = []

    def fail_once(image, *arguments):
        reads.append(image)
        if len(reads) == 250:
            raise OSError(5, "Input/output error")
        return to_pixels(image, *arguments)

    monkeypatch.setattr(decoding, "to_pixels", fail_once)
    with pytest.raises(UserError, match=r"cannot be read at present .* the same command continues"):
        data.find_or_prepare(config)
    assert data.open_set(data.find_or_prepare(config)).card["left_out"] == 0
    assert len(reads) < 550, "finished work is not done again"


def test_unfinished_atomic_writes_of_a_killed_process_are_removed(config, monkeypatch):
    undisturbed = contents(data.find_or_prepare(config))
    config.data.prepared += "2"
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_finish", None)
        with pytest.raises(TypeError):
            data.find_or_prepare(config)
    (partial,) = folders(config)
    (Path(config.data.prepared) / partial / "card.json.123.partial").write_text("{")
    assert contents(data.find_or_prepare(config)) == undisturbed


def test_a_journal_without_its_images_is_not_believed(config, monkeypatch):
    undisturbed = contents(data.find_or_prepare(config))
    config.data.prepared += "2"
    for module, stage in ((preparation, "_finish"), (decoding, "_decode")):
        with monkeypatch.context() as patch:
            patch.setattr(module, stage, None)
            with pytest.raises(TypeError):
                data.find_or_prepare(config)
        (partial,) = (Path(config.data.prepared) / name for name in folders(config))
        if stage == "_finish":
            (partial / "images.npy").unlink()
    assert contents(data.find_or_prepare(config)) == undisturbed


def test_too_many_unreadable_images_are_told_after_a_kill_too(config, pictures, monkeypatch):
    for i in range(5):
        (pictures / "0" / f"broken{i}.png").write_bytes(b"broken")
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "check_unreadable", lambda *arguments: None)
        patch.setattr(preparation, "_finish", None)
        with pytest.raises(TypeError):
            data.find_or_prepare(config)
    with pytest.raises(UserError, match="5 of 305 images cannot be read: 0/broken0"):
        data.find_or_prepare(config)


def test_names_may_hold_anything(config, pictures):
    strange = ["a\x85b.png", "c\u2028d.png", "line\nbreak.png", b"z\xff.png".decode(errors="surrogateescape"), 'q".png']
    for name in strange:
        Image.new("RGB", (20, 20)).save(pictures / "0" / "temporary.png")
        (pictures / "0" / "temporary.png").rename(pictures / "0" / name)
    names = prepared.read_names(data.find_or_prepare(config))
    assert len(names) == 305
    assert {f"0/{name}" for name in strange} <= set(names)


def test_a_prepared_set_below_its_source_is_not_part_of_it(config, pictures):
    config.data.prepared = str(pictures / "prepared")
    path = data.find_or_prepare(config)
    Image.new("RGB", (20, 20)).save(path / "duplicates_random.png")
    assert data.find_or_prepare(config) == path


def test_a_file_in_the_way_is_told(config):
    path = data.find_or_prepare(config)
    shutil.rmtree(path)
    path.with_name(path.name + ".partial").write_text("")
    with pytest.raises(UserError, match="cannot be written to") as error:
        data.find_or_prepare(config)
    assert "\n" not in str(error.value)


def test_two_at_once_make_one_set(config, pictures, tmp_path):
    command = [
        sys.executable,
        "launch/prepare.py",
        "--config=configs/folder.py",
        f"--config.data.path={pictures}",
        f"--config.data.prepared={tmp_path}/prepared",
    ]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len(folders(config)) == 1


CARDS = ("no card", "card cut", "card sizes", "card hashes", "card deep")
ARRAYS = ("absent", "cut", "shape", "pickle", "header", "archive", "bytes")


@pytest.mark.parametrize("damage", CARDS + ARRAYS)
def test_a_card_that_does_not_match_is_told(config, damage):
    path = data.find_or_prepare(config)
    card, images = path / "card.json", path / "images.npy"
    if damage == "no card":
        card.unlink()
    elif damage == "card cut":
        card.write_text(card.read_text()[:50])
    elif damage == "card sizes":
        card.write_text(card.read_text().replace('"count": 300', '"count": "300"'))
    elif damage == "card hashes":
        card.write_text(card.read_text().replace('"labels": "', '"../../labels": "'))
    elif damage == "card deep":
        card.write_text("[" * 200_000)
    elif damage == "header":
        images.write_bytes(images.read_bytes().replace(b"{'descr'", b"{'descr", 1))
    elif damage == "archive":
        with images.open("wb") as file:
            np.savez(file, images=np.zeros(3))
    elif damage == "absent":
        images.unlink()
    elif damage == "cut":
        os.truncate(images, images.stat().st_size - 1)
    elif damage == "shape":
        np.save(images, np.zeros((299, 8, 8, 3), np.uint8))
    elif damage == "pickle":
        np.save(images, np.array([object()]))
    else:
        with images.open("r+b") as file:
            file.seek(1000)
            file.write(b"\xff")
    with pytest.raises(UserError, match=r"card|matches") as error:
        data.open_set(path)
    assert "\n" not in str(error.value)


def test_a_prepared_set_is_a_source_of_its_own(config):
    path = data.find_or_prepare(config)
    config.data.update(source="prepared", path=str(path))
    config.num_classes = 3
    image_set = data.load(config)
    assert image_set.images.shape == (300, 8, 8, 3)
    assert np.bincount(image_set.labels).tolist() == [100, 100, 100]
    config.image_size = (16, 16)
    with pytest.raises(UserError, match="image_size=8,8"):
        data.load(config)
    config.data.path = str(path.parent)
    with pytest.raises(UserError, match=r"no card\.json"):
        data.load(config)


@pytest.fixture
def bucket(tmp_path):
    """The URL of a bucket whose content is the test's folder."""
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.dirfs import DirFileSystem
    from fsspec.implementations.local import LocalFileSystem

    class Bucket(DirFileSystem):
        def __init__(self, **_):
            super().__init__(path="/", fs=LocalFileSystem())

        def _join(self, path):
            return super()._join(path.removeprefix("gs://bucket"))

    fsspec.register_implementation("gcs", Bucket, clobber=True)
    return f"gs://bucket{tmp_path}"


def test_a_set_in_a_bucket_is_copied_once(config, bucket, tmp_path, monkeypatch):
    path = data.find_or_prepare(config)
    shutil.move(path, tmp_path / "faces")
    config.data.update(source="prepared", path=f"{bucket}/faces", prepared=str(tmp_path / "copies"))
    first = data.load(config)
    assert (first.images.shape, first.card["count"]) == ((300, 8, 8, 3), 300)
    (copy,) = folders(config)
    assert copy.startswith("faces-")
    assert contents(tmp_path / "copies" / copy) == contents(tmp_path / "faces")
    monkeypatch.setattr(buckets, "_copy", None)  # no second copy
    np.testing.assert_array_equal(data.load(config).images, first.images)
    config.data.path = f"{bucket}/nowhere"
    with pytest.raises(UserError, match=r"nowhere.*no card\.json"):
        data.load(config)


def test_a_copy_that_was_damaged_on_its_way_is_not_kept(config, bucket, tmp_path):
    path = data.find_or_prepare(config)
    with (path / "images.npy").open("r+b") as file:
        file.seek(500)
        file.write(b"\xff")
    with pytest.raises(UserError, match="another hash"):
        buckets._local_copy(f"{bucket}/prepared/{path.name}", str(tmp_path / "copies"))
    assert not [one for one in (tmp_path / "copies").iterdir() if one.is_dir() and one.suffix != ".partial"]


def test_the_launcher_verifies_any_prepared_set(config):
    path = data.find_or_prepare(config)
    arguments = ("--config=configs/folder.py", "--config.image_size=32", "--config.width=4")
    done = call("prepare", *arguments, f"--config.data.path={config.data.path}", "--verify", "--config.num_classes=3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(": 300 images of (32, 32, 3), verified\n")
    arguments = ("--config=configs/folder.py", "--config.image_size=8", "--config.strides=1", "--config.kernel_size=3")
    arguments += ("--config.data.source=prepared", f"--config.data.path={path}", "--verify")
    assert call("prepare", *arguments).stdout == f"{path}: 300 images of (8, 8, 3), verified\n"
    wrong = call("prepare", *arguments, "--config.num_classes=4")
    assert wrong.returncode == 2
    assert "3 labels from 0 to 2" in wrong.stderr


def test_a_set_larger_than_memory_is_read_in_constant_memory(tmp_path):
    # A sparse file of 1 TB; what is read of it is zeros. In a process of its own, whose memory is measured.
    folder, count = tmp_path / "huge", 10**12 // (64 * 64 * 3)
    folder.mkdir()
    with (folder / "images.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, dict(descr="|u1", fortran_order=False, shape=(count, 64, 64, 3)))
        file.truncate(128 + count * 64 * 64 * 3)
    card = dict(format=1, count=count, image_size=[64, 64], channels=3, attributes=[], sha256={"images": "0" * 64})
    (folder / "card.json").write_text(json.dumps(card))
    script = """
import resource, sys
from pathlib import Path
import numpy as np
from dcgan_jax import data
images = data.open_set(Path(sys.argv[1])).images
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
# In place of an order of 80 million images: the memory that this takes is not what is tested.
batches = data.Batches(data.ImageSet(images, None, {}), 128, seed=0)
rng = np.random.default_rng(0)
batches.indices = lambda step: rng.integers(0, len(images), 128)
for step in range(900):
    batches(step)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1000, "MB more than before, of the 1,400 that were read"
