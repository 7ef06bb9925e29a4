"""The authors' weights, compared with an independent evaluation of their layout in float64.

It follows the layout's description literally: true convolutions, units in the order (channel, row, column), batch
statistics. Small random networks are always tested, the released one if its file is there.
"""

import functools
import itertools

import jax
import numpy as np
import pytest
from conftest import call

from dcgan_jax import inference, latent
from dcgan_jax.interop import theano_networks
from dcgan_jax.run import checkpoint
from dcgan_jax.runtime.errors import UserError


def normalised(x, gain, bias):
    """Batch norm over all axes but the second, the channels."""
    axes = (0, *range(2, x.ndim))
    gain, bias = (value.reshape(1, -1, *(1,) * (x.ndim - 2)) for value in (gain, bias))
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-8) * gain + bias


def enlarged(x, kernel, stride):
    """The adjoint of the strided true convolution: each value of [B, in, h, w] adds a rotated [in, out, k, k]."""
    batch, _, height, width = x.shape
    k = kernel.shape[-1]
    pad = (k - stride + 1) // 2
    whole = np.zeros((batch, kernel.shape[1], (height - 1) * stride + k + stride, (width - 1) * stride + k + stride))
    rotated = kernel[:, :, ::-1, ::-1]
    for row in range(height):
        for column in range(width):
            top, left = row * stride, column * stride
            whole[:, :, top : top + k, left : left + k] += np.tensordot(x[:, :, row, column], rotated, 1)
    return whole[:, :, pad : pad + height * stride, pad : pad + width * stride]


def reduced(x, kernel, stride):
    """The strided true convolution of [B, in, h, w] by [out, in, k, k]."""
    pad = (kernel.shape[-1] - stride + 1) // 2
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    k = kernel.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(2, 3))
    whole = np.einsum("bihwyx,oiyx->bohw", windows, kernel[:, :, ::-1, ::-1], optimize=True)
    return whole[:, :, : x.shape[2] : stride, : x.shape[3] : stride]


def generated(arrays, z, strides):
    g = [arrays[f"g{i}"].astype(np.float64) for i in range(3 * len(strides) + 1)]
    x = np.maximum(normalised(z @ g[0], g[1], g[2]), 0)
    side = int((g[0].shape[1] / g[3].shape[0]) ** 0.5)
    x = x.reshape(len(z), -1, side, side)
    for i, stride in enumerate(strides[::-1][:-1]):
        kernel, gain, bias = g[3 * i + 3 : 3 * i + 6]
        x = np.maximum(normalised(enlarged(x, kernel, stride), gain, bias), 0)
    return np.tanh(enlarged(x, g[-1], strides[0])).transpose(0, 2, 3, 1)


def judged(arrays, images, strides):
    d = [arrays[f"d{i}"].astype(np.float64) for i in range(3 * len(strides) - 1)]

    def leaky(x):
        return np.where(x > 0, x, 0.2 * x)

    x = leaky(reduced(images.transpose(0, 3, 1, 2), d[0], strides[0]))
    for i, stride in enumerate(strides[1:]):
        kernel, gain, bias = d[3 * i + 1 : 3 * i + 4]
        x = leaky(normalised(reduced(x, kernel, stride), gain, bias))
    return (x.reshape(len(x), -1) @ d[-1])[:, 0]


def network(seed=0, kernel=5, widths=(2, 3, 4), channels=3, side=4, latent_dim=5):
    """Random weights in this layout. widths: from the image inwards."""
    rng = np.random.default_rng(seed)
    units = widths[-1] * side**2
    g = [(latent_dim, units), (units,), (units,)]
    for inner, outer in zip(widths[:0:-1], widths[-2::-1], strict=True):
        g += [(inner, outer, kernel, kernel), (outer,), (outer,)]
    g.append((widths[0], channels, kernel, kernel))
    d = [(widths[0], channels, kernel, kernel)]
    for outer, inner in itertools.pairwise(widths):
        d += [(inner, outer, kernel, kernel), (inner,), (inner,)]
    d.append((units, 1))
    return {
        f"{letter}{i}": (rng.normal(size=shape) / 4 + (len(shape) == 1)).astype(np.float32)
        for letter, shapes in (("g", g), ("d", d))
        for i, shape in enumerate(shapes)
    }


def with_batch_statistics(network, variables, x):
    """A network's outputs in training mode."""
    return jax.jit(functools.partial(network.apply, train=True, mutable=["batch_stats"]))(variables, x)[0]


def check(tmp_path, arrays, strides, count, *arguments):
    """Compares the imported networks, with batch statistics, with the evaluation above."""
    np.savez(tmp_path / "weights.npz", **arrays)
    done = call(
        "import_weights",
        *("--format=theano", f"--file={tmp_path / 'weights.npz'}", f"--out={tmp_path / 'run'}", *arguments),
    )
    assert done.returncode == 0, done.stderr
    gan, (tree, _) = inference.load(tmp_path / "run"), checkpoint.read(tmp_path / "run")
    z = np.random.default_rng(1).normal(size=(count, gan.latent_dim))
    variables = {
        name: {key: tree[name][key] for key in ("params", "batch_stats")} for name in ("generator", "discriminator")
    }
    images = with_batch_statistics(gan.generator, variables["generator"], z.astype(np.float32))
    expected = generated(arrays, z, strides)
    np.testing.assert_allclose(images, expected, atol=1e-4)
    logits = with_batch_statistics(gan.discriminator, variables["discriminator"], images)
    np.testing.assert_allclose(logits, judged(arrays, expected, strides), atol=1e-4, rtol=1e-4)
    return gan, expected


def test_strided_layers(tmp_path):
    gan, _ = check(tmp_path, network(), (2, 2, 2), 6)
    assert gan.config.image_size == (32, 32)
    assert (gan.config.norm_epsilon, gan.config.norm_per_unit, gan.config.prior) == (1e-8, True, "normal")
    # Its running statistics come from many z, so images are similar with running and with batch statistics.
    z = np.asarray(latent.draw(latent.key(3, latent.SAMPLE), np.arange(256), 5, "normal"))
    by_batch = with_batch_statistics(gan.generator, gan.generator_variables, z)
    assert np.abs(gan.generate(z) - by_batch).mean() < 0.1 * np.std(by_batch)


def test_layers_of_stride_one(tmp_path):
    arrays = network(1, kernel=3, widths=(2, 2, 3, 3), channels=4)
    gan, _ = check(tmp_path, arrays, (1, 2, 1, 2), 4, "--strides=1,2,1,2", "--prior=uniform", "--step=7")
    assert (gan.step, gan.config.prior, gan.config.image_size) == (7, "uniform", (16, 16))


def test_the_discriminators_statistics_are_those_of_the_images_given(tmp_path):
    arrays = network()
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    gan, _ = check(tmp_path, arrays, (2, 2, 2), 3, f"--images={tmp_path / 'images.npy'}")
    expected = judged(arrays, images / 127.5 - 1, (2, 2, 2))
    np.testing.assert_allclose(gan.discriminate(np.float32(images / 127.5 - 1)), expected, atol=1e-3)


def test_the_authors_generator(tmp_path, data_dir, monkeypatch):
    # Only batch statistics are compared; the running ones need not be good.
    monkeypatch.setattr(inference, "RECALIBRATION_BATCHES", 1)
    with np.load(data_dir / "svhn_dcgan_authors.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    check(tmp_path, arrays, (2, 2, 2), 4)


def wrong(arrays):
    yield {**arrays, "h0": arrays["d0"]}, "the names do not fit"
    yield {**arrays, "g0": np.full_like(arrays["g0"], 1e60, float)}, "values that are not finite in 'g0'"
    yield {**arrays, "g0": arrays["g0"] + 0j}, "values of complex"
    yield {**arrays, "g0": arrays["g0"].astype("U9")}, "values of <U9"
    yield {name: array for name, array in arrays.items() if name != "d3"}, "do not fit"
    yield {**arrays, "g0": arrays["g0"][:, :-1]}, "no square map"
    yield {**arrays, "g4": arrays["g4"][:-1]}, "g4 should be 3"
    yield {**arrays, "d4": arrays["d4"][:, :, 1:]}, "d4 should be 4x3x5x5"
    yield {**arrays, "g3": arrays["g3"][0]}, "number of axes"
    yield {}, "found nothing"


def test_other_weights_are_refused():
    for arrays, expected in wrong(network()):
        with pytest.raises(UserError, match=expected) as error:
            theano_networks.convert(arrays, "FILE")
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="3 convolutions and 2 strides"):
        theano_networks.convert(network(), "FILE", (2, 2))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "--format: missing"),
        (("--format=theano", "--file=nowhere.npz", "--out=x"), "does not exist"),
        (("--format=theano", "--file=README.md", "--out=x"), "cannot be read"),
        (("--format=torch", "--file=README.md", "--out=x"), "cannot be read"),
        (("--format=theano", "--file=a", "--file=b", "--out=x"), "at most 1"),
    ],
)
def test_mistakes_are_one_line(arguments, expected):
    done = call("import_weights", *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
