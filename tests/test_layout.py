"""Which files of a folder or archive are taken, and what their labels are."""

import io
import json
import logging
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image, features

from dcgan_jax import config as configuration
from dcgan_jax import data
from dcgan_jax.data.sources import layout
from dcgan_jax.runtime.errors import UserError


def png(value=0, kind="PNG"):
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 200)).save(content, kind)
    return content.getvalue()


def write(where, files):
    """Files by name, with their contents, in a folder, or in an archive if the path has such an ending."""
    if where.suffix == ".zip":
        with zipfile.ZipFile(where, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    elif where.suffix == ".tar":
        with tarfile.open(where, "w") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    else:
        for name, content in files.items():
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            (where / name).write_bytes(content)
    return where


def configured(path, num_classes=0, **fields):
    config = configuration.default_config()
    config.update(dict(image_size=(8, 8), channels=3, num_classes=num_classes, batch_size=2))
    config.data.update(dict(source="folder", path=str(path), prepared=str(path.parent / "prepared")) | fields)
    return config


def read(path, num_classes=0, **fields):
    return data.open_source(configured(path, num_classes, **fields))


KINDS = ("set", "set.zip", "set.tar")
PETS = {f"{split}/{pet}/{i}.png": png(i) for split in ("Train", "TEST", "val") for pet in "ab" for i in range(2)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrapper", ["", "wrapper/"])
def test_splits_are_no_classes(tmp_path, caplog, kind, wrapper):
    files = {wrapper + name: content for name, content in PETS.items()}
    path = write(tmp_path / kind, files | {f"{wrapper}LICENSE": b"text"})
    with caplog.at_level(logging.INFO):
        source = read(path)
    assert sorted(source.names) == sorted(name for name in files if "Train" in name)
    assert (source.classes, np.bincount(source.labels).tolist()) == (("a", "b"), [2, 2])
    assert "taking the 4 images in Train/, which is a split; the 8 others (TEST, val/) are left out" in caplog.text
    assert all("TEST" in name for name in read(path, split="test").names)
    assert all("val/" in name for name in read(path, split="validation").names)
    with pytest.raises(UserError, match=r"config\.data\.split: found 'all', expected one of .*test, train, val"):
        read(path, split="all")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("splits", "expected"), [("train test val", "test"), ("training valid", "valid")])
def test_held_out_images_are_the_other_split(tmp_path, kind, splits, expected):
    files = {f"{split}/{pet}/{split}{i}.png": png(i) for split in splits.split() for pet in "ab" for i in range(2)}
    config = configured(write(tmp_path / kind, files), num_classes=2)
    test, train = data.held_out(config), data.load(config)
    assert len(test.images) == len(train.images) == 4
    assert test.card["path"] == train.card["path"]
    (folder,) = (path for path, card in data.cards(tmp_path / "prepared") if card["split"])
    assert {name.split("/")[0] for name in (folder / "names.txt").read_text().split()} == {expected}


def test_held_out_images_lie_beside_a_training_folder(tmp_path):
    write(tmp_path / "set", PETS)
    config = configured(tmp_path / "set" / "Train")
    assert len(data.held_out(config).images) == 4
    config.data.test = str(tmp_path / "set")  # which has a test split
    assert data.held_out(config).card["path"].endswith("set")
    assert len(data.held_out(config).images) == 4


@pytest.mark.parametrize("split", ["train", "test", "Validation"])
def test_the_only_split_is_taken_and_told(tmp_path, caplog, split):
    path = write(tmp_path / "set", {f"{split}/{pet}/{i}.png": png() for pet in "ab" for i in range(2)})
    with caplog.at_level(logging.INFO):
        source = read(path)
    assert (len(source.names), source.classes) == (4, ("a", "b"))
    assert f"{split}/, the only split that is there" in caplog.text
    assert data.held_out(configured(path)) is None


def test_a_class_may_have_the_name_of_a_split(tmp_path, caplog):
    path = write(tmp_path / "set", {f"{name}/{i}.png": png() for name in ("cats", "dogs", "test") for i in range(2)})
    with caplog.at_level(logging.INFO):
        assert read(path).classes == ("cats", "dogs", "test")
    assert "test: taken for a class, not for a split" in caplog.text
    # A training split and another one are splits, whatever lies beside them.
    names = [f"{folder}/{pet}/{i}.png" for folder in ("train", "test", "extra") for pet in "ab" for i in range(2)]
    assert layout.take_split(names, "train").names == names[:4]


@pytest.mark.parametrize(
    "folders",
    [("faces", "cifar/train", "cifar/test"), ("2021/val", "2022/holiday", "2023/train")],
)
def test_splits_of_one_class_alone_are_none(folders):
    names = [f"{folder}/{i}.png" for folder in folders for i in range(2)]
    assert layout.take_split(names, "train").names == names
    assert layout.by_folders(names).classes == tuple(dict.fromkeys(sorted(folder.split("/")[0] for folder in folders)))


# The training split among folders, and the classes in it.
SPLITS_BY_OTHER_NAMES = {
    "training_set/a training_set/b test_set/a test_set/b": ("training_set/", ("a", "b")),
    "seg_train/seg_train/a seg_train/seg_train/b seg_test/seg_test/a seg_pred/seg_pred": ("seg_train/", ("a", "b")),
    "Train-Data/a Train-Data/b Valid-Data/a": ("Train-Data/", ("a", "b")),
    "train2017 val2017": ("train2017/", ()),
    "train/a train/b dev/a": ("train/", ("a", "b")),
    "a/train a/test b/train b/test": ("/train/", ("a", "b")),
    "set/a/train/good set/a/test/bad set/a/masks set/b/train/good set/b/test/good": ("/train/", ("a", "b")),
    "train_station test_tube": ("t", ("test_tube", "train_station")),
    "trains tests": ("t", ("tests", "trains")),
    "a b/train": ("", ("a", "b")),
}


@pytest.mark.parametrize("folders", SPLITS_BY_OTHER_NAMES)
def test_splits_are_known_by_what_their_names_share(folders):
    part, classes = SPLITS_BY_OTHER_NAMES[folders]
    names = [f"{folder}/{i}.png" for folder in folders.split() for i in range(2)]
    taken = layout.take_split(names, "train").names
    assert taken == [name for name in names if part in name]
    assert layout.by_folders(taken).classes == classes


def test_numbers_within_names_are_sorted_as_numbers():
    names = [f"{folder}/0.png" for folder in ("class_10", "class_2", "10", "2", "02", "Class_1", "x")]
    assert layout.by_folders(names).classes == ("02", "2", "10", "Class_1", "class_2", "class_10", "x")


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_images_beside_the_classes_are_left_out_and_named(tmp_path, caplog, kind):
    files = {f"photos/{pet}/{i}.png": png(i) for pet in "ab" for i in range(3)}
    path = write(tmp_path / kind, files | {"preview.png": png(), "photos/cover.jpg": png()})
    source = read(path)
    assert sorted(source.names) == sorted(files)
    assert source.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert "preview.png" in caplog.text
    assert "photos/cover.jpg" in caplog.text
    many = files | {f"{i}.png": png() for i in range(9)}
    source = read(write(tmp_path / f"many_{kind}", many))
    assert (len(source.names), source.labels) == (15, None)


SHARDS = {f"0000{i // 2}/img0000000{i}.png": png(i) for i in range(6)}


@pytest.mark.parametrize("form", [list, dict])
@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_stylegan_are_in_its_dataset_json(tmp_path, kind, form):
    labels = form([name, i % 2] for i, name in enumerate(SHARDS))
    path = write(tmp_path / kind, SHARDS | {"dataset.json": json.dumps({"labels": labels}).encode()})
    source = read(path)
    assert source.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert source.classes == ("0", "1")
    assert data.load(configured(path, num_classes=2)).labels.tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "expected a label of each image"),
        (b'{"labels": [["00000/img00000000.png", 0]]}', "no label of 00000/img00000001.png"),
        (b'{"labels": [["00000/img00000000.png", [0.5]]]}', "expected a label of each image"),
        (b"[1]", "expected a label of each image"),
        (b'{"labels": null}', ""),
    ],
)
def test_a_dataset_json_without_labels_gives_none(tmp_path, caplog, content, told):
    source = read(write(tmp_path / "set", SHARDS | {"dataset.json": content}))
    assert (len(source.names), source.labels) == (6, None)
    assert told in caplog.text


def test_parts_of_one_set_are_classes_only_if_asked_for(tmp_path):
    path = write(tmp_path / "set", SHARDS)
    with pytest.raises(UserError, match=r"no labels.*00000 to 00002 look like parts of one set.*num_classes=3"):
        data.load(configured(path, num_classes=5))
    assert data.load(configured(path), labelled=True).labels is None
    assert data.load(configured(path, num_classes=3)).labels.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_backslashes_in_archives_separate_folders(tmp_path, kind):
    files = {f"photos\\{pet}\\{i}.png": png(i) for i in range(3) for pet in "ab"}
    path = write(tmp_path / f"windows.{kind}", {"photos\\a\\": b""} | files | {"photos\\Thumbs.db": b"x"})
    source = read(path)
    assert source.classes == ("a", "b")
    assert np.bincount(source.labels).tolist() == [3, 3]


def test_numbers_are_sorted_as_numbers(tmp_path):
    names = [f"{number}/{i}.png" for number in ("1", "10", "2", "other") for i in range(2)]
    assert layout.by_folders(names).classes == ("1", "2", "10", "other")
    assert layout.by_folders(names).labels.tolist() == [0, 0, 2, 2, 1, 1, 3, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_out_is_counted_in_one_line(tmp_path, caplog, kind):
    taken = {"0.jpg": png(kind="JPEG"), "1.jfif": png(kind="JPEG"), "2.jpe": png(kind="JPEG"), "three": png()}
    taken |= {"4.PJPEG": png(kind="JPEG"), "5.jif": png(kind="JPEG"), "6.dib": png(kind="BMP")}
    taken |= {f"4{ending}": png(kind=kind) for ending, kind, codec in MORE if features.check(codec)}
    left = {"a.heics2": b"", "b.txt": b"", "c.TXT": b"", "notes": b"Python", "n.2024": b"P1"}
    silent = {"@eaDir/x.jpg": b"", "__MACOSX/._a.png": b"", ".DS_Store": b"", "Thumbs.db": b"", "desktop.ini": b""}
    silent |= {"@Recycle/a.jpg": b"", "#recycle/a.jpg": b"", "System Volume Information/a.png": b"", "Picasa.ini": b""}
    source = read(write(tmp_path / kind, taken | left | silent))
    assert sorted(source.names) == sorted(taken)
    (line,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert set(line.removeprefix("left out: ").split(", ")) == {"1 .heics2", "2 .txt", "2 without an ending"}


MORE = ((".avif", "AVIF", "avif"), (".jp2", "JPEG2000", "jpg_2000"))


def test_a_folder_of_nothing_that_is_read_says_what_was_found(tmp_path):
    with pytest.raises(UserError, match=r"no image.*left out: 2 \.zip \(unpack them\)"):
        read(write(tmp_path / "set", {"a.zip": b"", "b.zip": b""}))


def test_a_broken_link_to_a_folder_is_named(tmp_path, caplog):
    path = write(tmp_path / "set", {"a/0.png": png(), "b/0.png": png()})
    (path / "c").symlink_to(tmp_path / "nowhere")
    read(path)
    assert "1 a link to something that is not there (c)" in caplog.text


def test_greys_of_12_bits_are_told(tmp_path, caplog):
    for i in range(3):
        write(tmp_path / "set", {f"{i}.png": b""})
        Image.fromarray(np.full((8, 8), 1365 * (i + 1), np.uint16)).save(tmp_path / "set" / f"{i}.png")
    data.find_or_prepare(configured(tmp_path / "set"))
    assert "values up to 4095 of 65535" in caplog.text


@pytest.mark.parametrize(
    ("values", "batch_size", "told"),
    [
        ([200, 100, 50], 4, "3 images are fewer than a batch, 4"),
        ([200, 200, 200], 2, "all 3 images are identical"),
        ([15, 2, 1], 2, "all images are dark: no value is above 15"),
        ([200, 100, 1], 2, ""),
    ],
)
def test_odd_images_are_told(caplog, values, batch_size, told):
    config = configuration.default_config()
    config.batch_size = batch_size
    images = np.full((3, 8, 8, 1), 0, np.uint8) + np.array(values, np.uint8).reshape(3, 1, 1, 1)
    data.for_training(data.ImageSet(images, None, {}), config)
    assert [told in record.getMessage() for record in caplog.records] == [True] * bool(told)


def test_classes_are_told_with_their_sizes(caplog):
    config = configuration.default_config()
    config.update(dict(num_classes=3, batch_size=2))
    images, labels = np.full((4, 8, 8, 1), [[[[200]]], [[[1]]], [[[2]]], [[[3]]]], np.uint8), np.array([0, 0, 1, 2])
    with caplog.at_level(logging.INFO):
        data.for_training(data.ImageSet(images, labels, {"classes": ["2", "10", "cat"]}), config)
    assert "classes: 2 (2), 10 (1), cat (1)" in caplog.text


@pytest.mark.parametrize(
    ("text", "known", "expected"),
    [
        ("dog", ("cat", "dog"), 1),
        ("1", ("cat", "dog"), 1),
        ("2", ("cat", "dog"), "found '2', expected a class from 0 to 1, or one of cat, dog"),
        ("10", ("2", "10"), 1),
        ("0", ("2", "10"), "found '0', expected one of 2, 10"),  # neither the first nor a class
        ("1", (), 1),
        ("-1", (), "expected a class from 0 to 1"),
    ],
)
def test_a_class_is_meant_by_its_name_or_its_label(text, known, expected):
    if isinstance(expected, int):
        assert data.label_of(text, 2, known, "--label") == expected
        return
    with pytest.raises(UserError, match=f"^--label: .*{expected}"):
        data.label_of(text, 2, known, "--label")
