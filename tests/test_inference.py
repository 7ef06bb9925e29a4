"""Loading a run: in a notebook, from the command line, with nothing but its checkpoint."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import call
from PIL import Image

import dcgan_jax
from dcgan_jax import inference, state, train
from dcgan_jax.data.images import grid
from dcgan_jax.inference import TrainedGAN
from dcgan_jax.ops.pixels import to_unit_range


@pytest.fixture(scope="module")
def gan(straight_run):
    return dcgan_jax.load(straight_run)


def test_an_image_does_not_depend_on_how_many_are_made(gan):
    np.testing.assert_array_equal(gan.sample(1, seed=3)[0], gan.sample(64, seed=3)[0])
    np.testing.assert_array_equal(gan.sample(70, seed=3)[:5], gan.sample(5, seed=3))
    assert not np.array_equal(gan.sample(1, seed=3), gan.sample(1, seed=4))


def test_shapes_types_and_ranges(gan):
    assert (gan.step, gan.latent_dim, gan.config.width) == (40, 100, 4)
    samples = gan.sample(3)
    assert (samples.shape, samples.dtype) == ((3, 16, 16, 1), np.uint8)
    images = gan.generate(np.zeros((5, 100)))
    assert (images.shape, images.dtype) == ((5, 16, 16, 1), np.float32)
    assert np.abs(images).max() <= 1
    logits = gan.discriminate(images)
    assert (logits.shape, logits.dtype) == ((5,), np.float32)
    # Two layers of 4 and 8 maps, each pooled to 4x4.
    assert gan.features(images).shape == (5, 4 * 4 * (4 + 8))
    assert gan.sample(0).shape == (0, 16, 16, 1)
    assert gan.discriminate(images[:0]).shape == (0,)


def test_images_may_be_bytes(gan):
    images = gan.sample(3)
    np.testing.assert_array_equal(gan.features(images), gan.features(to_unit_range(images)))
    np.testing.assert_array_equal(gan.discriminate(images), gan.discriminate(to_unit_range(images)))


def test_features_are_the_maxima_of_the_maps(gan):
    images = gan.generate(np.random.default_rng(0).normal(size=(2, 100)))
    variables = gan.discriminator_variables
    _, sown = gan.discriminator.apply(variables, images, mutable=["intermediates"])
    first = np.asarray(sown["intermediates"]["map_0"][0])  # [2, 8, 8, 4]
    pooled = first.reshape(2, 4, 2, 4, 2, 4).max((2, 4))
    np.testing.assert_allclose(gan.features(images)[:, : 4 * 4 * 4], pooled.reshape(2, -1), atol=1e-6)


def test_maps_that_do_not_divide_by_four_are_pooled_whole():
    from dcgan_jax.ops.max_pool import max_pool

    maps = np.arange(7 * 6, dtype=np.float32).reshape(1, 7, 6, 1)
    pooled = np.asarray(max_pool(maps))[0, :, :, 0]
    assert pooled.shape == (4, 4)
    assert pooled.max() == 41
    # Rows 0-1, 1-3, 3-5, 5-6 of seven; columns 0-1, 1-2, 3-4, 4-5 of six.
    assert pooled.tolist() == [[6 * row + column for column in (1, 2, 4, 5)] for row in (1, 3, 5, 6)]
    assert np.asarray(max_pool(maps[:, :2, :3])).shape == (1, 2, 3, 1)


def test_samples_are_the_grids_of_training(gan, straight_run):
    with Image.open(straight_run / "samples" / "step_00000040.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(grid(gan.sample(64, gan.config.seed))))


def test_a_notebook_shows_what_was_loaded(gan):
    assert repr(gan) == "<TrainedGAN: step 40, images of (16, 16), 1 channels>"


def test_another_step_and_one_that_does_not_exist(straight_run):
    assert dcgan_jax.load(straight_run, step=20).step == 20
    with pytest.raises(dcgan_jax.UserError, match="no checkpoint of step 30, expected one of 20, 40"):
        dcgan_jax.load(straight_run, step=30)


def test_no_run_is_never_a_fresh_start(tmp_path):
    with pytest.raises(dcgan_jax.UserError, match="holds no checkpoint"):
        dcgan_jax.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(dcgan_jax.UserError, match="has saved no checkpoint yet"):
        dcgan_jax.load(tmp_path)
    with pytest.raises(dcgan_jax.UserError, match="does not exist"):
        dcgan_jax.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda gan: gan.generate(np.zeros((2, 7))), r"expected \(n, 100\)"),
        (lambda gan: gan.discriminate(np.zeros((2, 8, 8, 1))), r"expected \(n, 16, 16, 1\)"),
        (lambda gan: gan.features(np.zeros((2, 16, 16, 1), np.int64)), "expected uint8, or floats"),
        (lambda gan: gan.sample(2, labels=[0, 1]), "without classes"),
        (lambda gan: gan.sample(2, seed=-1), "seed"),
    ],
)
def test_wrong_arguments_are_told(gan, wrong, told):
    with pytest.raises(dcgan_jax.UserError, match=told):
        wrong(gan)


def test_a_conditional_network_takes_labels(tiny, tmp_path):
    config = tiny(num_steps=1, num_classes=10)
    final = train.train(config, tmp_path / "run")
    gan = dcgan_jax.load(tmp_path / "run")
    np.testing.assert_array_equal(gan.sample(12), gan.sample(12, labels=np.arange(12) % 10))
    np.testing.assert_array_equal(gan.sample(3, labels=7), gan.sample(3, labels=[7, 7, 7]))
    assert not np.array_equal(gan.sample(2, labels=[0, 0])[0], gan.sample(2, labels=[5, 5])[0])
    for labels in ([0], [0, 10], [0.5, 1.0], 10, 0.5, True, [None, 1], [[0, 1]], [[0], [0, 1]]):
        with pytest.raises(dcgan_jax.UserError, match=r"labels: found .* whole numbers from 0 to 9"):
            gan.generate(np.zeros((2, 6)), labels)
    with pytest.raises(dcgan_jax.UserError, match=r"labels: missing, expected 2, each "):
        gan.generate(np.zeros((2, 6)))
    from flax import serialization

    direct = TrainedGAN(config, serialization.to_state_dict(final))
    np.testing.assert_array_equal(direct.sample(4), gan.sample(4))
    assert state.abstract(config).step.shape == ()


def test_loading_imports_no_tensorflow_and_the_package_imports_nothing(straight_run):
    script = f"""
import sys, dcgan_jax
assert not {{"jax", "flax", "numpy"}} & sys.modules.keys(), "importing the package must cost nothing"
dcgan_jax.load("digits")
assert "orbax" not in sys.modules, "weights need no checkpoints"
image = dcgan_jax.load({str(straight_run)!r}).sample(1, seed=0)
print(sorted({{"tensorflow", "tensorflow_datasets", "sklearn", "tensorboardX"}} & sys.modules.keys()), image.shape)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[] (1, 16, 16, 1)", done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("form", ["grid", "png", "npz"])
def test_sample_writes_each_format_and_never_over_a_file(gan, straight_run, tmp_path, form):
    out = tmp_path / "out"
    arguments = (f"--workdir={straight_run}", "--num=11", f"--format={form}", f"--out={out}", "--seed=5")
    done = call("sample", *arguments)
    assert done.returncode == 0, done.stderr
    expected = gan.sample(11, seed=5)
    if form == "grid":
        np.testing.assert_array_equal(np.asarray(Image.open(out)), np.asarray(grid(expected)))
    elif form == "npz":
        with np.load(out, allow_pickle=False) as archive:
            np.testing.assert_array_equal(archive["images"], expected)
    else:
        assert sorted(path.name for path in out.iterdir()) == [f"{i:02d}.png" for i in range(11)]
        np.testing.assert_array_equal(np.asarray(Image.open(out / "07.png")), expected[7, ..., 0])
    again = call("sample", *arguments)
    assert again.returncode == 2
    assert "exists" in again.stderr


def test_samples_of_classes_say_which_they_are(tiny, tmp_path, monkeypatch):
    conditional = inference.untrained(tiny(image_size=(8, 8), width=2, num_classes=2), 0)
    conditional.classes = ("cat", "dog")
    monkeypatch.setattr(inference, "load", lambda *_: conditional)
    written = {}
    for name, form, labels in (("a.npz", "npz", "dog"), ("a.jpg", "grid", "dog"), ("b.jpg", "grid", "cat,dog")):
        arguments = (f"--format={form}", f"--labels={labels}", *(("--scale=3",) if form == "grid" else ()))
        done = call("sample", "--workdir=pets", "--num=3", *arguments, f"--out={tmp_path / name}")
        assert done.returncode == 0, done.stderr
        written[name] = tmp_path / name
    with np.load(written["a.npz"], allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["images"], conditional.sample(3, labels=1))
        assert arrays["labels"].tolist() == [1, 1, 1]
    with Image.open(written["a.jpg"]) as picture, Image.open(written["b.jpg"]) as other:
        assert picture.format == "JPEG"
        assert min(picture.size) >= 2 * 3 * 8 + 2, "each image is three times as large"
        assert picture.height > 2 * 3 * 8 + 2, "with a name below"
        assert picture.tobytes() != other.tobytes()


def test_sample_tells_mistakes(straight_run, tmp_path):
    for arguments, told in (
        ((f"--workdir={tmp_path}/nothing",), "does not exist"),
        ((f"--workdir={straight_run}", "--step=7"), "expected one of 20, 40"),
        ((), "--workdir: missing"),
        ((f"--workdir={straight_run}", "--labels=a"), "--labels"),
        ((f"--workdir={straight_run}", "--num=0"), "num"),
        ((f"--workdir={straight_run}", "--format=npz", "--scale=2"), "--scale: found 2, expected none"),
        ((f"--workdir={straight_run}", f"--out={tmp_path}/x.npz"), "or --format=npz"),
    ):
        done = call("sample", *arguments)
        assert done.returncode == 2, done.stderr
        assert told in done.stderr
        assert done.stderr.count("\n") == 1


def test_generated_images_have_a_place_by_default(straight_run, tmp_path):
    done = call("sample", f"--workdir={straight_run}", "--num=2", "--step=20")
    assert done.stdout.strip() == f"{straight_run}/generated/step_00000020_seed_0_num_2.png"


def test_an_image_does_not_depend_on_how_many_are_made_in_chunks_of_an_accelerator(gan, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    other = TrainedGAN(gan.config, {"step": 0, "ema": gan.generator_variables})
    assert other.chunk == 512
    many = other.sample(1100, seed=3)
    np.testing.assert_array_equal(other.sample(1, seed=3)[0], many[0])
    np.testing.assert_array_equal(other.sample_at(np.array([1099, 7]), seed=3), many[[1099, 7]])
