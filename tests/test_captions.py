"""Text below pictures: nothing of the picture is covered, and all of the text is there."""

import numpy as np
import pytest
from PIL import Image

from dcgan_jax.data.captions import captioned, titled


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_title_leaves_the_image_whole(channels):
    images = np.full((2, 8, 8, channels), 90, np.uint8)
    images[1] = 200
    images[..., 3:] = 255
    shown = titled(images, ["7", "a class with a long name"])
    count, height, width, _ = shown.shape
    assert count == 2
    assert width > 100, "the name fits"
    left = (width - 8) // 2
    for image, value in zip(shown, (90, 200), strict=True):
        assert (image[:8, left : left + 8] == value).all()
        assert image[8:].max() > 200, "letters"
    assert not np.array_equal(shown[0, 8:], shown[1, 8:])
    assert height > 8


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_caption_has_as_many_lines_as_it_needs(mode):
    picture = Image.new(mode, (120, 20), "white")
    short, long = captioned(picture, "text"), captioned(picture, "text and more of it " * 5)
    assert long.height > short.height > 20
    assert short.mode == mode
    assert short.getpixel((60, 19)) in (255, (255, 255, 255))


def test_letters_beyond_ascii_are_drawn():
    shown = titled(np.zeros((3, 8, 8, 1), np.uint8), ["ü", "ж", "\ue000"])  # the last is no letter of any alphabet
    assert not np.array_equal(shown[0], shown[2])
    assert not np.array_equal(shown[1], shown[2])
