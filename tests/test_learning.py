"""That training learns: a short run on the real digits makes digits of all kinds."""

import numpy as np
from conftest import launch
from sklearn.neighbors import KNeighborsClassifier

from dcgan_jax import data
from dcgan_jax.inference import load


def test_samples_are_digits_of_all_kinds(tmp_path):
    fields = dict(image_size=16, width=16, num_steps=300, log_every=100, quality=False)
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    # The steps take longer than compiling them: so they are optimised, and on one device.
    done = launch("train", "--config=configs/digits.py", *flags, f"--workdir={tmp_path}/run", optimize=True)
    assert done.returncode == 0, done.stderr
    gan = load(tmp_path / "run")
    config = gan.config.copy_and_resolve_references()
    config.num_classes = 10
    real = data.load(config)
    pixels = real.images.reshape(len(real.images), -1).astype(float)
    nearest = KNeighborsClassifier(1).fit(pixels[::2], real.labels[::2])
    samples = gan.sample(500).reshape(500, -1).astype(float)

    shares = np.bincount(nearest.predict(samples), minlength=10) / len(samples)
    assert shares.min() > 0.02, shares
    assert shares.max() < 0.3, shares

    # In units of how far a real digit is from another: noise is at 3.8, this run at 1.6.
    distance = nearest.kneighbors(samples)[0].mean()
    between_real = nearest.kneighbors(pixels[1::2])[0].mean()
    assert distance < 1.8 * between_real, distance / between_real
    assert samples.std(0).mean() > 0.6 * pixels.std(0).mean(), "samples vary less than real digits"
