"""That training learns: a short run on the real digits makes digits of all kinds."""

import os

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from dcgan_jax import config as configuration
from dcgan_jax import data, train
from dcgan_jax.inference import load


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    config = configuration.default_config()
    config.update(dict(image_size=(16, 16), channels=1, width=16, num_steps=600, log_every=100))
    config.data.prepared = os.environ["DCGAN_TEST_PREPARED"]
    workdir = tmp_path_factory.mktemp("digits") / "run"
    train.train(config, workdir)
    return load(workdir)


def test_samples_are_digits_of_all_kinds(short_run):
    config = short_run.config.copy_and_resolve_references()
    config.num_classes = 10
    real = data.load(config)
    pixels = real.images.reshape(len(real.images), -1).astype(float)
    nearest = KNeighborsClassifier(1).fit(pixels[::2], real.labels[::2])
    samples = short_run.sample(500).reshape(500, -1).astype(float)

    shares = np.bincount(nearest.predict(samples), minlength=10) / len(samples)
    assert shares.min() > 0.02, shares
    assert shares.max() < 0.3, shares

    # In units of how far a real digit is from another: noise is at 3.8, this run at 1.5.
    distance = nearest.kneighbors(samples)[0].mean()
    between_real = nearest.kneighbors(pixels[1::2])[0].mean()
    assert distance < 1.8 * between_real, distance / between_real
    assert samples.std(0).mean() > 0.6 * pixels.std(0).mean(), "samples are as various as real digits"
