"""WebDataset's shards: they read as the same pictures in a folder; what is left out, or wrong, is told."""

import io
import json
import tarfile

import numpy as np
import pytest
from conftest import images_at
from PIL import Image

from dcgan_jax import data
from dcgan_jax.data.sources import folder, webdataset
from dcgan_jax.runtime.errors import UserError

CLASSES = ["cat", "dog", "owl"]


def image(value, kind="PNG"):
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(content, kind, **(dict(lossless=True) if kind == "WEBP" else {}))
    return content.getvalue()


def write(path, members):
    """A tar of these files, by name, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = {".gz": "w:gz", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def sample(number, label=None, kind="PNG"):
    """The files of a key: its picture, of red `number`, and its label."""
    ending, content = label or ("", b"")
    key = f"{number:04d}"
    files = [(f"{key}.{kind.lower()}", image(number, kind))]
    return [*files, (f"{key}.{ending}", content)] if ending else files


def as_names(number):
    return "cls", f"{CLASSES[number // 4]}\n".encode()


def as_numbers(number):
    return "cls", str(number // 4).encode()


def as_json(number):
    return "json", json.dumps({"caption": "x", "class": number // 4}).encode()


@pytest.mark.parametrize(
    ("label", "ending"), [(as_names, ".tar"), (as_numbers, ".tar.gz"), (as_json, ".tar"), (as_json, ".tar.xz")]
)
def test_shards_read_as_the_folder_of_their_pictures(tmp_path, read, label, ending):
    for i in range(12):
        file = tmp_path / "folder" / CLASSES[i // 4] / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image(i))
    expected = read("folder", tmp_path / "folder", num_classes=3)
    kinds = ("PNG", "WEBP")
    members = [file for i in range(12) for file in sample(i, label(i), kinds[i % 2])]
    write(tmp_path / "set" / f"00000{ending}", members[:14])
    write(tmp_path / "set" / f"00001{ending}", members[14:])
    one = write(tmp_path / f"one{ending}", members)
    for source, path in (("folder", tmp_path / "set"), ("webdataset", tmp_path / "set"), ("folder", one)):
        found = read(source, path, num_classes=3)
        assert found.card["sha256"] == expected.card["sha256"]
        assert found.card["classes"] == (CLASSES if label is as_names else ["0", "1", "2"])


def test_the_order_is_that_of_the_shards_and_of_the_files_in_them(tmp_path, read):
    write(tmp_path / "set" / "b.tar", [*sample(7), *sample(3)])
    write(tmp_path / "set" / "a.tar", [*sample(9), *sample(1)])
    assert read("folder", tmp_path / "set").images[:, 0, 0, 0].tolist() == [9, 1, 7, 3]


def test_what_is_left_out_is_counted(tmp_path, read, caplog):
    members = [("a/0.jpg.png", image(1)), ("a/0.mask.png", image(2)), ("a/1.PNG", image(3)), ("a/1.txt", b"")]
    members += [("a/2.cls", b"0"), ("a/1.cls", b"0"), ("b/1.cls", b""), ("b/1.png", image(4))]
    path = write(tmp_path / "set.tar", members)
    image_set = read("folder", path)
    assert image_set.images[:, 0, 0, 0].tolist() == [1, 3, 4]
    assert "left out: 1 further images of a KEY, 1 .txt, 1 KEYs without an image" in caplog.text
    assert "2 of 3 images have no label; none is used" in caplog.text
    with pytest.raises(UserError, match=r"images have no labels.*KEY"):
        read("folder", path, num_classes=2)
    assert read("webdataset", path, name="mask.png,cls").images[:, 0, 0, 0].tolist() == [2]


def test_splits_are_taken_and_held_out(tmp_path, read):
    write(tmp_path / "set" / "faces-train-0.tar", sample(1))
    write(tmp_path / "set" / "faces-val-0.tar", sample(2))
    assert read("folder", tmp_path / "set").images[:, 0, 0, 0].tolist() == [1]
    assert data.held_out(images_at("folder", tmp_path / "set", tmp_path)).images[:, 0, 0, 0].tolist() == [2]


def test_damaged_pictures_are_named_and_left_out(tmp_path, read, caplog):
    members = [*sample(1), *sample(2), ("0003.png", b""), ("0004.png", image(4)[:40])]
    found = read("folder", write(tmp_path / "set" / "0.tar", members).parent, unreadable=0.5)
    assert found.images[:, 0, 0, 0].tolist() == [1, 2]
    assert "0.tar/0003.png (empty file)" in caplog.text
    assert "0.tar/0004.png (" in caplog.text


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of git-lfs.*run git lfs pull"),
        (b"<html>Log in", "is a web page"),
        (b"", "is empty, expected a tar of images.*download it again"),
        (b"PK\x05\x06" + bytes(18), "is not a tar, expected a tar of images"),
        (b"text" * 300, "is not a tar, expected a tar of images.*download it again"),
        (None, "cannot be read .*expected a complete tar; download it again"),
    ],
)
def test_damaged_shards_are_told(tmp_path, read, content, told):
    file = write(tmp_path / "set" / "0.tar", [*sample(1), *sample(2)])
    file.write_bytes(file.read_bytes()[:1100] if content is None else content)
    with pytest.raises(UserError, match=told) as error:
        read("folder", tmp_path / "set")
    assert "\n" not in str(error.value)


def test_shards_without_images_are_told(tmp_path, read):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.tar file; pass the folder that does"):
        read("webdataset", tmp_path / "empty")
    path = write(tmp_path / "set" / "0.tar", [("0.cls", b"1")])
    with pytest.raises(UserError, match=r"holds no image in its 1 tars, expected files such as KEY\.jpg"):
        read("folder", path.parent)


def test_a_tar_of_images_alone_stays_a_folder(tmp_path):
    members = [("cats/0.png", image(1)), ("cats/0.json", b'{"caption": "x"}'), ("dogs/1.png", image(2))]
    assert not webdataset.is_shard(write(tmp_path / "set.tar", members))
    assert webdataset.is_shard(write(tmp_path / "shard.tar", sample(1, as_names(1))))


def test_a_tar_is_prepared_anew_when_it_is_read_in_another_way(tmp_path, monkeypatch):
    config = images_at("folder", write(tmp_path / "set.tar", sample(1, as_names(1))), tmp_path)
    known = {module.source_fingerprint(config) for module in (folder, webdataset)}
    monkeypatch.setattr(webdataset, "OTHER_FORMATS", ["NEW"])
    assert len(known | {webdataset.source_fingerprint(config)}) == 3


def test_what_was_prepared_serves_when_the_shards_are_gone(tmp_path, read):
    path = write(tmp_path / "set" / "0.tar", sample(1, as_names(1)))
    first = read("folder", path.parent)
    path.unlink()
    path.parent.rmdir()
    np.testing.assert_array_equal(read("folder", path.parent).images, first.images)


@pytest.mark.parametrize(
    ("name", "content"),
    [("0.json", b"{damaged"), ("0.json", b'{"caption": "x"}'), ("0.json", b'{"label": null}'), ("0.cls", b" \n")],
)
def test_files_of_labels_that_hold_none_are_told(tmp_path, read, caplog, name, content):
    path = write(tmp_path / "set" / "a.tar", [("0.png", image(1)), (name, content)])
    read("webdataset", path.parent)
    assert f"left out: 1 .{name[2:]} without a label" in caplog.text
