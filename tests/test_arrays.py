"""Images in arrays: which array is meant, what its axes and values are, and labels beside; any number of channels."""

import logging
import mmap
import os

import numpy as np
import pytest
from conftest import call
from PIL import Image

from dcgan_jax import config as configuration
from dcgan_jax import data, inference
from dcgan_jax.data.images import grid, visible
from dcgan_jax.data.resizing import resize
from dcgan_jax.data.sources import array_names, array_pixels
from dcgan_jax.evaluation import extractors
from dcgan_jax.runtime import array_files
from dcgan_jax.runtime.errors import UserError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (12, 8, 8, 3), np.uint8)
CLASSES = np.arange(12) % 3


@pytest.fixture
def read(tmp_path):
    """The prepared set of a path below the test's folder; channels as asked for."""

    def read(name, channels=3, num_classes=0, size=(8, 8), held_out=False, key="", **fields):
        config = configuration.default_config()
        config.update(dict(image_size=size, channels=channels, num_classes=num_classes, batch_size=2))
        config.data.update(
            dict(source="array", name=key, path=str(tmp_path / name), prepared=str(tmp_path / "prepared")) | fields
        )
        return data.held_out(config) if held_out else data.load(config)

    return read


def save(folder, arrays):
    for name, values in arrays.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / name, values)


@pytest.mark.parametrize(
    ("shape", "channels", "first"),
    [
        ((3, 32, 32), 3, True), ((32, 32, 3), 3, False), ((1, 28, 28), 1, True), ((28, 28, 1), 1, False),
        ((6, 16, 16), 6, True), ((16, 16, 6), 6, False), ((6, 16, 16), 3, True), ((16, 16, 6), 3, False),
        ((16, 8, 8), 16, True), ((8, 8, 16), 16, False), ((32, 32, 3), 32, False), ((3, 32, 32), 32, True),
        ((3, 3, 3), 3, False), ((64, 64, 64), 64, False), ((64, 64, 64), 3, False),
    ],
)  # fmt: skip
def test_channels_come_first_where_that_is_clear(shape, channels, first):
    assert array_pixels.channels_first(shape, channels) == first


def test_bytes_of_the_right_size_stay_as_they_are(tmp_path, read, caplog):
    many = RNG.integers(0, 256, (5, 8, 8, 6), np.uint8)
    save(tmp_path, {"last": COLOUR, "first": COLOUR.transpose(0, 3, 1, 2), "grey": COLOUR[..., 0], "many": many})
    with caplog.at_level(logging.INFO):
        np.testing.assert_array_equal(read("last.npy").images, COLOUR)
        np.testing.assert_array_equal(read("first.npy").images, COLOUR)
    assert "last.npy: uint8 (12, 8, 8, 3) as [N, H, W, C]" in caplog.text
    assert "first.npy: uint8 (12, 3, 8, 8) as [N, C, H, W]" in caplog.text
    np.testing.assert_array_equal(read("grey.npy", channels=1).images, COLOUR[..., :1])
    np.testing.assert_array_equal(read("grey.npy").images, COLOUR[..., :1].repeat(3, -1))
    np.testing.assert_array_equal(read("many.npy", channels=6).images, many)
    np.testing.assert_array_equal(read("last.npy", channels=4).images[..., 3], 255)
    grey = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in COLOUR])
    assert abs(read("last.npy", channels=1).images[..., 0].astype(int) - grey).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected", "told"),
    [
        (np.array([0, 128, 255], np.uint8), [0, 128, 255], ""),
        (np.array([0, 257, 65535], np.uint16), [0, 1, 255], "divided by 257"),
        (np.array([0, 257, 65535], ">u2"), [0, 1, 255], "divided by 257"),
        (np.array([False, True, False]), [0, 255, 0], "True white"),
        (np.array([0, 0.5, 1], np.float32), [0, 127.5, 255], "taken for [0, 1]"),
        (np.array([-1e-7, 0.5, 1], np.float64), [0, 127.5, 255], "taken for [0, 1]"),
        (np.array([-1, 0, 1], np.float16), [0, 127.5, 255], "taken for [-1, 1]"),
    ],
)
def test_values_are_taken_by_their_dtype_and_range(values, expected, told):
    read = array_pixels.values_of(values.dtype, lambda: array_pixels.extremes([("", values[None])]))
    np.testing.assert_allclose(read.convert(values), expected, atol=1e-4)
    assert told in read.told


def with_nan(index):
    values = COLOUR / np.float32(255)
    values[index, 3, 3, 0] = np.nan
    return values


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (COLOUR * np.float32(1), r"floats from 0 to 255, expected 0 to 1, or -1 to 1; save images / 255"),
        (COLOUR * np.float32(9) - 400, r"expected 0 to 1, or -1 to 1; save \(images - low\)"),
        (with_nan(7), "has nan or infinity, first in image 7"),
        (np.full((2, 8, 8), np.inf), "has nan or infinity, first in image 0"),
        (COLOUR.astype(np.int64), r"holds int64, expected uint8.*astype\('uint8'\)"),
        (COLOUR.astype(np.complex64), "holds complex64, expected uint8"),
        (np.zeros(100, np.uint8), r"\(100,\), expected images"),
        (np.zeros((10, 64), np.uint8), r"reshape\(-1, H, W\)"),
        (COLOUR[0], r"one image, expected images .* images?\[None\]"),
        (COLOUR[:0], "at least one"),
        (RNG.integers(0, 9, (4, 5, 8, 8), np.uint8), r"5 channels as \[N, C, H, W\].*--config.channels=5"),
    ],
)
def test_what_is_no_images_is_told_in_a_line(tmp_path, read, values, told):
    save(tmp_path, {"a": values})
    with pytest.raises(UserError, match=told) as raised:
        read("a.npy")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "prepared").exists()


def test_python_objects_and_damaged_files_are_not_opened(tmp_path, read):
    np.save(tmp_path / "objects.npy", np.array([COLOUR, None], object))
    save(tmp_path, {"cut": COLOUR})
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-1])
    (tmp_path / "page.npz").write_text("<html>")
    told = {
        "objects.npy": "Python objects",
        "cut.npy": "cut short",
        "page.npz": "web page",
        "none.npz": "does not exist",
    }
    for name, expected in told.items():
        with pytest.raises(UserError, match=expected):
            read(name)


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        ("train_images train_labels val_images test_images", "train", "train_images"),
        ("train_images train_labels val_images test_images", "test", "test_images"),
        ("x_train y_train x_test y_test", "train", "x_train"),
        ("Xtrain Xtest", "test", "Xtest"),
        ("images masks", "train", "images"),
        ("galaxies", "train", "galaxies"),
        ("latest", "train", "latest"),
        ("a b", "train", None),
        ("x data", "train", None),
    ],
)
def test_the_images_of_a_split_are_found_by_name(names, split, expected):
    headers = {
        name: array_files.Header((9,) if name[0] == "y" else (9, 8, 8), np.dtype("u1")) for name in names.split()
    }
    if expected:
        assert array_names.images(headers, split) == expected
        return
    with pytest.raises(ValueError, match=r"several arrays .*\(9, 8, 8\).*--config.data.name=NAME"):
        array_names.images(headers, split)
    assert array_names.images(headers, split, names.split()[1]) == names.split()[1]


def test_medmnists_files_have_labels_and_held_out_images(tmp_path, read):
    np.savez(
        tmp_path / "pathmnist.npz",
        train_images=COLOUR, train_labels=CLASSES[:, None], val_images=COLOUR[:2], val_labels=CLASSES[:2, None],
        test_images=COLOUR[:6], test_labels=CLASSES[:6, None],
    )  # fmt: skip
    images, labels, card, _ = read("pathmnist.npz", num_classes=3)
    np.testing.assert_array_equal(images, COLOUR)
    np.testing.assert_array_equal(labels, CLASSES)
    assert card["classes"] == ["0", "1", "2"]
    test = read("pathmnist.npz", held_out=True)
    np.testing.assert_array_equal(test.images, COLOUR[:6])
    np.testing.assert_array_equal(test.labels, CLASSES[:6])
    assert len(read("pathmnist.npz", key="val_images").images) == 2


def test_labels_lie_beside_an_npy(tmp_path, read, caplog):
    names = np.array(["dog", "cat"])[CLASSES % 2]
    save(tmp_path, {"x_train": COLOUR, "y_train": CLASSES + 5, "x_test": COLOUR[:6], "y_test": CLASSES[:6] + 5})
    save(tmp_path, {"cells": COLOUR, "cells_labels": names, "other": COLOUR[:4], "labels": np.arange(9)})
    numbered = read("x_train.npy", num_classes=3)
    assert (numbered.labels.tolist(), numbered.card["classes"]) == (CLASSES.tolist(), ["5", "6", "7"])
    assert read("x_train.npy", held_out=True).labels.tolist() == CLASSES[:6].tolist()
    named = read("cells.npy", num_classes=2)
    assert [named.card["classes"][label] for label in named.labels] == names.tolist()
    with pytest.raises(UserError, match=r"4 images, but 9 labels in labels.npy; expected one each"):
        read("other.npy")
    for labels, told in ((RNG.random(4), "not whole"), (np.eye(4), "array of (4, 4)")):
        save(tmp_path, {"labels": labels})
        assert read("other.npy").labels is None
        assert told in caplog.text
    save(tmp_path, {"labels": np.arange(4)})  # a new set is made when labels change
    assert read("other.npy", num_classes=4).labels.tolist() == [0, 1, 2, 3]


def test_a_folder_holds_one_image_in_each_file_or_several(tmp_path, read):
    save(tmp_path / "single", {f"{name}/{i}": COLOUR[i, : 6 + i] for i, name in enumerate("aabbc")})
    single = read("single", num_classes=3)
    assert (single.images.shape, single.labels.tolist()) == ((5, 8, 8, 3), [0, 0, 1, 1, 2])
    save(tmp_path / "stacks", {f"p{i}": COLOUR[i : i + 1] for i in range(12)} | {"labels": CLASSES})
    stacks = read("stacks", num_classes=3)
    np.testing.assert_array_equal(stacks.images, COLOUR)
    np.testing.assert_array_equal(stacks.labels, CLASSES)
    save(tmp_path / "named", {"x_train": COLOUR, "y_train": CLASSES, "x_test": COLOUR[:3]})
    np.testing.assert_array_equal(read("named", num_classes=3).images, COLOUR)
    np.testing.assert_array_equal(read("named", held_out=True).images, COLOUR[:3])
    save(tmp_path / "single", {"more": COLOUR})
    with pytest.raises(UserError, match="expected one image in each file, or several in each"):
        read("single")
    (tmp_path / "stacks" / "p1.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds 'p1.npy', which is empty; mend"):
        read("stacks")


def test_an_npy_is_mapped_and_its_pages_are_given_back(tmp_path):
    save(tmp_path, {"a": COLOUR})
    mapped = array_files.open_array(tmp_path / "a.npy")
    assert isinstance(mapped.base.base, mmap.mmap)
    assert not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, COLOUR)
    array_files.release(mapped)
    np.testing.assert_array_equal(mapped, COLOUR)


def test_headers_are_read_without_the_arrays(tmp_path):
    file = np.lib.format.open_memmap(tmp_path / "huge.npy", "w+", np.uint8, (2**20, 2**14))  # 16 GiB of nothing
    del file
    assert array_files.read_headers(tmp_path / "huge.npy") == {"": ((2**20, 2**14), np.uint8)}
    os.unlink(tmp_path / "huge.npy")
    np.savez_compressed(tmp_path / "a.npz", x=COLOUR, y=CLASSES)
    assert {name: header.shape for name, header in array_files.read_headers(tmp_path / "a.npz").items()} == {
        "x": (12, 8, 8, 3),
        "y": (12,),
    }


def test_arrays_are_resized_as_pictures_are(tmp_path, read):
    images = RNG.integers(0, 256, (3, 20, 30, 3), np.uint8)
    save(tmp_path, {"a": images, "six": np.concatenate([images, images[..., ::-1]], -1)})
    for i, image in enumerate(images):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i}.png")
    pictures = read("pictures", source="folder").images
    np.testing.assert_array_equal(read("a.npy").images, pictures)
    np.testing.assert_array_equal(
        read("six.npy", channels=6).images, np.concatenate([pictures, pictures[..., ::-1]], -1)
    )
    # Deeper values are rounded after they are resized: before, half of these would be 0 and the others 1.
    deep = np.where(np.indices((16, 16)).sum(0) % 2, 120, 210).astype(np.float32)[..., None] / 257
    assert (resize(deep, (2, 2), (0, 0, 16, 16)) == 1).all()


def test_transparent_pixels_lend_edges_no_colour(tmp_path, read):
    sprite = np.zeros((24, 24, 4), np.uint8)
    sprite[...] = (255, 0, 255, 0)  # magenta that nobody sees
    sprite[6:18, 6:18] = (0, 200, 0, 255)
    (tmp_path / "sprites").mkdir()
    Image.fromarray(sprite).save(tmp_path / "sprites" / "a.png")
    Image.new("L", (24, 24), 90).save(tmp_path / "sprites" / "b.png")
    save(tmp_path, {"sprites": sprite[None]})
    pictures = read("sprites", channels=4, source="folder").images
    small = pictures[0]
    np.testing.assert_array_equal(read("sprites.npy", channels=4).images[0], small)
    assert small[4, 4].tolist() == [0, 200, 0, 255]
    assert small[0, 0].tolist() == [0, 0, 0, 0]
    seen = small[..., 3] > 0
    assert 16 < seen.sum() < 64
    assert abs(small[seen][:, :3].astype(int) - (0, 200, 0)).max() <= 2, "no magenta, no black"
    assert (pictures[1] == (90, 90, 90, 255)).all(), "without transparency it is opaque"
    # At its own size, an array stays as it is, while of a picture what is not seen becomes 0.
    np.testing.assert_array_equal(read("sprites.npy", channels=4, size=(24, 24)).images[0], sprite)
    whole = read("sprites", channels=4, size=(24, 24), source="folder").images[0]
    np.testing.assert_array_equal(whole, sprite * (sprite[..., 3:] > 0))


def test_what_is_shown_of_any_channels():
    images = RNG.integers(0, 256, (2, 8, 8, 6), np.uint8)
    np.testing.assert_array_equal(visible(images), images[..., :3])
    np.testing.assert_array_equal(visible(images[..., :2]), images[..., :1])
    assert visible(images[..., :1]).shape == (2, 8, 8, 1)
    images[..., 3] = 255
    np.testing.assert_array_equal(visible(images[..., :4]), images[..., :3])
    images[..., 3] = 0
    board = visible(images[..., :4])
    np.testing.assert_array_equal(board[0], board[1])
    assert set(np.unique(board)) == {153, 204}


def test_pictures_have_no_other_channels_and_arrays_are_another_source(tmp_path, read):
    save(tmp_path, {"a": COLOUR})
    with pytest.raises(UserError, match=r"config.channels: found 6 for pictures .* 4 \(with transparency\)"):
        read("", source="digits", channels=6)
    np.savez(tmp_path / "a.npz", x=COLOUR)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(UserError, match=r"holds arrays.*pass --config.data.source=array"):
            read(name, source="folder")
    (tmp_path / "a.npz").unlink()
    with pytest.raises(UserError, match=r"1 \.npy \(arrays, which config.data.source=array takes\)"):
        read("", source="folder")


def test_inception_is_for_grey_and_colour():
    for channels in (1, 3):
        extractors.check_channels("inception", channels)
    for channels in (2, 4, 6):
        extractors.check_channels("own_features:blocks", channels)
        with pytest.raises(UserError, match=f"'inception' for images of {channels} channels.*MODULE:FUNCTION"):
            extractors.check_channels("inception", channels)


def test_a_network_of_six_channels_and_what_is_written_of_it(tiny, tmp_path, monkeypatch):
    gan = inference.untrained(tiny(image_size=(8, 8), channels=6, width=2), 0)
    images = gan.sample(3)
    assert images.shape == gan.generate(gan.latents(np.arange(3))).shape == (3, 8, 8, 6)
    assert (gan.discriminate(images).shape, len(gan.features(images))) == ((3,), 3)
    monkeypatch.setattr(inference, "load", lambda *_: gan)
    refused = call("sample", "--workdir=six", "--format=png", f"--out={tmp_path}/png")
    assert refused.returncode == 2
    assert "--format: found 'png', expected 'npz' for images of 6 channels" in refused.stderr
    for kind, read in (("npz", lambda file: np.load(file)["images"]), ("grid", Image.open)):
        done = call("sample", "--workdir=six", "--num=3", f"--format={kind}", f"--out={tmp_path}/{kind}")
        assert done.returncode == 0, done.stderr
        shown = np.asarray(read(tmp_path / kind))
        np.testing.assert_array_equal(shown, images if kind == "npz" else np.asarray(grid(images[..., :3])))
