"""Figures show what the network computes; every mistake is one line."""

import errno
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import call
from PIL import Image

from dcgan_jax import latent
from dcgan_jax.inference import load, untrained
from dcgan_jax.interpret import excitation, forget, guided, neighbours, pictures, receptive
from dcgan_jax.interpret.samples import Samples
from dcgan_jax.ops.conv import conv_transpose
from dcgan_jax.ops.pixels import to_uint8, to_unit_range
from dcgan_jax.runtime.errors import UserError


@pytest.fixture(scope="module")
def gan(straight_run):
    return load(straight_run)


def noise(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


@pytest.mark.parametrize("between", [latent.linear, latent.spherical])
def test_a_walk_passes_through_its_points_and_closes(between):
    points = jax.random.normal(jax.random.key(0), (4, 7))
    walk = latent.walk(points, 5, between)
    np.testing.assert_allclose(walk[:, 0], points, atol=1e-6)
    steps = np.linalg.norm(np.diff(np.asarray(walk).reshape(-1, 7), axis=0), axis=1)
    assert steps.max() < 2 * np.linalg.norm(points, axis=1).max() / 5 * np.pi / 2
    np.testing.assert_allclose(between(points[3], points[0], jnp.ones(1))[0], points[0], atol=1e-5)


def test_an_arc_keeps_its_distance_from_the_origin():
    points = jax.random.normal(jax.random.key(1), (3, 50))
    lengths = np.linalg.norm(points, axis=1)
    arc = latent.walk(points, 9, latent.spherical)
    assert np.linalg.norm(arc, axis=-1).min() >= 0.999 * lengths.min()
    assert np.linalg.norm(latent.walk(points, 9), axis=-1).min() < 0.9 * lengths.min()
    # Points in one direction, or in opposite ones, have no arc of their own.
    along = jnp.stack([points[0], 2 * points[0], -points[0]])
    np.testing.assert_allclose(latent.walk(along, 4, latent.spherical), latent.walk(along, 4), atol=1e-5)


def test_latents_are_those_of_samples(gan):
    numbers = np.array([3, 0, 70])
    np.testing.assert_array_equal(to_uint8(gan.generate(gan.latents(numbers, 5))), gan.sample_at(numbers, 5))


@pytest.mark.parametrize(
    ("kernel", "strides"),
    [(5, (2, 2)), *(pytest.param(*case, marks=pytest.mark.nightly) for case in ((4, (2, 2)), (3, (1, 2, 1, 2))))],
)
def test_a_place_sees_its_field_and_no_more(tiny, kernel, strides):
    config = tiny(kernel_size=kernel, strides=strides, features=(4,) * len(strides))
    network = untrained(config, 0)
    image = jax.random.normal(jax.random.key(0), (1, 16, 16, 1))
    for layer in range(len(strides)):
        start, step, size = receptive.field(network.discriminator, layer)
        side = network.maps(image)[layer].shape[1]
        for place in {0, side // 2, side - 1}:

            def value(image, layer=layer, place=place):
                return network.maps(image)[layer][0, place, place].sum()

            seen = np.flatnonzero(np.abs(jax.grad(value)(image)[0, :, :, 0]).max(1))
            first = start + place * step
            assert (seen[0], seen[-1]) == (max(first, 0), min(first + size, 16) - 1)


def test_a_patch_is_what_a_place_sees():
    image = noise(1, (16, 16, 3))[0]
    patch = receptive.patch(image, 1, 2, (-3, 4, 10))
    np.testing.assert_array_equal(patch[:, :], image[1:11, 5:15])
    assert (receptive.patch(image, 0, 0, (-3, 4, 10))[:3] == receptive.GREY).all()


def test_peaks_are_the_highest_activations(gan):
    images = noise(300, (16, 16, 1))
    maps = np.asarray(gan.maps(jnp.asarray(to_unit_range(images)))[1])
    peaks = excitation.peaks(gan, images, 1, 3)
    for feature in range(maps.shape[-1]):
        highest = maps[..., feature].reshape(300, -1).max(1)
        np.testing.assert_allclose(peaks.values[feature], np.sort(highest)[::-1][:3], rtol=1e-4)
        at = peaks.images[feature], peaks.rows[feature], peaks.columns[feature]
        np.testing.assert_allclose(maps[(*at, feature)], peaks.values[feature], rtol=1e-4)
    first = excitation.most_active(peaks, 1)[0]
    assert peaks.values[first].mean() == peaks.values.mean(1).max()


def test_guided_gradients_pass_where_both_are_positive():
    x = jnp.array([-1.0, -1.0, 2.0, 2.0])
    value, pull = jax.vjp(guided.guided_leaky_relu, x)
    np.testing.assert_allclose(value, [-0.2, -0.2, 2, 2])
    np.testing.assert_array_equal(pull(jnp.array([3.0, -3.0, 3.0, -3.0]))[0], [0, 0, 3, 0])


def test_guided_backpropagation_of_the_first_layer_is_its_kernel(gan):
    images = noise(4, (16, 16, 1))
    peaks = excitation.peaks(gan, images, 0, 1)
    kernel, compared = np.asarray(gan.discriminator_variables["params"]["conv_0"]["kernel"]), 0
    for feature in range(kernel.shape[-1]):
        image, row, column = (int(part[feature, 0]) for part in peaks[1:])
        gradient = guided.backpropagate(gan, images[[image]], 0, *(np.array([n]) for n in (feature, row, column)))[0]
        field = receptive.field(gan.discriminator, 0)
        top, left = field[0] + row * field[1], field[0] + column * field[1]
        assert not gradient[: max(top, 0)].any()
        if peaks.values[feature, 0] > 0 and min(top, left) >= 0 and max(top, left) + 4 <= 16:
            np.testing.assert_allclose(gradient[top : top + 4, left : left + 4], kernel[..., feature], atol=1e-6)
            compared += 1
    assert compared
    assert guided.to_picture(np.zeros((2, 2, 3))).tolist() == [[[128] * 3] * 2] * 2


def test_dropped_features_reach_the_image_no_more(gan):
    z = gan.latents(np.arange(3))
    layer, dropped = 1, np.array([True, False, True, False])
    maps = gan.generator_maps(z, layer)
    assert maps.shape == (3, 8, 8, 4)
    changed = forget.without(gan, layer, dropped)
    # The last convolution and tanh, of the remaining maps.
    kernel = gan.generator_variables["params"]["conv_1"]["kernel"]
    expected = np.tanh(conv_transpose(jnp.asarray(maps * ~dropped), kernel, 2))
    np.testing.assert_allclose(changed.generate(z), expected, atol=1e-5)
    assert np.abs(gan.generate(z) - expected).max() > 1e-3, "the GAN itself must not change"


def test_forgetting_drops_what_is_in_the_boxes(gan):
    # A generator whose feature 2 of the last map is active on the right and nowhere else.
    class Painted:
        config, generator_variables = gan.config, gan.generator_variables

        def generator_maps(self, z, layer, labels):
            maps = np.abs(np.random.default_rng(0).normal(size=(len(z), 8, 8, 4))) * 0.1
            maps[:, :, 4:, 2] += 3
            maps[:, :, :4, 1] += 3
            return maps

        def with_generator(self, variables):
            return variables

    boxes = [forget.Box(i, 0, 8, 16, 16) for i in range(5)]
    forgotten = forget.forget(Painted(), np.zeros((6, 3)), boxes, 1)
    assert forgotten.dropped[2]
    assert not forgotten.dropped[1]
    assert forgotten.inside_right == forgotten.outside_right == 1
    with pytest.raises(UserError, match="below 6"):
        forget.forget(Painted(), np.zeros((6, 3)), [forget.Box(6, 0, 0, 4, 4)], 1)
    with pytest.raises(UserError, match="some inside and some outside"):
        forget.forget(Painted(), np.zeros((6, 3)), [forget.Box(0, 0, 0, 16, 16)], 1)


def test_nearest_images_are_found_in_pixels_and_in_features(gan):
    images = noise(700, (16, 16, 1))
    for index in (
        neighbours.in_pixels(images[[5, 650]], images),
        neighbours.in_features(gan, images[[5, 650]], images),
    ):
        assert index.tolist() == [5, 650]


def test_columns_have_the_numbers_of_their_samples(gan):
    samples = Samples(gan)
    shown = neighbours.figure(samples, noise(20, (16, 16, 1)), [3, 17])
    assert shown.rows[0].titles == ("3", "17")
    np.testing.assert_array_equal(shown.rows[0].images, gan.sample_at(np.array([3, 17])))
    forgotten = forget.figure(samples, [forget.Box(i, 0, 8, 16, 16) for i in range(3)], 1, 3)
    assert forgotten.rows[0].titles == ("0", "1", "2")


def test_pictures_hold_their_images(tmp_path):
    images = noise(3, (8, 8, 3))
    file = pictures.draw([pictures.Row("a", images, ("1", "2", "3"))], "text\nmore", tmp_path / "x.png", zoom=2)
    shown = np.asarray(Image.open(file).convert("RGB"))
    enlarged = images[0].repeat(2, 0).repeat(2, 1)
    windows = np.lib.stride_tricks.sliding_window_view(shown, (16, 16, 3))[:, :, 0]
    assert (windows == enlarged).all((2, 3, 4)).any(), "every pixel of an image must be there, unchanged"
    frames = pictures.animate(noise(5, (8, 8, 1)), "text", tmp_path / "x.gif")
    assert Image.open(frames).n_frames == 5


@pytest.fixture(scope="module")
def run(straight_run, tmp_path_factory):
    """A copy of a run, in which this module's launchers make figures."""
    workdir = tmp_path_factory.mktemp("figures") / "run"
    shutil.copytree(straight_run, workdir)
    return workdir


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (("walk",), {"walk_linear.png", "walk_linear.gif", "walk_spherical.png", "walk_spherical.gif"}),
        (("arithmetic",), {"arithmetic_contact_sheet.png"}),
        (("arithmetic", "--exemplars=0,1,2/3,4,5/6,7,8"), {"arithmetic_0-1-2_3-4-5_6-7-8.png"}),
        (("turn", "--exemplars=0,1,2,3/4,5,6,7", "--num=2"), {"turn_0-1-2-3_4-5-6-7_num_2.png"}),
        (("turn", "--exemplars=random", "--num=1"), {"turn_2-4-3-6_5-0-1-7_num_1.png"}),
        (("guided_backprop", "--features=active", "--count=2"), {"guided_backprop_1_features_active_count_2.png"}),
        (("maximal", "--layer=0", "--features=1,3"), {"maximal_0_features_1-3.png"}),
        (("forget", "--boxes=0,0,8,8", "--num=12"), {"forget_boxes_0-0-8-8_num_12.png"}),
        (("neighbours", "--num=3"), {"neighbours_num_3.png"}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_every_figure_is_written(run, tmp_path, arguments, files):
    done = call("figure", *arguments, f"--workdir={run}", f"--out={tmp_path / 'figures'}")
    assert done.returncode == 0, done.stderr
    ending = "_step_00000040_seed_0"
    assert {path.name.replace(ending, "") for path in (tmp_path / "figures").iterdir()} == files
    assert all(ending in line for line in done.stdout.split())
    if arguments[0] == "neighbours":  # the error comes before the images are looked for
        again = call("figure", *arguments, f"--workdir={run}", f"--out={tmp_path / 'figures'}", "--prepared=/nowhere")
        assert (again.returncode, "exists" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "NAME: found none, expected one of walk, arithmetic, turn"),
        (("wlak",), "NAME: found wlak"),
        (("arithmetic", "--exemplars=1,2/3,4,5/6,7,8"), "found groups of 2, 3, 3 numbers"),
        (("turn", "--exemplars=1,2,3,4"), "expected 2 groups of 4"),
        (("turn", "--exemplars=1,2,3,4/5,6,7,99999999999"), "expected numbers from 0 to 2147483647"),
        (("maximal", "--count=0"), "count"),
        (("walk", "--seed=-1"), "seed"),
        (("maximal", "--layer=2"), "--layer: found 2, expected a convolution of the discriminator from 0 to 1"),
        (("guided_backprop", "--features=8"), "numbers below 8"),
        (("forget",), "--boxes: missing"),
        (("forget", "--boxes=0,0,17,8"), "within 16x16 pixels"),
        (("walk", "--num=3"), "--num: found 3, expected none: this walk makes no use of it"),
        (("arithmetic", "--exemplars=random", "--num=3"), "--num: found 3, expected none"),
        (("walk", "--label=3"), "trained without classes"),
        (("arithmetic", "--noise=nan"), "--noise: found nan"),
        (("walk", "--out=README.md"), "--out: 'README.md' is a file"),
        (("walk", "--out=x.jpg"), "--out: found 'x.jpg', expected a folder"),
        (("wl\n\x1b[1mk",), r"NAME: found wl\n\x1b[1mk"),
    ],
)
def test_mistakes_are_one_line(run, arguments, expected):
    done = call("figure", *arguments, f"--workdir={run}")
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (run / "figures").exists()


def test_a_full_disk_is_one_line(run, tmp_path, monkeypatch):
    def save(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    done = call("figure", "walk", f"--workdir={run}", f"--out={tmp_path}")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "No space left" in done.stderr


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", '{"boxes": []}', '{"boxes": [{"sample": 0, "box": [1, 2, 3]}]}', "[" * 100_000),
        *(f'{{"boxes": [{{"sample": 0, "box": [{side}, 2, 3, 4]}}]}}' for side in ("Infinity", "0.5", "true", '"1"')),
    ],
)
def test_a_file_without_boxes_is_refused(tmp_path, content):
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(UserError, match="expected"):
        forget.read_boxes(str(tmp_path / "boxes.json"), (16, 16))
    good = {"boxes": [{"sample": 2, "box": [0, 1, 5, 6]}]}
    (tmp_path / "boxes.json").write_text(json.dumps(good))
    assert forget.read_boxes(str(tmp_path / "boxes.json"), (16, 16)) == [forget.Box(2, 0, 1, 5, 6)]
