"""One image of any kind to pixels, and grids of them."""

import jax
import numpy as np
import pytest
from PIL import Image

from dcgan_jax.data.images import decode, grid, to_pixels
from dcgan_jax.ops.pixels import to_uint8

RED = (255, 0, 0)


def solid(mode, colour, size=(40, 30)):
    return Image.new(mode, size, colour)


def test_every_mode_gives_the_same_red():
    palette = solid("RGB", RED).convert("P")
    for image in (solid("RGB", RED), solid("RGBA", (*RED, 255)), palette, solid("CMYK", (0, 255, 255, 0))):
        pixels = to_pixels(image, (8, 8), 3)
        assert pixels.dtype == np.uint8
        assert (pixels == RED).all(), image.mode


def test_transparency_becomes_white():
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([0, 0, 0])
    palette.info["transparency"] = 0
    for image in (solid("RGBA", (*RED, 0)), solid("LA", (0, 0)), palette):
        assert (to_pixels(image, (8, 8), 3) == 255).all(), image.mode
    half = to_pixels(solid("RGBA", (0, 0, 0, 128)), (8, 8), 1)
    assert abs(half.astype(int) - 127).max() <= 1


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((20, 20), 0x8080, np.uint16)).save(path)
    with Image.open(path) as image:
        assert (to_pixels(image, (8, 8), 1) == 0x80).all()
        assert to_pixels(image, (8, 8), 3).shape == (8, 8, 3)


def test_floats_are_refused_because_their_range_is_unknown():
    with pytest.raises(ValueError, match="32-bit float"):
        to_pixels(Image.new("F", (8, 8)), (8, 8), 1)


def test_exif_orientation_is_followed(tmp_path):
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20] = 255  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    with Image.open(path) as image:
        upright = to_pixels(image, (8, 8), 1)
    assert upright[:3].max() < 50 < 200 < upright[-3:].min()


@pytest.mark.parametrize(("size", "image_size"), [((90, 30), (8, 8)), ((30, 90), (8, 8)), ((60, 60), (8, 16))])
def test_the_crop_is_the_middle_and_keeps_proportions(size, image_size):
    # A centred disc stays a disc: as many bright pixels in its row as in its column.
    width, height = size
    y, x = np.mgrid[:height, :width]
    disc = (np.hypot(x - (width - 1) / 2, y - (height - 1) / 2) < 10) * np.uint8(255)
    pixels = to_pixels(Image.fromarray(disc), tuple(8 * side for side in image_size), 1)[..., 0] > 127
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    assert abs(len(rows) - len(columns)) <= 1
    assert abs(rows.mean() - (pixels.shape[0] - 1) / 2) <= 1
    assert abs(columns.mean() - (pixels.shape[1] - 1) / 2) <= 1


def test_the_resize_is_antialiased():
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 255
    pixels = to_pixels(Image.fromarray(stripes), (16, 16), 1).astype(int)
    assert abs(pixels - 127).max() < 10


def test_grid_is_a_square_of_all_images():
    images = np.full((5, 4, 6, 3), 255, np.uint8)
    picture = np.asarray(grid(images))
    assert picture.shape == (2 * 4 + 2, 3 * 6 + 4, 3)
    assert (picture == 255).all(-1).sum() == 5 * 4 * 6
    assert np.asarray(grid(images[:1, ..., :1])).shape == (4, 6)


@pytest.mark.parametrize(("crop", "side"), [("celeba108", 108), ("celeba140", 140), ("celeba178", 178)])
@pytest.mark.parametrize("scale", [1, 2])
def test_the_crops_of_celeba_keep_their_middle(crop, side, scale):
    # Ones inside the square to be kept, zeros outside: nothing but ones may be left, and none of them lost.
    pixels = np.zeros((218, 178), np.uint8)
    top, left = (218 - side) // 2, (178 - side) // 2
    pixels[top : top + side, left : left + side] = 255
    face = Image.fromarray(pixels).resize((178 // scale, 218 // scale), Image.Resampling.BOX)
    assert to_pixels(face, (64, 64), 1, crop)[2:-2, 2:-2].min() > 240
    # A square that is smaller by 4 leaves a dark border: no less than that square is kept.
    pixels[: top + 4], pixels[-top - 4 :], pixels[:, : left + 4], pixels[:, -left - 4 :] = 0, 0, 0, 0
    smaller = to_pixels(Image.fromarray(pixels), (64, 64), 1, crop)[..., 0]
    assert max(smaller[0].max(), smaller[-1].max(), smaller[:, 0].max(), smaller[:, -1].max()) < 128


def test_the_crop_none_keeps_all():
    pixels = np.zeros((40, 80), np.uint8)
    pixels[:, :8] = 255
    assert to_pixels(Image.fromarray(pixels), (20, 20), 1, "none")[:, 0].min() > 200
    assert to_pixels(Image.fromarray(pixels), (20, 20), 1, "center")[:, 0].max() == 0


@pytest.mark.parametrize("crop", ["celeba108", "celeba140", "celeba178"])
def test_a_crop_of_celeba_is_refused_for_other_proportions(crop):
    with pytest.raises(ValueError, match="proportions"):
        to_pixels(solid("RGB", RED, (256, 256)), (64, 64), 3, crop)


def test_pictures_without_content_and_bombs_are_refused(tmp_path, monkeypatch):
    solid("L", 0, (1, 1)).save(tmp_path / "pixel.png")
    with pytest.raises(ValueError, match="1x1 pixels, expected at least 4 a side"):
        decode(tmp_path / "pixel.png")
    solid("1", 0, (13_000, 13_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match="13000x13000 pixels, expected at most"), pytest.warns(Warning, match="bomb"):
        decode(tmp_path / "bomb.png")
    solid("1", 0, (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(Image.DecompressionBombError):
        decode(tmp_path / "bomb.png")


def test_a_device_makes_the_bytes_that_numpy_makes():
    near = (np.arange(256) + 0.5).astype(np.float32) / np.float32(127.5) - 1  # half-way between two bytes
    images = np.concatenate([np.nextafter(near, -2), near, np.nextafter(near, 2), [-1.5, 1.5]]).astype(np.float32)
    made = jax.jit(to_uint8)(images)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, to_uint8(images))
