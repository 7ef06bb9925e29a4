"""A data set of tensorflow-datasets, built and read without TensorFlow."""

import subprocess
import sys

import pytest

from dcgan_jax import config as configuration
from dcgan_jax import data
from dcgan_jax.runtime.errors import UserError

# In a process of its own: tfds registers builders for good, and what it imports is the point.
SCRIPT = """
import sys
from pathlib import Path

import tensorflow_datasets as tfds
from PIL import Image

class Stripes(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(sys.argv[1])

    def _info(self):
        features = tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(num_classes=2)}
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(6):
            path = Path(sys.argv[1]) / f"{i}.png"
            Image.new("RGB", (20 + i, 20), (40 * i, 0, 0)).save(path)
            yield i, {"image": path, "label": i % 2}

from dcgan_jax import config as configuration, data

config = configuration.default_config()
config.update(dict(image_size=(8, 8), channels=3, num_classes=2))
config.data.update(source="tfds", name="stripes", path=sys.argv[1], prepared=sys.argv[1] + "/prepared")
image_set = data.load(config)
print(image_set.images.shape, sorted(image_set.images[:, 0, 0, 0].tolist()), sorted(image_set.labels.tolist()))
print({"tensorflow"} & sys.modules.keys())
"""


def test_a_data_set_is_built_and_read_without_tensorflow(tmp_path):
    script, folder = tmp_path / "script.py", tmp_path / "data"
    script.write_text(SCRIPT)
    folder.mkdir()
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    shape, modules = done.stdout.strip().splitlines()[-2:]
    assert shape == "(6, 8, 8, 3) [0, 40, 80, 120, 160, 200] [0, 0, 0, 1, 1, 1]"
    assert modules == "set()"


def test_an_unknown_data_set_is_told(tmp_path):
    config = configuration.default_config()
    config.data.update(source="tfds", name="no_such_set", path=str(tmp_path), prepared=str(tmp_path / "prepared"))
    with pytest.raises(UserError, match="tfds cannot give 'no_such_set'") as error:
        data.load(config)
    assert "\n" not in str(error.value)


def test_a_host_that_is_not_reached_is_named(tmp_path, monkeypatch):
    requests = pytest.importorskip("requests")
    tfds = pytest.importorskip("tensorflow_datasets")

    def builder(*_, **__):
        request = requests.Request("GET", "https://images.invalid/all.tar.gz").prepare()
        raise requests.ConnectionError("HTTPSConnectionPool: Max retries exceeded", request=request)

    monkeypatch.setattr(tfds, "builder", builder)
    config = configuration.default_config()
    config.data.update(dict(source="tfds", name="cifar10", prepared=str(tmp_path)))
    with pytest.raises(UserError, match=r"\(images.invalid cannot be reached\); check the network"):
        data.load(config)
