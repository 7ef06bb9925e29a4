"""Images of every kind, sources, and the order of batches."""

import gzip
import logging
import os

import numpy as np
import pytest
from PIL import Image

from dcgan_jax import config as configuration
from dcgan_jax import data
from dcgan_jax.data import folder
from dcgan_jax.data.images import grid, prepare
from dcgan_jax.errors import UserError

RED = (255, 0, 0)


def solid(mode, colour, size=(40, 30)):
    return Image.new(mode, size, colour)


def test_every_mode_gives_the_same_red():
    palette = solid("RGB", RED).convert("P")
    for image in (solid("RGB", RED), solid("RGBA", (*RED, 255)), palette, solid("CMYK", (0, 255, 255, 0))):
        pixels = prepare(image, (8, 8), 3)
        assert pixels.dtype == np.uint8
        assert (pixels == RED).all(), image.mode


def test_transparency_becomes_white():
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([0, 0, 0])
    palette.info["transparency"] = 0
    for image in (solid("RGBA", (*RED, 0)), solid("LA", (0, 0)), palette):
        assert (prepare(image, (8, 8), 3) == 255).all(), image.mode
    half = prepare(solid("RGBA", (0, 0, 0, 128)), (8, 8), 1)
    assert abs(half.astype(int) - 127).max() <= 1


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((20, 20), 0x8080, np.uint16)).save(path)
    with Image.open(path) as image:
        assert (prepare(image, (8, 8), 1) == 0x80).all()
        assert prepare(image, (8, 8), 3).shape == (8, 8, 3)


def test_floats_are_refused_because_their_range_is_unknown():
    with pytest.raises(ValueError, match="32-bit float"):
        prepare(Image.new("F", (8, 8)), (8, 8), 1)


def test_exif_orientation_is_followed(tmp_path):
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    with Image.open(path) as image:
        upright = prepare(image, (8, 8), 1)
    assert upright[:3].max() < 50 < 200 < upright[-3:].min()


@pytest.mark.parametrize(("size", "image_size"), [((90, 30), (8, 8)), ((30, 90), (8, 8)), ((60, 60), (8, 16))])
def test_the_crop_is_the_middle_and_keeps_proportions(size, image_size):
    # A centred disc stays a disc: as many bright pixels in its row as in its column.
    width, height = size
    y, x = np.mgrid[:height, :width]
    disc = (np.hypot(x - (width - 1) / 2, y - (height - 1) / 2) < 10) * np.uint8(255)
    pixels = prepare(Image.fromarray(disc), tuple(8 * side for side in image_size), 1)[..., 0] > 127
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    assert abs(len(rows) - len(columns)) <= 1
    assert abs(rows.mean() - (pixels.shape[0] - 1) / 2) <= 1
    assert abs(columns.mean() - (pixels.shape[1] - 1) / 2) <= 1


def test_the_resize_is_antialiased():
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 255
    pixels = prepare(Image.fromarray(stripes), (16, 16), 1).astype(int)
    assert abs(pixels - 127).max() < 10


def test_grid_is_a_square_of_all_images():
    images = np.full((5, 4, 6, 3), 255, np.uint8)
    picture = np.asarray(grid(images))
    assert picture.shape == (2 * 4 + 2, 3 * 6 + 4, 3)
    assert (picture == 255).all(-1).sum() == 5 * 4 * 6
    assert np.asarray(grid(images[:1, ..., :1])).shape == (4, 6)


@pytest.fixture
def pictures(tmp_path):
    """A folder of 200 images in nested folders of two classes, and files that are none."""
    for i in range(200):
        where = tmp_path / ("cats" if i % 2 else "dogs") / f"part {i // 100}"
        where.mkdir(parents=True, exist_ok=True)
        solid("RGB", (i, 0, 0)).save(where / f"{i:03d}.PNG")
    (tmp_path / "readme.txt").write_text("not an image")
    (tmp_path / ".thumbnails").mkdir()
    solid("RGB", RED).save(tmp_path / ".thumbnails" / "hidden.png")
    return tmp_path


def test_folder_reads_everything_in_the_order_of_names(pictures):
    images, labels = folder.read(str(pictures), (8, 8), 3, num_classes=2)
    assert images.shape == (200, 8, 8, 3)
    assert images[:, 0, 0, 0].tolist() == [*range(1, 200, 2), *range(0, 200, 2)]
    assert labels.tolist() == [0] * 100 + [1] * 100
    assert folder.read(str(pictures), (8, 8), 3)[1] is None


def test_an_unreadable_image_is_named_and_left_out(pictures, caplog):
    (pictures / "cats" / "broken.png").write_bytes(b"")
    (pictures / "dogs" / "text.jpg").write_text("hello")
    with caplog.at_level(logging.WARNING):
        images, labels = folder.read(str(pictures), (8, 8), 3, num_classes=2)
    assert len(images) == len(labels) == 200
    assert images[:, 0, 0, 0].tolist() == [*range(1, 200, 2), *range(0, 200, 2)]
    assert "broken.png" in caplog.text
    assert "text.jpg" in caplog.text
    assert "2 of the 202 images" in caplog.text


def test_more_than_one_in_a_hundred_unreadable_stops(pictures):
    for i in range(3):
        (pictures / f"broken{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    with pytest.raises(UserError, match=r"3 of the first 3 images .* of all 203"):
        folder.read(str(pictures), (8, 8), 3)


def test_links_are_followed_once_and_pipes_are_not_waited_for(pictures, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    solid("RGB", (222, 0, 0)).save(elsewhere / "linked.png")
    (pictures / "linked").symlink_to(elsewhere)
    (pictures / "circle").symlink_to(pictures)
    os.mkfifo(pictures / "pipe.png")
    images, _ = folder.read(str(pictures), (8, 8), 3)
    assert len(images) == 201
    assert (images[:, 0, 0, 0] == 222).sum() == 1


def test_a_truncated_jpeg_is_unreadable_and_not_half_grey(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    noise.save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="1 of the first 1 images"):
        folder.read(str(tmp_path), (8, 8), 3)


@pytest.mark.parametrize(("path", "told"), [("", "missing"), ("nowhere", "does not exist"), ("file", "is not")])
def test_a_wrong_folder_is_told(tmp_path, monkeypatch, path, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=told):
        folder.read(path, (8, 8), 3)


def test_a_folder_without_images_is_told(tmp_path):
    with pytest.raises(UserError, match="holds no image"):
        folder.read(str(tmp_path), (8, 8), 3)


def config_for(source, **fields):
    config = configuration.default_config()
    config.update(dict(image_size=(32, 32), channels=1) | fields)
    config.data.source = source
    return config


def test_digits_are_all_there():
    image_set = data.load(config_for("digits", num_classes=10))
    assert image_set.images.shape == (1797, 32, 32, 1)
    assert np.bincount(image_set.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (image_set.images.min(), image_set.images.max()) == (0, 255)
    assert data.load(config_for("digits")).labels is None


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


def idx_config(path, **fields):
    config = config_for("idx", **dict(image_size=(28, 28)) | fields)
    config.data.path = str(path)
    return config


def test_idx_files_and_their_folder_read_alike(idx_folder):
    by_file = data.load(idx_config(idx_folder / "train-images-idx3-ubyte.gz", num_classes=10))
    by_folder = data.load(idx_config(idx_folder, num_classes=10))
    np.testing.assert_array_equal(by_file.images, by_folder.images)
    assert by_file.labels.tolist() == [*range(10)] * 3
    assert data.load(idx_config(idx_folder, image_size=(32, 32), channels=3)).images.shape == (30, 32, 32, 3)


@pytest.mark.parametrize("damage", ["cut", "magic", "short", "absent", "labels", "count", "overflow", "nothing"])
def test_damaged_idx_files_are_told(idx_folder, damage):
    path = idx_folder / "train-images-idx3-ubyte.gz"
    config = idx_config(idx_folder, num_classes=10)
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
        data.load(config)
    assert "\n" not in str(error.value)


def test_classes_without_labels_are_told(idx_folder):
    (idx_folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="have no labels"):
        data.load(idx_config(idx_folder, num_classes=10))


def test_a_class_that_no_image_has_is_told(idx_folder):
    with pytest.raises(UserError, match=r"10 labels from 0 to 9, expected all from 0 to 11; pass .*num_classes=10"):
        data.load(idx_config(idx_folder, num_classes=12))
    write_idx(idx_folder / "train-labels-idx1-ubyte.gz", np.where(np.arange(30) % 10 == 5, 6, np.arange(30) % 10))
    with pytest.raises(UserError, match="without a gap"):
        data.load(idx_config(idx_folder, num_classes=10))


def test_mnist_itself(data_dir):
    image_set = data.load(idx_config(data_dir / "mnist", num_classes=10))
    assert image_set.images.shape == (60_000, 28, 28, 1)
    assert np.bincount(image_set.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def numbered(count):
    return data.ImageSet(np.arange(count, dtype=np.int64).reshape(count, 1, 1, 1), None, {})


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (8, 4), (3, 8)])
def test_every_image_once_an_epoch_in_a_fresh_order(count, batch_size):
    batches = data.Batches(numbered(count), batch_size, seed=1)
    stream = np.concatenate([batches.indices(step) for step in range(20)])
    epochs = stream[: len(stream) // count * count].reshape(-1, count)
    assert (np.sort(epochs, axis=1) == np.arange(count)).all()
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_batch_is_a_function_of_seed_and_step():
    one, other = (data.Batches(numbered(50), 8, seed=1) for _ in range(2))
    for step in (7, 0, 30, 7):
        np.testing.assert_array_equal(one(step)["images"], other(step)["images"])
    assert one.indices(7).tolist() != data.Batches(numbered(50), 8, seed=2).indices(7).tolist()


@pytest.mark.parametrize("hosts", [2, 4, 8])
def test_hosts_share_the_same_global_batches(hosts):
    whole = data.Batches(numbered(21), 16, seed=3)
    parts = [data.Batches(numbered(21), 16, seed=3, process_index=h, process_count=hosts) for h in range(hosts)]
    for step in range(5):
        together = np.concatenate([part.indices(step) for part in parts])
        np.testing.assert_array_equal(together, whole.indices(step))
