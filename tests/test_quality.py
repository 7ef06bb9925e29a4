"""The measure of quality: in the right order, finite for any images, the same on all devices and processes."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dcgan_jax.data import ImageSet
from dcgan_jax.evaluation import cache, quality
from dcgan_jax.evaluation.quality import Quality
from dcgan_jax.runtime.files import digest


def image_set(images):
    return ImageSet(images, None, {"sha256": {"images": digest(images)}})


def reading(images):
    """A reader of these images, over and over."""
    return lambda indices: images[indices % len(images)]


@pytest.fixture(scope="module")
def digits():
    """Two halves, uint8 [898, 8, 8, 1], and the labels of the second."""
    images = (load_digits().images[..., None] * 15.9).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    return images[order[:898]], images[order[898:1796]], load_digits().target[order[898:1796]]


@pytest.fixture
def brief(monkeypatch):
    """Learns and measures little."""
    monkeypatch.setattr(quality, "STEPS", 5)
    monkeypatch.setattr(quality, "BATCH", 8)
    monkeypatch.setattr(quality, "NUM_SAMPLES", 100)


def failures(images, labels):
    """Samples by what is wrong with them; the noise has the brightness of the images."""
    rng = np.random.default_rng(0)
    shape = images.shape
    blurred = np.mean([np.roll(images, shift, axis) for axis in (1, 2) for shift in (-1, 0, 1)], 0).astype(np.uint8)
    return {
        "nothing": images,
        "noisy": np.clip(images + rng.normal(0, 50, shape), 0, 255).astype(np.uint8),
        "half of the classes": images[labels < 5],
        "few different ones": images[:10],
        "blurred": blurred,
        "noise": rng.permuted(images.reshape(len(images), -1), axis=1).reshape(shape),
        "one image": images[:1],
        "grey": np.full_like(images, 128),
    }


def test_failures_are_worse_than_real_images(digits):
    real, other, labels = digits
    measure = Quality(image_set(real))
    values = {name: measure(reading(images)) for name, images in failures(other, labels).items()}
    best = values.pop("nothing")
    assert best < 0.5 * min(values.values()), values
    assert min(values["noise"], values["one image"], values["grey"]) > 2 * values["half of the classes"], values


def test_the_value_is_a_function_of_images_samples_and_seed(digits, brief, monkeypatch):
    real, other, _ = digits
    value = Quality(image_set(real))(reading(other))
    assert Quality(image_set(real))(reading(other)) == value  # from the cache
    assert list(cache.folder().glob("quality-*.npz"))
    monkeypatch.setattr(cache, "load", lambda *_: None)
    assert Quality(image_set(real))(reading(other)) == value  # learned again
    assert Quality(image_set(real), seed=1)(reading(other)) != value


@pytest.mark.parametrize(
    "shape", [(50, 8, 8, 1), (50, 12, 20, 3), (50, 21, 9, 1), (2, 16, 16, 3), (3, 8, 8, 1)], ids=str
)
def test_any_images_have_a_finite_quality(shape, brief):
    real = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    measure = Quality(image_set(real))
    itself, grey = measure(reading(real)), measure(reading(np.full_like(real, 128)))
    assert np.isfinite([itself, grey]).all()
    assert itself < 0.1 * grey


def test_equal_images_have_a_finite_quality(brief):
    real = np.full((5, 8, 8, 1), 77, np.uint8)
    measure = Quality(image_set(real))
    assert measure(reading(real)) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(measure(reading(255 - real)))
