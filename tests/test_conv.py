"""The convolutions against their definition as sums, in float64: values, gradients, second derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax.ops import conv as convolutions
from dcgan_jax.ops.formulations import FORMULATIONS

SHAPES = [(5, 2), (4, 2), (3, 1), (3, 2), (5, 1), (6, 3)]  # (kernel, stride)
FEW, ENOUGH = (3, 4), (16, 17)  # channels: a CPU uses Winograd's form where there are enough and the stride is 2
CASES = [(*shape, FEW) for shape in SHAPES] + [(size, 2, ENOUGH) for size in (3, 4, 5, 6)]
SLOW = [(size, 2, ENOUGH) for size in (4, 5)]
parametrize = pytest.mark.parametrize(("kernel_size", "stride", "channels"), CASES)
parametrize_slow = pytest.mark.parametrize(("kernel_size", "stride", "channels"), SLOW)
parametrize_fewer = pytest.mark.parametrize(
    ("kernel_size", "stride", "channels"),
    # Of the sizes that Winograd's form has, the largest and the least take all of its ways; tracing each takes seconds.
    [case if case not in SLOW else pytest.param(*case, marks=pytest.mark.nightly) for case in CASES],
)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


# Run at once, each of their dozens of operations would be compiled for itself.
conv = jax.jit(convolutions.conv, static_argnums=2)
conv_transpose = jax.jit(convolutions.conv_transpose, static_argnums=2)


@functools.partial(jax.jit, static_argnums=2)
def plain(images, kernel, stride):
    """Definition of the strided convolution: a matrix product for each position of the kernel."""
    kernel_size, pad = kernel.shape[0], -(-(kernel.shape[0] - stride) // 2)
    height, width = images.shape[1] // stride, images.shape[2] // stride
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    total = 0.0
    for i in range(kernel_size):
        for j in range(kernel_size):
            window = padded[:, i : i + height * stride : stride, j : j + width * stride : stride][:, :height, :width]
            total = total + window @ kernel[i, j]
    return total


@functools.partial(jax.jit, static_argnums=2)
def plain_transpose(maps, kernel, stride):
    """Definition of the fractionally-strided convolution: every map entry spreads the kernel over the images."""
    kernel_size, pad = kernel.shape[0], -(-(kernel.shape[0] - stride) // 2)
    batch, height, width, _ = maps.shape
    extent = (height * stride + kernel_size, width * stride + kernel_size)
    canvas = jnp.zeros((batch, *extent, kernel.shape[2]), maps.dtype)
    for i in range(kernel_size):
        for j in range(kernel_size):
            rows, columns = i + stride * np.arange(height), j + stride * np.arange(width)
            canvas = canvas.at[:, rows[:, None], columns].add(maps @ kernel[i, j].T)
    return canvas[:, pad : pad + height * stride, pad : pad + width * stride]


def arrays(kernel_size, stride, channels, side=(4, 3), dtype=None):
    keys = jax.random.split(jax.random.key(0), 3)
    images = jax.random.normal(keys[0], (2, side[0] * stride, side[1] * stride, channels[0]), dtype)
    kernel = jax.random.normal(keys[1], (kernel_size, kernel_size, *channels), dtype)
    maps = jax.random.normal(keys[2], (2, *side, channels[1]), dtype)
    return images, kernel, maps


@parametrize
def test_values_equal_the_definition(kernel_size, stride, channels):
    images, kernel, maps = arrays(kernel_size, stride, channels)
    np.testing.assert_allclose(conv(images, kernel, stride), plain(images, kernel, stride), atol=1e-12)
    np.testing.assert_allclose(conv_transpose(maps, kernel, stride), plain_transpose(maps, kernel, stride), atol=1e-12)


@parametrize
def test_conv_transpose_is_the_adjoint(kernel_size, stride, channels):
    images, kernel, maps = arrays(kernel_size, stride, channels)
    forwards = np.vdot(conv(images, kernel, stride), maps)
    backwards = np.vdot(images, conv_transpose(maps, kernel, stride))
    np.testing.assert_allclose(forwards, backwards, rtol=1e-12)


def derivatives(transpose, case, order):
    """Pairs, ours and the definition's: gradients by the input and the kernel; of order 2, those of a penalty too."""
    images, kernel, maps = arrays(*case)
    ours, definition = (convolutions.conv_transpose, plain_transpose) if transpose else (convolutions.conv, plain)
    arguments = (maps if transpose else images, kernel)

    def of(function):
        gradients = jax.grad(lambda x, kernel: jnp.sum(jnp.sin(function(x, kernel, case[1]))), (0, 1))

        def squared_norm(x, kernel):
            slopes = gradients(x, kernel)
            return sum(jnp.sum(jnp.square(slope)) for slope in slopes), slopes

        both = jax.grad(squared_norm, (0, 1), has_aux=True)
        if order == 1:
            return jax.jit(gradients)(*arguments)
        second, first = jax.jit(both)(*arguments)
        return *first, *second

    return list(zip(of(ours), of(definition), strict=True))


@parametrize_fewer
@pytest.mark.parametrize("transpose", [False, True])
def test_first_and_second_derivatives_equal_those_of_the_definition(kernel_size, stride, channels, transpose):
    *first, of_input, of_kernel = derivatives(transpose, (kernel_size, stride, channels), order=2)
    assert len(first) == 2
    for ours, theirs in first:
        np.testing.assert_allclose(ours, theirs, atol=1e-11, rtol=1e-11)
    for ours, theirs in (of_input, of_kernel):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@parametrize_slow
@pytest.mark.parametrize("transpose", [False, True])
def test_gradients_equal_those_of_the_definition(kernel_size, stride, channels, transpose):
    for ours, theirs in derivatives(transpose, (kernel_size, stride, channels), order=1):
        np.testing.assert_allclose(ours, theirs, atol=1e-11, rtol=1e-11)


def test_padding_is_that_of_the_papers_code():
    # 5x5 with stride 2 pads 2 on each side; XLA's 'SAME' pads 1 before and 2 behind.
    assert [convolutions.padding(*shape) for shape in [(5, 2), (4, 2), (3, 1), (3, 2)]] == [2, 1, 1, 1]


PLAIN = FORMULATIONS["plain"]
COMPARED = {
    "conv": (PLAIN.conv, convolutions.conv),
    "conv_transpose": (PLAIN.conv_transpose, convolutions.conv_transpose),
    "kernel_gradient": (PLAIN.kernel_gradient, convolutions._kernel_gradient),
}


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("channels", [(3, 64), (64, 96)], ids=str)
@pytest.mark.parametrize("kernel_size", [3, 4, 5, 6])
def test_float32_is_as_exact_as_xlas_own(kernel_size, channels, name):
    images, kernel, maps = arrays(kernel_size, 2, channels, side=(8, 10), dtype=jnp.float32)
    plain, ours = (jax.jit(f, static_argnums=(2, 3)[: 1 + (name == "kernel_gradient")]) for f in COMPARED[name])
    arguments = {"conv": (images, kernel, 2), "conv_transpose": (maps, kernel, 2)}
    arguments = arguments.get(name, (images, maps, 2, kernel_size))
    expected = plain(*arguments)
    assert np.abs(ours(*arguments) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_winograd_is_what_a_cpu_runs():
    # Two products on each axis less than XLA's four taps twice: 9 matrix products and no convolution.
    images, kernel, _ = arrays(4, 2, (16, 17))
    program = jax.jit(lambda x, k: convolutions.conv(x, k, 2)).lower(images, kernel).as_text()
    assert "convolution" not in program
    assert program.count("dot_general") == 9


def test_half_precision_is_summed_in_single():
    images, kernel, maps = arrays(5, 2, (16, 17), side=(4, 4), dtype=jnp.bfloat16)
    for found, exact in (
        (conv(images, kernel, 2), plain(*(x.astype(float) for x in (images, kernel)), 2)),
        (conv_transpose(maps, kernel, 2), plain_transpose(*(x.astype(float) for x in (maps, kernel)), 2)),
    ):
        assert found.dtype == jnp.bfloat16
        # Each value is the exact one, rounded once: to 8 bits, half of the last.
        np.testing.assert_allclose(found.astype(float), exact, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
@pytest.mark.parametrize(("kernel_size", "stride"), SHAPES)
def test_constant_features_are_those_of_constant_maps(name, kernel_size, stride):
    convolve = getattr(convolutions, name)
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 7))
    kernel = rng.standard_normal((kernel_size, kernel_size, *((4, 7) if name == "conv_transpose" else (7, 4))))

    cotangent = rng.standard_normal(
        (3, *((6 * stride, 12 * stride) if name == "conv_transpose" else (6 // stride, 12 // stride)), 4)
    )

    def of_maps(values, kernel):
        return convolve(jnp.broadcast_to(values[:, None, None], (3, 6, 12, 7)), kernel, stride)

    def of_values(values, kernel):
        return convolutions.conv_of_constant_maps(convolve, values, kernel, stride, size=(6, 12))

    def value_and_gradients(function):
        value, pull_back = jax.vjp(function, values, kernel)
        return value, *pull_back(cotangent)

    both = jax.jit(lambda: (value_and_gradients(of_values), value_and_gradients(of_maps)))
    for ours, theirs in zip(*both(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@parametrize_fewer
def test_several_networks_at_once_are_what_each_is_alone(kernel_size, stride, channels, monkeypatch):
    # As on accelerators.
    def choose(function, layer, *arrays):
        forms = (convolutions._form(name, function, layer) for name in ("plain", "patches"))
        return convolutions._or_by_patches(*forms)(*arrays)

    monkeypatch.setattr(convolutions, "_choose", choose)
    images, kernel, maps = (jnp.stack([x, 2 * x[::-1]]) for x in arrays(kernel_size, stride, channels))

    def there_and_back(images, kernel, maps):
        there = convolutions.conv(images, kernel, stride)
        return jnp.sum((convolutions.conv_transpose(there * maps, kernel, stride) + images) ** 2)

    gradients = jax.jit(jax.grad(there_and_back, argnums=(0, 1, 2)))
    together = jax.jit(jax.vmap(gradients))(images, kernel, maps)
    assert "feature_group_count=2" not in str(jax.make_jaxpr(jax.vmap(gradients))(images, kernel, maps))
    alone = [gradients(*network) for network in zip(images, kernel, maps, strict=True)]
    for found, *expected in zip(together, *alone, strict=True):
        np.testing.assert_allclose(found, jnp.stack(expected), rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize(("kernel_size", "stride", "channels"), [(5, 2, FEW), (4, 2, ENOUGH), (3, 1, FEW)])
def test_shapes_alone_are_those_of_the_results_and_nothing_of_them_stays(kernel_size, stride, channels):
    images, maps = jnp.ones((2, 8, 12, channels[0])), jnp.ones((2, 8 // stride, 12 // stride, channels[1]))
    kernel = jnp.ones((kernel_size, kernel_size, *channels))

    def all_three(images, kernel, maps):
        made = convolutions.conv(images, kernel, stride), convolutions.conv_transpose(maps, kernel, stride)
        return *made, jax.grad(lambda kernel: convolutions.conv(images, kernel, stride).sum())(kernel)

    expected = jax.jit(all_three)(images, kernel, maps)
    with convolutions.shapes_alone():
        for found, real in zip(all_three(images, kernel, maps), expected, strict=True):
            assert (found.shape, found.dtype) == (real.shape, real.dtype)
            assert not found.any()
    for found, real in zip(jax.jit(lambda *xs: all_three(*xs))(images, kernel, maps), expected, strict=True):
        np.testing.assert_array_equal(found, real)
        assert real.all()
