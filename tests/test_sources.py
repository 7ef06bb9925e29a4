"""Where images come from: folders, archives, idx files, LSUN's lmdb."""

import errno
import gzip
import io
import logging
import os
import re
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from dcgan_jax import config as configuration
from dcgan_jax import data
from dcgan_jax.data import images
from dcgan_jax.data.sources import celeba
from dcgan_jax.runtime.errors import UserError

RED = (255, 0, 0)


def solid(colour, size=(40, 30)):
    return Image.new("RGB", size, colour)


@pytest.fixture
def read(tmp_path_factory):
    """The prepared set of a path, from a folder of prepared sets that is empty at first."""
    prepared = tmp_path_factory.mktemp("prepared")

    def read(source, path="", image_size=(8, 8), channels=3, num_classes=0, **fields):
        config = configuration.default_config()
        config.update(dict(image_size=image_size, channels=channels, num_classes=num_classes))
        config.data.update(dict(source=source, path=str(path), prepared=str(prepared)) | fields)
        return data.load(config)

    read.prepared = prepared
    return read


@pytest.fixture
def pictures(tmp_path):
    """A folder of 200 images in nested folders of two classes, and files that are none."""
    for i in range(200):
        where = tmp_path / ("cats" if i % 2 else "dogs") / f"part {i // 100}"
        where.mkdir(parents=True, exist_ok=True)
        solid((i, 0, 0)).save(where / f"{i:03d}.PNG")
    (tmp_path / "readme.txt").write_text("not an image")
    (tmp_path / ".thumbnails").mkdir()
    solid(RED).save(tmp_path / ".thumbnails" / "hidden.png")
    return tmp_path


def test_folder_reads_everything_in_the_order_of_names(pictures, read):
    images, labels, card, _ = read("folder", pictures, num_classes=2)
    assert images.shape == (200, 8, 8, 3)
    assert images[:, 0, 0, 0].tolist() == [*range(1, 200, 2), *range(0, 200, 2)]
    assert labels.tolist() == [0] * 100 + [1] * 100
    assert (card["count"], card["left_out"], card["classes"]) == (200, 0, ["cats", "dogs"])
    assert read("folder", pictures).labels is None


def test_an_unreadable_image_is_named_and_left_out(pictures, read, caplog):
    (pictures / "cats" / "broken.png").write_bytes(b"")
    (pictures / "dogs" / "text.jpg").write_text("hello")
    with caplog.at_level(logging.WARNING):
        images, labels, card, _ = read("folder", pictures, num_classes=2)
    assert len(images) == len(labels) == card["count"] == 200
    assert card["left_out"] == 2
    assert sorted(images[:, 0, 0, 0]) == list(range(200))
    assert (labels == 1 - images[:, 0, 0, 0] % 2).all()  # whatever was left out, an image has its own label
    assert "broken.png" in caplog.text
    assert "text.jpg" in caplog.text
    assert "2 of the 202 images" in caplog.text
    assert "Warning" not in caplog.text


def test_more_than_one_in_a_hundred_unreadable_are_all_told_and_leave_nothing(pictures, read):
    for i in range(25):
        (pictures / "cats" / f"broken{i:02d}.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    with pytest.raises(UserError, match=r"25 of 225 images cannot be read: cats/broken00\.png \(.*and 5 more") as error:
        read("folder", pictures)
    assert all(f"broken{i:02d}.png" in str(error.value) for i in range(20))
    assert "\n" not in str(error.value)
    assert not [path for path in read.prepared.iterdir() if path.is_dir()]
    share = re.search(r"--config\.data\.unreadable=(\S+)", str(error.value)).group(1)
    assert share == "0.12"
    assert read("folder", pictures, unreadable=float(share)).card["left_out"] == 25


def test_why_an_image_cannot_be_read_is_told(tmp_path, read, monkeypatch):
    (tmp_path / "empty.png").touch()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "page.jpg").write_text("\n<!DOCTYPE html><title>Log in</title>")
    (tmp_path / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (tmp_path / "text.gif").write_text("hello")
    solid(RED).save(tmp_path / "whole.png")
    opened = images.Image.open

    def forbidden(file, **keywords):
        if str(file).endswith("whole.png"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(file, **keywords)

    monkeypatch.setattr(images.Image, "open", forbidden)
    with pytest.raises(UserError, match="6 of 6") as error:
        read("folder", tmp_path)
    for name, reason in {
        "empty.png": "empty file",
        "gone.png": "a link to something that is not there",
        "page.jpg": "a web page (HTML): download it again, with a browser if it needs a login or a confirmation",
        "pointer.png": "a pointer of git-lfs: run git lfs pull in its repository",
        "text.gif": "not an image of a kind that is read, or damaged",
        "whole.png": "permission denied",
    }.items():
        assert f"{name} ({reason})" in str(error.value)


def test_links_are_followed_once_and_pipes_are_not_waited_for(pictures, read, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    solid((222, 0, 0)).save(elsewhere / "linked.png")
    (pictures / "linked").symlink_to(elsewhere)
    (pictures / "circle").symlink_to(pictures)
    os.mkfifo(pictures / "pipe.png")
    images = read("folder", pictures).images
    assert len(images) == 201
    assert (images[:, 0, 0, 0] == 222).sum() == 1


def test_a_truncated_jpeg_is_unreadable_and_not_half_grey(tmp_path, read):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    noise.save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"1 of 2 images cannot be read: half\.jpg \(image file is truncated"):
        read("folder", tmp_path)


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        ("", b"", "missing"),
        ("nowhere", None, "does not exist"),
        ("file", b"x", "is not a folder"),
        ("faces.zip", b"", "is empty.*download it again"),
        ("faces.iso", bytes(32_769) + b"CD001" + bytes(999), "is an ISO image.*unpack it"),
        ("faces.z01", b"PK\7\x08PK\3\4", "is one part of a zip archive in several.*with all its parts"),
        ("faces.tar.lz4", b"\x04\x22\x4d\x18", "is a file compressed by lz4.*unpack it"),
        ("faces.mp4", b"\0\0\0\x18ftypmp42", "is a video.*export its frames"),
        ("faces.tfrecord-00000-of-00001", bytes(99), "is a TFRecord file.*export its images"),
        ("faces.zip", b"<html><body>Quota exceeded", "is a web page.*download it again, with a browser"),
        ("faces.tar", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of git-lfs.*run git lfs pull"),
        ("faces.rar", b"Rar!\x1a\x07\x01\x00", "is a RAR archive.*unpack it"),
        ("faces.7z", b"7z\xbc\xaf\x27\x1c\x00", "is a 7-Zip archive.*unpack it"),
        ("face.png", b"\x89PNG\r\n\x1a\n", "is one image.*pass its folder"),
    ],
)
def test_a_wrong_folder_is_told(tmp_path, monkeypatch, read, path, content, told):
    monkeypatch.chdir(tmp_path)
    if path and content is not None:
        (tmp_path / path).write_bytes(content)
    with pytest.raises(UserError, match=told) as error:
        read("folder", path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda entry: entry[:8] + b"\1" + entry[9:], r"encrypted; unpack the archive by its password"),
        (lambda entry: entry[:34] + b"\1" + entry[35:], "is the last of several parts of a zip archive"),
    ],
    ids=["encrypted", "in parts"],
)
def test_a_zip_that_needs_more_than_itself_is_told(pictures, read, tmp_path_factory, change, told):
    path = archived(pictures, "zip", tmp_path_factory.mktemp("archive") / "pets.zip")
    content = path.read_bytes()
    places = [match.start() for match in re.finditer(b"PK\1\2", content)]
    for place in places:
        content = content[:place] + change(content[place : place + 46]) + content[place + 46 :]
    path.write_bytes(content)
    with pytest.raises(UserError, match=told):
        read("folder", path)


def test_an_archive_that_may_not_be_read_is_told_as_such(pictures, read, tmp_path_factory, monkeypatch):
    path = archived(pictures, "zip", tmp_path_factory.mktemp("archive") / "pets.zip")

    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(type(path), "open", forbidden)
    with pytest.raises(UserError, match=r"pets\.zip' cannot be read \(Permission denied\); make it readable"):
        read("folder", path)


def test_a_folder_without_images_is_told(tmp_path, read):
    with pytest.raises(UserError, match="holds no image"):
        read("folder", tmp_path)


def test_digits_are_all_there(read):
    image_set = read("digits", image_size=(32, 32), channels=1, num_classes=10)
    assert image_set.images.shape == (1797, 32, 32, 1)
    assert np.bincount(image_set.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (image_set.images.min(), image_set.images.max()) == (0, 255)


def write_idx(path, array, compress=True):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if compress else content)


@pytest.fixture
def idx_folder(tmp_path):
    rng = np.random.default_rng(0)
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", rng.integers(0, 256, (30, 28, 28)))
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.arange(30) % 10)
    return tmp_path


@pytest.fixture
def read_idx(read):
    return lambda path, **fields: read("idx", path, **dict(image_size=(28, 28), channels=1) | fields)


def test_idx_files_and_their_folder_read_alike(idx_folder, read_idx):
    by_file = read_idx(idx_folder / "train-images-idx3-ubyte.gz", num_classes=10)
    by_folder = read_idx(idx_folder, num_classes=10)
    np.testing.assert_array_equal(by_file.images, by_folder.images)
    assert by_file.labels.tolist() == [*range(10)] * 3
    assert read_idx(idx_folder, image_size=(32, 32), channels=3).images.shape == (30, 32, 32, 3)


def test_labels_are_found_compressed_or_not(idx_folder, read_idx):
    labels = idx_folder / "train-labels-idx1-ubyte.gz"
    labels.with_suffix("").write_bytes(gzip.decompress(labels.read_bytes()))
    labels.unlink()
    assert read_idx(idx_folder, num_classes=10).labels.tolist() == [*range(10)] * 3


@pytest.mark.parametrize("damage", ["cut", "magic", "short", "absent", "labels", "count", "overflow", "nothing"])
def test_damaged_idx_files_are_told(idx_folder, read_idx, damage):
    path = idx_folder / "train-images-idx3-ubyte.gz"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "magic":
        path.write_bytes(b"not an idx file")
    elif damage == "short":
        path.write_bytes(gzip.decompress(path.read_bytes())[:-1])
    elif damage == "overflow":
        path.write_bytes(bytes([0, 0, 8, 3]) + np.array([2**31, 2**31, 4], ">u4").tobytes())
    elif damage == "nothing":
        write_idx(path, np.zeros((0, 28, 28)))
    elif damage == "absent":
        path.unlink()
    elif damage == "labels":
        write_idx(idx_folder / "train-labels-idx1-ubyte.gz", np.arange(30))
    elif damage == "count":
        write_idx(idx_folder / "train-labels-idx1-ubyte.gz", np.arange(29) % 10)
    with pytest.raises(UserError) as error:
        read_idx(idx_folder, num_classes=10)
    assert "\n" not in str(error.value)


def test_classes_without_labels_are_told(idx_folder, read_idx):
    (idx_folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="have no labels"):
        read_idx(idx_folder, num_classes=10)


def test_a_class_that_no_image_has_is_told(idx_folder, read_idx):
    with pytest.raises(UserError, match=r"10 labels from 0 to 9 .*, expected all from 0 to 11; pass .*num_classes=10"):
        read_idx(idx_folder, num_classes=12)
    write_idx(idx_folder / "train-labels-idx1-ubyte.gz", np.where(np.arange(30) % 10 == 5, 6, np.arange(30) % 10))
    with pytest.raises(UserError, match="without a gap"):
        read_idx(idx_folder, num_classes=10)


def test_mnist_itself(data_dir, read_idx):
    image_set = read_idx(data_dir / "mnist", num_classes=10)
    assert image_set.images.shape == (60_000, 28, 28, 1)
    assert np.bincount(image_set.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def archived(folder, kind, path):
    """The same files in an archive."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, f"pets/{file.relative_to(folder)}")
            archive.writestr("__MACOSX/pets/._001.png", b"what a Mac adds")
    else:
        with tarfile.open(path, f"w:{kind}") as archive:
            for file in files:
                archive.add(file, f"pets/{file.relative_to(folder)}")
    return path


@pytest.mark.parametrize("kind", ["zip", "", "gz", "xz"])
def test_an_archive_reads_as_its_folder(pictures, read, tmp_path_factory, kind):
    where = tmp_path_factory.mktemp("archive")
    path = archived(pictures, kind, where / "pets.archive")
    by_archive, by_folder = read("folder", path, num_classes=2), read("folder", pictures, num_classes=2)
    np.testing.assert_array_equal(by_archive.images, by_folder.images)
    np.testing.assert_array_equal(by_archive.labels, by_folder.labels)
    assert by_archive.card["classes"] == ["cats", "dogs"]
    assert list(where.iterdir()) == [path]  # read in place


@pytest.mark.parametrize("name", ["../out.png", "/out.png", "a/../../out.png", "..\\out.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out_of_an_archive_are_told(tmp_path, read, kind, name):
    content = io.BytesIO()
    solid(RED).save(content, "PNG")
    path = tmp_path / f"evil.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, content.getvalue())
    else:
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo(name)
            member.size = len(content.getvalue())
            archive.addfile(member, io.BytesIO(content.getvalue()))
    with pytest.raises(UserError, match="leads out of the archive"):
        read("folder", path)


@pytest.mark.parametrize("kind", ["zip", "", "gz", "xz"])
def test_a_cut_archive_is_told(pictures, read, tmp_path_factory, kind):
    path = archived(pictures, kind, tmp_path_factory.mktemp("archive") / "cut")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="download") as error:
        read("folder", path)
    assert "\n" not in str(error.value)


def test_links_and_devices_in_a_tar_are_passed_over(pictures, read, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "pets.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(pictures, "pets")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("pets/secret.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert len(read("folder", path).images) == 200


def test_hard_links_in_a_tar_are_images(pictures, read, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "pets.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(pictures, "pets")
        member = tarfile.TarInfo("pets/dogs/again.png")
        member.type, member.linkname = tarfile.LNKTYPE, "pets/dogs/part 0/000.PNG"
        archive.addfile(member)
    assert len(read("folder", path).images) == 201


@pytest.mark.parametrize("kind", ["", "gz"])
@pytest.mark.parametrize("damage", ["header", "end"])
def test_a_damaged_tar_does_not_pass_for_a_shorter_one(pictures, read, tmp_path_factory, kind, damage):
    path = archived(pictures, "", tmp_path_factory.mktemp("archive") / "pets")
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        offset = archive.getmembers()[100].offset
    if damage == "header":
        content[offset + 3] ^= 0xFF
    else:
        content = content[:offset]
    path.write_bytes(gzip.compress(bytes(content)) if kind else bytes(content))
    with pytest.raises(UserError, match="expected a complete tar"):
        read("folder", path)


def test_a_program_called_png_is_not_run(pictures, read, tmp_path_factory, monkeypatch):
    # Pillow would hand this to Ghostscript.
    (pictures / "dogs" / "evil.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nshowpage\n")
    programs = tmp_path_factory.mktemp("programs")
    (programs / "gs").write_text(f"#!/bin/sh\ntouch {programs}/called\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert read("folder", pictures).card["left_out"] == 1
    assert not (programs / "called").exists()


def test_a_zip_that_unpacks_to_more_than_it_says_is_cut(tmp_path, read):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.bmp", bytes(2**26))
    path.write_bytes(path.read_bytes().replace((2**26).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"cannot be read: bomb\.bmp"):
        read("folder", path)


def attributes_of(names, titles=("Smiling", "Male")):
    rows = [f"{name}  {1 if i % 2 else -1} -1" for i, name in enumerate(names)]
    return "\n".join([str(len(names)), " ".join(titles), *rows]) + "\n"


@pytest.fixture
def faces(tmp_path):
    """CelebA with 5 images for a count."""
    folder = tmp_path / "img_align_celeba"
    folder.mkdir()
    names = [f"{i:06d}.jpg" for i in range(1, 6)]
    for name in names:
        solid(RED, (178, 218)).save(folder / name)
    (tmp_path / "list_attr_celeba.txt").write_text(attributes_of(names))
    return folder


def test_celeba_comes_with_its_attributes(faces, read, monkeypatch):
    monkeypatch.setattr(celeba, "COUNT", 5)
    image_set = read("folder", faces, crop="celeba140")
    assert image_set.images.shape == (5, 8, 8, 3)
    assert image_set.attributes.tolist() == [[i % 2 == 1, False] for i in range(5)]
    assert image_set.card["attributes"] == ["Smiling", "Male"]
    archive = archived(faces, "zip", faces.with_suffix(".zip"))
    np.testing.assert_array_equal(read("folder", archive, crop="celeba140").attributes, image_set.attributes)


@pytest.mark.parametrize("where", ["inside", "beside"])
@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_kaggles_table_of_attributes_is_read(faces, read, monkeypatch, where, kind):
    monkeypatch.setattr(celeba, "COUNT", 5)
    text = faces.parent / "list_attr_celeba.txt"
    expected = read("folder", faces).attributes
    _, titles, *rows = text.read_text().splitlines()
    text.unlink()
    root = faces.parent / "archive"
    nested = root / "img_align_celeba" / "img_align_celeba"  # as Kaggle has it
    nested.parent.mkdir(parents=True)
    faces.rename(nested)
    table = ["image_id," + ",".join(titles.split()), *(",".join(row.split()) for row in rows)]
    (root / "list_attr_celeba.csv").write_bytes("\r\n".join(table).encode())
    path = root if where == "inside" else nested
    if kind == "zip":
        path = archived(path, "zip", root / "archive.zip" if where == "inside" else root / "img_align_celeba.zip")
    image_set = read("folder", path)
    np.testing.assert_array_equal(image_set.attributes, expected)
    assert image_set.card["attributes"] == ["Smiling", "Male"]


def test_celeba_that_is_not_whole_is_told(faces, read, monkeypatch):
    with pytest.raises(UserError, match=r"5 images, expected CelebA's 202599.*000006.jpg is missing"):
        read("folder", faces)
    monkeypatch.setattr(celeba, "COUNT", 5)
    (faces / "extra.jpg").write_bytes((faces / "000001.jpg").read_bytes())
    with pytest.raises(UserError, match=r"extra.jpg is not of CelebA"):
        read("folder", faces)


def test_how_to_get_celeba_is_told_where_it_is_absent(tmp_path, read):
    with pytest.raises(UserError, match=r"img_align_celeba.zip, 1.4 GB.*launch/prepare.py") as error:
        read("folder", tmp_path / "img_align_celeba.zip")
    assert "\n" not in str(error.value)


def test_celebas_attributes_are_no_matter_of_other_images(faces, read):
    (faces.parent / "flowers").mkdir()
    solid(RED).save(faces.parent / "flowers" / "rose.png")
    assert read("folder", faces.parent / "flowers").attributes is None


@pytest.mark.parametrize("damage", ["absent", "short", "empty", "number"])
def test_attributes_that_do_not_match_are_told(faces, read, monkeypatch, damage):
    monkeypatch.setattr(celeba, "COUNT", 5)
    file = faces.parent / "list_attr_celeba.txt"
    lines = file.read_text().splitlines()
    changed = {
        "absent": lines[:-1],
        "short": [*lines[:-1], lines[-1][:-2]],
        "empty": [],
        "number": [*lines[:-1], lines[-1] + "0"],
    }[damage]
    file.write_text("\n".join(changed))
    with pytest.raises(UserError, match=r"list_attr_celeba\.txt"):
        read("folder", faces)


TABLE = "image_id,Male,Smiling\n1.jpg,1,-1\n2.jpg,-1,1\n"
TABLES = {
    "as Kaggle's": TABLE,
    "of Windows": "\ufeff" + TABLE.replace("\n", "\r\n"),
    "0 for -1": TABLE.replace("-1", "0"),
    "words": TABLE.replace("-1", "False").replace(",1", ",True"),
    "with numbers of rows": ",image_id,Male,Smiling\n0,1.jpg,1,-1\n1,2.jpg,-1,1\n",
    "names last": "Male,Smiling,image_id\n1,-1,1.jpg\n-1,1,2.jpg\n",
    "quoted": '"image_id","Male","Smiling"\n"1.jpg","1","-1"\n"2.jpg",-1, 1\n',
    "semicolons": TABLE.replace(",", ";"),
    "tabs": TABLE.replace(",", "\t"),
    "without endings": TABLE.replace(".jpg", ""),
    "with folders": TABLE.replace("1.jpg", "set/1.jpg"),
    "the authors' text": "2\r\nMale Smiling\r\n1.jpg  1 -1\r\n2.jpg -1  1\r\n",
}


@pytest.mark.parametrize("form", TABLES)
def test_copies_of_the_attributes_in_other_forms_are_read(form):
    for content in (TABLES[form].encode(), TABLES[form].encode("utf-16")):
        found, titles = celeba.attributes("list_attr_celeba.csv", content, ["x/1.png", "2.jpg"])
        assert titles == ("Male", "Smiling")
        assert found.tolist() == [[True, False], [False, True]]


def test_lsun_reads_its_lmdb(tmp_path, read):
    lmdb = pytest.importorskip("lmdb")
    environment = lmdb.open(str(tmp_path / "bedroom_train_lmdb"), map_size=2**24)
    with environment, environment.begin(write=True) as transaction:
        for i in range(150):
            content = io.BytesIO()
            solid((i, 0, 0)).save(content, "WEBP", lossless=True)
            transaction.put(f"{i:05x}".encode(), content.getvalue())
    image_set = read("lmdb", tmp_path / "bedroom_train_lmdb")
    assert image_set.images[:, 0, 0, 0].tolist() == list(range(150))


def test_a_cut_lmdb_is_told(tmp_path, read):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for i in range(100):
            transaction.put(f"{i:05x}".encode(), bytes(10_000))
    os.truncate(tmp_path / "data.mdb", (tmp_path / "data.mdb").stat().st_size // 2)
    with pytest.raises(UserError, match="cannot be read"):  # and not the end of the process
        read("lmdb", tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"not an lmdb" * 1000])
def test_what_is_no_lmdb_is_told(tmp_path, read, content):
    pytest.importorskip("lmdb")
    if content is not None:
        (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(UserError, match="lmdb"):
        read("lmdb", tmp_path)
