"""Parquet files and what save_to_disk writes: they read as the same pictures in a folder; what is wrong is told."""

import io
import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import images_at
from PIL import Image

from dcgan_jax import data
from dcgan_jax.data import decoding
from dcgan_jax.data.sources import hub_sets, shards, tables
from dcgan_jax.data.sources.source import Picture, Source
from dcgan_jax.runtime.errors import UserError

CLASSES = ["cat", "dog", "owl"]
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(value, side=8):
    content = io.BytesIO()
    Image.new("RGB", (side, side), (value, 0, 0)).save(content, "PNG")
    return content.getvalue()


PNGS = [png(i) for i in range(12)]
ROWS = [{"bytes": content, "path": None} for content in PNGS]
LABELS = [i // 4 for i in range(12)]


def hugging_face(**columns):
    """Hugging Face's metadata of a schema, for features of these types."""
    features = {"image": {"_type": "Image"}, "label": {"names": CLASSES, "_type": "ClassLabel"}} | columns
    return {"huggingface": json.dumps({"info": {"features": features}})}


def table(images=ROWS, labels=LABELS, kind=PICTURE, metadata=None):
    made = pa.table({"id": range(len(images)), "image": pa.array(images, kind), "label": labels})
    return made.replace_schema_metadata(metadata or hugging_face())


def write(path, made, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, path, **options)
    return path


def save_to_disk(folder, made, parts=2):
    """As Hugging Face's datasets do: arrow streams, and the files that describe them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{i:05d}-of-{parts:05d}.arrow" for i in range(parts)]
    for i, name in enumerate(names):
        rows = made.num_rows // parts
        with pa.ipc.new_stream(str(folder / name), made.schema) as stream:
            stream.write_table(made.slice(i * rows, rows), max_chunksize=4)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    (folder / "cache-0123.arrow").write_bytes(b"of another set")
    return folder


def as_bytes(root):
    for i, name in enumerate(("train-00000-of-00002", "train-00001-of-00002")):
        write(root / "data" / f"{name}.parquet", table().slice(6 * i, 6), row_group_size=4)
    (root / "README.md").write_text("a set")
    return root


def as_binary(root):
    return write(root / "all.parquet", table(PNGS, kind=pa.large_binary(), metadata={"other": ""}))


def as_paths(root):
    names = [f"images/{i}.dat" for i in range(12)]
    write(root / "all.parquet", table([{"bytes": None, "path": name} for name in names]))
    (root / "images").mkdir()
    for name, content in zip(names, PNGS, strict=True):
        (root / name).write_bytes(content)
    return root


def as_saved(root):
    return save_to_disk(root, table())


def as_saved_splits(root):
    save_to_disk(root / "train", table())
    save_to_disk(root / "test", table(list(reversed(ROWS))))
    (root / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return root


@pytest.mark.parametrize("made", [as_bytes, as_binary, as_paths, as_saved, as_saved_splits])
def test_a_table_reads_as_the_folder_of_its_pictures(tmp_path, read, made):
    for i, (content, label) in enumerate(zip(PNGS, LABELS, strict=True)):
        file = tmp_path / "folder" / CLASSES[label] / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    expected = read("folder", tmp_path / "folder", num_classes=3)
    path = made(tmp_path / "table")
    for source in ("parquet", "folder"):
        found = read(source, path, num_classes=3)
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_array_equal(found.labels, expected.labels)
        if made is not as_binary:  # which has no names of classes
            assert found.card["classes"] == expected.card["classes"]
        assert found.card["sha256"]["images"] == expected.card["sha256"]["images"]


@pytest.mark.parametrize(
    ("name", "split", "folder"),
    [
        ("train-00000-of-00002.parquet", "train", ""),
        ("data/validation-00000-of-00001-0123abcd.parquet", "val", "data"),
        ("data/unlabeled-00000-of-00001.parquet", "unlabeled", "data"),
        ("train_extra-00000-of-00001.parquet", "train_extra", ""),
        ("cifar10-test.arrow", "test", ""),
        ("cifar10-train-00001-of-00002.arrow", "train", ""),
        ("plain/test/0000.parquet", "test", "plain"),
        ("imagenet1k-validation-00.tar", "val", ""),
        ("latest.parquet", "", ""),
        ("train_or_test.parquet", "", ""),
        ("0000.parquet", "", ""),
    ],
)
def test_a_files_name_tells_its_split(name, split, folder):
    assert shards.place(name) == (split, folder)


def test_splits_are_taken_and_held_out_as_those_of_folders(tmp_path, read, caplog):
    for name, values in {"train": range(6), "test": range(6, 9), "unlabeled": range(9, 12)}.items():
        write(tmp_path / "set" / f"{name}-00000-of-00001.parquet", table(ROWS, LABELS).take(list(values)))
    with caplog.at_level(logging.INFO):
        assert read("folder", tmp_path / "set").images[:, 0, 0, 0].tolist() == [*range(6)]
    assert "taking the file of the split train; test, unlabeled: left out" in caplog.text
    assert read("folder", tmp_path / "set", split="unlabeled").images[:, 0, 0, 0].tolist() == [9, 10, 11]
    held_out = data.held_out(images_at("folder", tmp_path / "set", tmp_path))
    assert held_out.images[:, 0, 0, 0].tolist() == [6, 7, 8]
    with pytest.raises(UserError, match=r"found 'val', expected one of .* test, train, unlabeled; pass --config"):
        read("parquet", tmp_path / "set", split="val")


def test_several_sets_in_a_folder_are_told(tmp_path, read):
    for name in ("plain", "small"):
        write(tmp_path / "set" / name / "train-00000-of-00001.parquet", table())
    with pytest.raises(
        UserError, match=r"several sets .*in plain, small, expected one; pass --config\.data\.path="
    ) as told:
        read("folder", tmp_path / "set")
    assert len(read("folder", str(told.value).rpartition("=")[2]).images) == 12


def test_columns_are_listed_and_chosen(tmp_path, read):
    made = table().append_column("mask", pa.array(list(reversed(ROWS)), PICTURE))
    made = made.append_column("kind", pa.array(list("abcd" * 3)).dictionary_encode())
    path = write(tmp_path / "set.parquet", made.replace_schema_metadata())
    with pytest.raises(
        UserError, match=r"found 2 columns of pictures.*image \(struct.*mask.*--config\.data\.name="
    ) as told:
        read("parquet", path)
    assert "\n" not in str(told.value)
    assert read("parquet", path, name="mask").images[:, 0, 0, 0].tolist() == [*reversed(range(12))]
    chosen = read("parquet", path, name="image,kind", num_classes=4)
    assert (chosen.card["classes"], chosen.labels.tolist()) == (list("abcd"), [0, 1, 2, 3] * 3)


@pytest.mark.parametrize(
    ("column", "name", "told"),
    [
        ("text", "", "found no columns of pictures"),
        ("image", "photo", "found 'photo'.*expected one of its columns, id .int64., image"),
        ("image", "id", "column 'id' .* is of int64, expected one of pictures"),
        ("image", "image,kind", "found no column 'kind'.*expected one of id, image, label"),
        ("image", "image,image", "expected one of classes: whole numbers or texts"),
    ],
)
def test_wrong_columns_are_told(tmp_path, read, column, name, told):
    kind = PICTURE if column == "image" else pa.int64()
    made = pa.table(
        {"id": range(12), column: pa.array(ROWS if column == "image" else range(12), kind), "label": LABELS}
    )
    with pytest.raises(UserError, match=told) as error:
        read("parquet", write(tmp_path / "set.parquet", made), name=name)
    assert "\n" not in str(error.value)
    assert "pass --config.data.name=" in str(error.value)


def test_a_column_that_one_file_lacks_is_told(tmp_path, read):
    write(tmp_path / "set" / "0.parquet", table())
    write(tmp_path / "set" / "1.parquet", table().drop_columns("label"))
    with pytest.raises(UserError, match=r"column 'label' of '1\.parquet' is not among id, image"):
        read("parquet", tmp_path / "set")


@pytest.mark.parametrize(
    ("labels", "metadata", "classes", "found"),
    [
        (LABELS, hugging_face(), CLASSES, LABELS),
        ([10, 2, 2, 10] * 3, {"a": "b"}, ["2", "10"], [1, 0, 0, 1] * 3),
        (["owl", "cat", "cat"] * 4, {"a": "b"}, ["cat", "owl"], [1, 0, 0] * 4),
        ([-1] * 12, hugging_face(), [], None),
        ([None, *LABELS[1:]], hugging_face(), [], None),
    ],
)
def test_labels_are_numbers_or_names(tmp_path, read, caplog, labels, metadata, classes, found):
    path = write(tmp_path / "set.parquet", table(labels=labels, metadata=metadata))
    image_set = read("parquet", path, num_classes=len(classes))
    assert image_set.card["classes"] == classes
    assert found is None or image_set.labels.tolist() == found
    assert ("have no label; none is used" in caplog.text) == (found is None)


def test_a_label_without_a_name_is_told(tmp_path, read):
    with pytest.raises(UserError, match="has the label 3, expected less than 3"):
        read("parquet", write(tmp_path / "set.parquet", table(labels=[3] * 12)))


def test_of_several_columns_of_classes_none_is_taken_unasked(tmp_path, read, caplog):
    fine = {"names": CLASSES, "_type": "ClassLabel"}
    made = table().rename_columns(["coarse", "image", "fine"])
    path = write(tmp_path / "set.parquet", made.replace_schema_metadata(hugging_face(fine=fine, coarse=fine)))
    read("parquet", path)
    assert "2 columns of them: fine, coarse (--config.data.name=" in caplog.text
    assert read("parquet", path, name="image,fine", num_classes=3).labels.tolist() == LABELS


def test_damaged_pictures_are_named_and_left_out(tmp_path, read, caplog):
    rows = [*ROWS[:8], *({"bytes": None, "path": path} for path in ("gone.png", "../set.parquet", None))]
    rows.append({"bytes": PNGS[0][:40], "path": "cut.png"})
    image_set = read("parquet", write(tmp_path / "set.parquet", table(rows)), unreadable=0.5)
    assert image_set.images[:, 0, 0, 0].tolist() == [*range(8)]
    assert "set.parquet:8 ('gone.png' is not there)" in caplog.text
    assert "set.parquet:9 ('../set.parquet' leads out of the folder of the set)" in caplog.text
    assert "set.parquet:10 (no picture in this row)" in caplog.text
    assert "set.parquet:11 (" in caplog.text


@pytest.mark.parametrize("source", ["parquet", "folder"])
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda content: content[: len(content) // 2], "cannot be read .*whole; download it again"),
        (lambda content: content[:4] + bytes(len(content) - 12) + content[-8:], "cannot be read .*whole"),
        (lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "run git lfs pull"),
        (lambda content: b"<!DOCTYPE html><title>Log in</title>", "is a web page.*download it again, with a browser"),
        (lambda content: b"", "is empty, expected a parquet file.*download it again"),
    ],
)
def test_damaged_files_are_told(tmp_path, read, source, damage, told):
    file = write(tmp_path / "set" / "train.parquet", table())
    (tmp_path / "set" / "banner.png").write_bytes(PNGS[0])
    content = damage(file.read_bytes())
    file.write_bytes(content)
    with pytest.raises(UserError, match=told) as error:
        read(source, tmp_path / "set")
    assert "\n" not in str(error.value)
    assert str(file) in str(error.value)


def test_pages_that_are_damaged_are_told(tmp_path, read):
    file = write(tmp_path / "set.parquet", table(), write_page_checksum=True, use_dictionary=False)
    content = bytearray(file.read_bytes())
    column = pq.ParquetFile(file).metadata.row_group(0).column(1)
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"set\.parquet' cannot be read .*download it again"):
        read("parquet", file)


def test_incomplete_folders_are_told(tmp_path, read):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.parquet or \.arrow file; pass the folder that does"):
        read("parquet", tmp_path / "empty")
    saved = save_to_disk(tmp_path / "saved", table())
    (saved / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(UserError, match=r"data-00001-of-00002\.arrow' is not there.*copy the whole folder again"):
        read("folder", saved)
    with pytest.raises(UserError, match="has no rows"):
        read("parquet", write(tmp_path / "none.parquet", table().slice(0, 0)))
    os.mkfifo(tmp_path / "pipe.parquet")
    with pytest.raises(UserError, match="is not a regular file, expected a parquet file"):  # and nothing waits for it
        read("parquet", tmp_path / "pipe.parquet")
    with pytest.raises(UserError, match="does not exist, expected a folder of parquet files"):
        read("parquet", tmp_path / "nowhere")


@pytest.mark.parametrize("features", [False, True])
def test_images_with_a_table_about_them_stay_images(tmp_path, read, features):
    rng = np.random.default_rng(0)
    columns = {"file_name": ["0.png"], "features": [rng.random(2**14)]} if features else {"file_name": ["0.png"]}
    write(tmp_path / "set" / "metadata.parquet", pa.table(columns))
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "set" / "0.png")
    assert len(read("folder", tmp_path / "set").images) == 1


def test_the_extra_is_named_where_it_is_missing(tmp_path, read, monkeypatch):
    path = write(tmp_path / "set.parquet", table())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"need the package pyarrow; pip install --editable '\.\[parquet\]'"):
        read("folder", path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs the package huggingface_hub; pip install huggingface_hub"):
        read("parquet", "hf://datasets/owner/name")


def test_sets_on_the_hub_are_downloaded_once(tmp_path, read, monkeypatch, caplog):
    library = pytest.importorskip("huggingface_hub")
    snapshot = tmp_path / "snapshots" / "0123ab"
    as_bytes(snapshot / "small")
    asked = []

    def download(repository, **options):
        asked.append((repository, options["repo_type"], options["revision"], options["allow_patterns"]))
        return str(snapshot if options["revision"] == hub_sets.CONVERTED else tmp_path / "nothing")

    monkeypatch.setattr(library, "snapshot_download", download)
    found = read("folder", "hf://datasets/owner/of_images/small")
    assert found.images[:, 0, 0, 0].tolist() == [*range(12)]
    assert found.card["version"] == "commit 0123ab"
    expected = ("owner/of_images", "dataset", None, ["small/*.parquet"])
    assert asked == [expected, (*expected[:2], hub_sets.CONVERTED, expected[3])]

    def unreachable(*args, **options):
        raise ConnectionError("no network\nand more")

    monkeypatch.setattr(library, "snapshot_download", unreachable)
    caplog.set_level(logging.INFO)
    hub_sets.download.cache_clear()
    assert len(read("folder", "hf://datasets/owner/of_images/small").images) == 12
    assert "no longer exists" not in caplog.text
    told = r"cannot be downloaded \(ConnectionError: no network and more\); check the name and the network, or pass"
    with pytest.raises(UserError, match=told):
        read("parquet", "hf://datasets/owner/other")
    with pytest.raises(UserError, match="expected hf://datasets/OWNER/NAME"):
        read("parquet", "hf://owner")


def test_a_group_of_rows_is_read_once_and_not_held(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [{"bytes": rng.bytes(2**17), "path": None} for _ in range(64)]
    file = write(tmp_path / "set.parquet", table(rows, [0] * 64), write_batch_size=4)  # one group, of pages of 4 rows
    del rows
    monkeypatch.setattr(tables, "MAX_BATCH", 2**18)
    before, most, sizes = pa.total_allocated_bytes(), 0, []
    for picture in tables.pictures(tables.open_table(file), "image", 40, tmp_path):
        most = max(most, pa.total_allocated_bytes() - before)
        sizes.append(picture.size)
    assert sizes == [2**17] * 24
    assert most < file.stat().st_size / 2


def test_pictures_are_not_read_far_ahead_of_their_decoding(tmp_path, monkeypatch):
    read_so_far, decoded, ahead = 0, 0, []

    def opened():
        nonlocal decoded
        ahead.append(read_so_far - decoded)
        decoded += 1
        return Image.new("RGB", (8, 8))

    def stream(start, stop):
        nonlocal read_so_far
        for _ in range(start, stop):
            read_so_far += 1
            yield Picture(opened, 2**20)

    monkeypatch.setattr(decoding, "MAX_HELD", 2**21)
    source = Source([str(i) for i in range(400)], stream=stream, decoding=False)
    request = dict(image_size=(8, 8), channels=3, crop="center")
    done = decoding.decode_all(tmp_path, source, request, workers=1)
    assert [(piece.start, piece.stop) for piece in done] == [(i, i + 2) for i in range(0, 400, 2)]
    assert max(ahead) <= 10  # two pieces that wait, one that is decoded, and one in the making


def test_a_preparation_that_was_stopped_goes_on_within_a_file(tmp_path, read, monkeypatch):
    path = write(tmp_path / "set.parquet", table(ROWS * 40, LABELS * 40), row_group_size=100)
    decode = decoding._decode

    def failing(descriptor, source, request, piece):
        if piece[0] in range(120, 240):
            raise UserError("stopped")
        return decode(descriptor, source, request, piece)

    monkeypatch.setattr(decoding, "_decode", failing)
    with pytest.raises(UserError, match="stopped"):
        read("parquet", path)
    monkeypatch.setattr(decoding, "_decode", decode)
    assert list(Path(tmp_path / "prepared").glob("*.partial/done.jsonl"))
    assert read("parquet", path).images[:, 0, 0, 0].tolist() == [*range(12)] * 40
