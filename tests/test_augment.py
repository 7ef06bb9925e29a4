"""Augmentation: of each example by its own key, in the published ranges, with gradients; and where it is applied."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_steps import batch_of

from dcgan_jax import augment, latent, state, steps
from dcgan_jax.augment import POLICIES, chain, diff_augment, flip, flip_and_shift, instance_noise

STEP = jnp.int32(0)


def keys(count, seed=1, first=0):
    return latent.example_keys(jax.random.key(seed), jnp.arange(first, first + count))


def images(*shape, seed=0):
    return jax.random.uniform(jax.random.key(seed), shape, minval=-1)


def consistent(images, keys, step):
    return flip_and_shift(images, keys)


EVERY = {
    **{name: diff_augment(name) for name in POLICIES},
    "flip": flip,
    "flip_and_shift": consistent,
    "instance_noise": instance_noise(optax.constant_schedule(0.1)),
    "chain": chain(diff_augment("translation,color,cutout"), flip, instance_noise(optax.constant_schedule(0.1))),
}


@pytest.mark.parametrize("name", EVERY)
def test_an_image_changes_by_its_key_and_not_by_its_batch(name):
    batch = np.asarray(images(20, 16, 12, 3))
    apply = jax.jit(lambda batch, keys: EVERY[name](batch, keys, STEP))
    out = np.asarray(apply(batch, keys(20)))
    assert (out.shape, out.dtype) == (batch.shape, batch.dtype)
    assert not np.allclose(out, batch, atol=0.05)
    np.testing.assert_array_equal(out[::-1], apply(batch[::-1], keys(20)[::-1]))
    assert not np.allclose(out, apply(batch, keys(20, seed=2)), atol=0.05)
    # Equal images with keys of their own become different.
    out = np.asarray(apply(np.broadcast_to(batch[:1], batch.shape), keys(20)))
    assert len(np.unique(out.reshape(20, -1), axis=0)) > 1


def test_gradients_pass_through_all():
    batch = images(40, 8, 6, 3)
    gradient = jax.jit(
        jax.grad(lambda batch: jnp.sum(consistent(EVERY["chain"](batch, keys(40), STEP), keys(40), STEP) ** 2))
    )(batch)
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).max((1, 2, 3)) > 0).all()


def test_small_grey_images_are_augmented_too():
    out = jax.jit(EVERY["chain"])(images(2, 1, 3, 1), keys(2), STEP)
    assert out.shape == (2, 1, 3, 1)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("channels", [4, 3, 1])
def test_colour_changes_brightness_saturation_and_contrast(channels):
    before = np.asarray(images(400, 6, 4, channels), np.float64)
    after = np.asarray(diff_augment("color")(images(400, 6, 4, channels), keys(400), STEP), np.float64)
    np.testing.assert_array_equal(after[..., 3:], before[..., 3:], "the opacity stays")
    before, after = before[..., :3], after[..., :3]

    def parts(batch):
        """The mean of each image, its grey image less that, and its colours less the grey image."""
        mean, grey = batch.mean((1, 2, 3), keepdims=True), batch.mean(3, keepdims=True)
        return mean, grey - mean, batch - grey

    (mean, grey, colour), (mean_after, grey_after, colour_after) = parts(before), parts(after)
    brightness = (mean_after - mean).ravel()
    contrast = grey_after.std((1, 2, 3)) / grey.std((1, 2, 3))
    found, expected = [brightness, contrast], [(-0.5, 0.5), (0.5, 1.5)]
    saturation = np.ones(400)
    if channels >= 3:
        saturation = colour_after.std((1, 2, 3)) / colour.std((1, 2, 3)) / contrast
        found, expected = [*found, saturation], [*expected, (0, 2)]
    for values, (low, high) in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.quantile(values, [0, 0.5, 1]), [low, (low + high) / 2, high], atol=0.1)
        assert low - 1e-5 <= values.min() < values.max() <= high + 1e-5
    assert max(abs(np.corrcoef(found)[np.triu_indices(len(found), 1)])) < 0.15, "drawn one by one"
    # These numbers are all that an image changes by.
    brightness, contrast, saturation = (x[:, None, None, None] for x in (brightness, contrast, saturation))
    np.testing.assert_allclose(after, mean + brightness + contrast * (grey + saturation * colour), atol=1e-5)


def shifted(image, y, x):
    """An image [H, W, C] moved down and to the right; what comes in is 0."""
    padded = np.pad(image, ((9, 9), (9, 9), (0, 0)))
    return padded[9 - y : 9 - y + image.shape[0], 9 - x : 9 - x + image.shape[1]]


def seen(outputs, candidates):
    """How often each candidate is among the outputs, which are all candidates."""
    matches = np.array([[np.allclose(out, candidate, atol=1e-6) for candidate in candidates] for out in outputs])
    assert (matches.sum(1) == 1).all()
    return matches.sum(0)


def test_translation_moves_by_up_to_an_eighth_of_each_side():
    image = np.asarray(images(16, 9, 2))
    out = diff_augment("translation")(jnp.broadcast_to(image, (300, *image.shape)), keys(300), STEP)
    counts = seen(out, [shifted(image, y, x) for y in range(-2, 3) for x in range(-1, 2)])
    assert counts.min() >= 8, counts  # 20 in the mean


def test_cutout_blanks_half_of_each_side_anywhere():
    batch = images(2000, 16, 6, 2)
    out = np.asarray(diff_augment("cutout")(batch, keys(2000), STEP))
    gone = (out == 0).all(3)
    np.testing.assert_array_equal(out, np.where(gone[..., None], 0, batch))
    rows, columns = gone.any(2), gone.any(1)
    np.testing.assert_array_equal(gone, rows[:, :, None] & columns[:, None])  # a rectangle
    for lines, side in ((rows, 16), (columns, 6)):
        edges = np.diff(np.pad(lines, ((0, 0), (1, 1))).astype(int))
        assert (np.abs(edges).sum(1) == 2).all(), "of one piece"
        lengths = lines.sum(1)
        assert (lengths.max(), lengths.min()) == (side // 2, (side // 2 + 1) // 2), "its middle is in the image"
        # A pixel is blank as often as another that is as far from the middle, and less often near the edge.
        blank = lines.mean(0)
        np.testing.assert_allclose(blank, blank[::-1], atol=0.05)
        assert 0.25 < blank[0] < 0.4 < blank[side // 2] < 0.6


@pytest.mark.parametrize(("size", "margins"), [((7, 6), (4, 4)), ((2, 5), (1, 4))])
def test_consistency_flips_and_shifts_as_in_a_mirror(size, margins):
    image = np.asarray(images(*size, 1))
    candidates = []
    for way in (image, image[:, ::-1]):
        padded = np.pad(way, [(margin, margin) for margin in margins] + [(0, 0)], mode="reflect")
        starts = [(y, x) for y in range(2 * margins[0] + 1) for x in range(2 * margins[1] + 1)]
        candidates += [padded[y : y + size[0], x : x + size[1]] for y, x in starts]
    count = 8 * len(candidates)
    out = np.asarray(flip_and_shift(jnp.broadcast_to(image, (count, *image.shape)), keys(count)))
    # Images of a few pixels, mirrored, may be equal.
    places = {candidate.tobytes(): i for i, candidate in enumerate(candidates)}
    counts = np.bincount([places[one.tobytes()] for one in out], minlength=len(candidates))
    assert np.mean(counts[sorted(set(places.values()))] > 0) > 0.97
    half = len(candidates) // 2
    if len(places) == len(candidates):
        assert counts[:half].sum() == pytest.approx(count / 2, rel=0.15)


def test_instance_noise_has_the_deviation_of_its_schedule():
    add, batch = instance_noise(optax.linear_schedule(0.4, 0.0, 10)), images(50, 16, 16, 1)
    for step, deviation in ((0, 0.4), (5, 0.2), (10, 0), (20, 0)):
        noise = np.asarray(add(batch, keys(50), jnp.int32(step)) - batch)
        assert noise.std() == pytest.approx(deviation, rel=0.03)
        assert abs(noise.mean()) < 0.01
    noise = np.asarray(add(batch, keys(50), STEP) - batch).reshape(50, -1)
    assert np.abs(np.corrcoef(noise) - np.eye(50)).max() < 0.3, "of each image its own"


def test_parts_of_a_chain_have_keys_of_their_own_and_an_order():
    batch = images(50, 16, 16, 1)
    noise = instance_noise(optax.constant_schedule(0.1))
    twice = np.asarray(chain(noise, noise)(batch, keys(50), STEP) - batch)
    assert twice.std() == pytest.approx(0.1 * np.sqrt(2), rel=0.03)
    assert chain() is augment.none
    assert augment.none(batch, keys(50), STEP) is batch
    # What comes in by a translation is grey unless colours change after it.
    grey = [diff_augment(names)(batch, keys(50), STEP) == 0 for names in ("color,translation", "translation,color")]
    assert grey[0].any()
    assert not grey[1].any()


def test_all_updates_see_augmented_images(tiny):
    dense = dict(image_size=(2, 2), convolutional=False, dense=(4,), discriminator_norm="none")
    config, seen = tiny(r1=1.0, penalty_every=2, consistency_real=1.0, **dense), []
    method = steps.from_config(config)
    assert method.lazy_penalties

    def blank(images, keys, step):
        seen.append(images.shape)
        return jnp.zeros_like(images)

    method = dataclasses.replace(method, augment=blank)
    step = jax.jit(functools.partial(steps.train_step, method))
    _, metrics = step(state.create(config), batch_of(config))
    assert seen == [(8, 2, 2, 1)] * 5, (
        "real and generated ones in the update by the loss and by penalties, and generated ones in the generator's"
    )
    assert metrics["g_grad_norm"] == 0
    assert metrics["d_real"] == metrics["d_fake"] == 0.5
    assert metrics["d_penalty"] == 0


def test_a_configuration_says_what_is_applied_to_all_images(tiny):
    assert steps.from_config(tiny()).augment is augment.none
    fields = dict(augment="color,cutout", instance_noise=0.3, burn_in_steps=10, batch_size=50)
    config, batch = tiny(**fields), images(50, 16, 16, 1)
    apply = steps.from_config(config).augment
    expected = chain(diff_augment("color,cutout"), instance_noise(lambda step: jnp.float32(0.3)))
    np.testing.assert_array_equal(apply(batch, keys(50), STEP), expected(batch, keys(50), STEP))
    expected = chain(diff_augment("color,cutout"), augment.none)
    np.testing.assert_array_equal(apply(batch, keys(50), jnp.int32(10)), expected(batch, keys(50), STEP))
    assert steps.from_config(config).flip is augment.none
