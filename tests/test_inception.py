"""The Inception network against torch-fidelity's: its stored results (golden/inception.npz), and side by side.

python tests/test_inception.py      writes golden/inception.npz; it needs torch-fidelity
"""

import importlib.util
import json
from unittest import mock

import jax
import numpy as np
import pytest
from conftest import ROOT

from dcgan_jax.evaluation import cache, inception, inception_weights
from dcgan_jax.runtime.errors import UserError

GOLDEN = ROOT / "tests" / "golden" / "inception.npz"
TAPS = ("64", "192", "768", "2048", "logits_unbiased", "logits")
SIZES = ((32, 32, 3), (64, 64, 3), (28, 28, 1), (299, 299, 3), (350, 178, 3))
SIZES_TESTED = [*(pytest.param(size, marks=pytest.mark.nightly) for size in SIZES[:2]), *SIZES[2:]]
STRIDE = 8  # the golden file holds every eighth value


def random_weights(shapes):
    """A state dictionary whose activations have the range of the real one's."""
    rng = np.random.default_rng(0)
    drawn = {}
    for name, shape in sorted(shapes.items()):
        if name.endswith("running_var") or name.endswith("bn.weight"):
            array = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            array = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        else:
            array = rng.normal(0, 0.1, shape)
        drawn[name] = array.astype(np.float32)
    return drawn


def image(shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, (1, *shape), np.uint8)


def reference(drawn):
    """torch-fidelity's network with these weights, as a function of images."""
    import torch

    # The module imports torchvision, for other networks.
    names = ("torchvision", *(f"torchvision.{name}" for name in ("datasets", "models", "transforms")))
    fakes = {name: mock.MagicMock(__spec__=None) for name in (*names, "torchvision.transforms.functional")}
    with mock.patch.dict("sys.modules", fakes):
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        tensors = {name: torch.from_numpy(array) for name, array in drawn.items()}
        with mock.patch("torch.load", return_value=tensors):
            network = FeatureExtractorInceptionV3("reference", list(TAPS), feature_extractor_weights_path="none")

    def features(images):
        colour = np.repeat(images, 3, -1) if images.shape[-1] == 1 else images
        with torch.no_grad():
            outputs = network(torch.from_numpy(colour.transpose(0, 3, 1, 2).copy()))
        return {tap: array.numpy() for tap, array in zip(TAPS, outputs, strict=True)}

    return features


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def drawn(golden):
    return random_weights({name: tuple(shape) for name, shape in json.loads(str(golden["shapes"])).items()})


@pytest.fixture(scope="module")
def ours(drawn):
    """Our network, compiled for two shapes only, which takes long: resizing an image of 299x299 changes nothing."""
    params = inception_weights.convert(drawn)
    compiled = jax.jit(lambda images: inception.Inception().apply({"params": params}, images))

    def features(images):
        if images.shape[-1] == 1:  # resized in the network
            return compiled(images)
        return compiled(inception.resize(images.astype(np.float32)))

    return features


@pytest.mark.parametrize("shape", SIZES_TESTED, ids=str)
def test_features_are_those_of_the_reference(golden, ours, shape):
    features = ours(image(shape))
    for tap in TAPS:
        expected = golden[f"{shape}/{tap}"]
        np.testing.assert_allclose(features[tap][0, ::STRIDE], expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.skipif(not importlib.util.find_spec("torch_fidelity"), reason="torch-fidelity is not installed")
def test_features_are_those_of_the_reference_side_by_side(drawn, ours):
    theirs = reference(drawn)
    for shape in SIZES[:3]:
        features, expected = ours(image(shape)), theirs(image(shape))
        for tap in TAPS:
            np.testing.assert_allclose(features[tap], expected[tap], rtol=0, atol=1e-4 * np.abs(expected[tap]).max())


def test_resizing_an_image_of_the_networks_size_changes_nothing():
    images = image((299, 299, 3)).astype(np.float32)
    np.testing.assert_array_equal(inception.resize(images), images)


def test_resizing_by_hand():
    # Two pixels to 299: pixel i is read at i * 2 / 299, at most at the last pixel.
    images = np.array([0.0, 100.0], np.float32).reshape(1, 2, 1, 1)
    column = np.asarray(inception.resize(images))[0, :, 0, 0]
    expected = [min(i * 2 / 299, 1) * 100 for i in range(299)]
    np.testing.assert_allclose(column, expected, atol=1e-4)


def test_weights_with_another_shape_are_named(drawn):
    damaged = drawn | {"Mixed_5b.branch1x1.conv.weight": np.zeros((64, 191, 1, 1), np.float32)}
    with pytest.raises(
        UserError, match=r"Mixed_5b\.branch1x1\.conv\.weight: found \(1, 1, 191, 64\), expected \(1, 1, 192"
    ):
        inception_weights.convert(damaged)
    del damaged["Mixed_5b.branch1x1.conv.weight"]
    with pytest.raises(UserError, match="found nothing"):
        inception_weights.convert(damaged)


def test_a_file_with_another_hash_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "weights.pth").write_bytes(b"something else")
    with pytest.raises(UserError, match="SHA-256"):
        inception_weights.load(tmp_path / "weights.pth")
    (tmp_path / "page.pth").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(UserError, match=r"config.inception_weights: .*page.pth' is a web page \(HTML\)"):
        inception_weights.find(tmp_path / "page.pth")
    with pytest.raises(UserError, match="cannot be read"):
        inception_weights.load(tmp_path / "absent.pth")


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(inception_weights, "TORCH_FOLDERS", ())
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setattr(inception_weights, "URL", "http://127.0.0.1:9/none.pth")
    with pytest.raises(UserError, match="put that file into"):
        inception_weights.load()
    assert not list(tmp_path.rglob("*.partial"))


def test_weights_are_converted_once(tmp_path, monkeypatch, drawn):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    params = inception_weights.convert(drawn)
    cache.save("inception", inception_weights.SHA256, params, {})
    monkeypatch.setattr(inception_weights, "_find", lambda: pytest.fail("looked for the file again"))
    jax.tree.map(np.testing.assert_array_equal, inception_weights.load(), params)


def main():
    shapes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(inception.shapes()):
        *modules, name = [key.key for key in path]
        shape = leaf.shape
        shape = (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape[::-1]
        names = {"kernel": "conv.weight", "scale": "bn.weight", "bias": "bn.bias", "mean": "bn.running_mean"}
        names |= {"var": "bn.running_var"}
        names = names if modules else {"kernel": "fc.weight", "bias": "fc.bias"}
        shapes[".".join([*modules, names[name]])] = shape
    features = reference(random_weights(shapes) | {})
    kept = {"shapes": np.array(json.dumps(shapes))}
    for shape in SIZES:
        kept |= {f"{shape}/{tap}": array[0, ::STRIDE] for tap, array in features(image(shape)).items()}
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, **kept)


if __name__ == "__main__":
    main()
