"""Every architecture of the paper's table by its numbers, and what batch norm may and may not do."""

import functools
import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT

from dcgan_jax import config as configuration
from dcgan_jax import latent, models, state
from dcgan_jax.models import Discriminator, Generator
from dcgan_jax.ops import conv
from dcgan_jax.ops.batch_norm import BatchNorm
from dcgan_jax.ops.group_norm import GroupNorm, NoNorm
from dcgan_jax.ops.spectral_norm import SpectralNorm


def from_file(name, recipe, **fields):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(recipe)
    config.update(fields)
    return configuration.validate(config)


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


# Counted by hand from the table: weights of each layer, then gains and biases of batch norm.
LSUN_GENERATOR = (
    100 * 4 * 4 * 1024 + 2 * 4 * 4 * 1024  # z to 4x4x1024, a gain and a bias for each unit
    + 5 * 5 * (1024 * 512 + 512 * 256 + 256 * 128 + 128 * 3)
    + 2 * (512 + 256 + 128)
)  # fmt: skip
LSUN_DISCRIMINATOR = (
    5 * 5 * (3 * 128 + 128 * 256 + 256 * 512 + 512 * 1024) + 2 * (256 + 512 + 1024) + 4 * 4 * 1024 * 1
)  # fmt: skip
IMAGENET_GENERATOR = (
    256 * 4 * 4 * 512 + 2 * 4 * 4 * 512
    + 3 * 3 * (512 * 512 + 512 * 256 + 256 * 256 + 256 * 128 + 128 * 128 + 128 * 3)
    + 2 * (512 + 256 + 256 + 128 + 128)
)  # fmt: skip
IMAGENET_DISCRIMINATOR = (
    3 * 3 * (3 * 128 + 128 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 512 * 512)
    + 2 * (128 + 256 + 256 + 512 + 512)
    + 4 * 4 * 512 * 1
)  # fmt: skip
SVHN_GENERATOR = (
    100 * 4 * 4 * 256 + 2 * 4 * 4 * 256 + 5 * 5 * (256 * 128 + 128 * 64 + 64 * 3) + 2 * (128 + 64)
)  # fmt: skip
SVHN_DISCRIMINATOR = 5 * 5 * (3 * 64 + 64 * 128 + 128 * 256) + 2 * (128 + 256) + 4 * 4 * 256 * 1
# Ten labels joined at every layer; batch norm without gain and bias.
MNIST_GENERATOR = (
    (100 + 10) * 1024 + (1024 + 10) * 7 * 7 * 128 + 5 * 5 * ((128 + 10) * 64 + (64 + 10) * 1)
)  # fmt: skip
MNIST_DISCRIMINATOR = (
    5 * 5 * ((1 + 10) * 64 + (64 + 10) * 128) + (7 * 7 * 128 + 10) * 1024 + (1024 + 10) * 1
)  # fmt: skip
# The port: z to 4x4x512 with one gain a channel.
TORCH_GENERATOR = (
    100 * 4 * 4 * 512 + 2 * 512 + 4 * 4 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 3) + 2 * (256 + 128 + 64)
)  # fmt: skip
TORCH_DISCRIMINATOR = (
    4 * 4 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 2 * (128 + 256 + 512) + 4 * 4 * 512 * 1
)  # fmt: skip

TABLE = [
    ("lsun_bedroom", "paper", (64, 64, 3), 100, LSUN_GENERATOR, LSUN_DISCRIMINATOR),
    ("celeba", "paper", (64, 64, 3), 100, LSUN_GENERATOR, LSUN_DISCRIMINATOR),
    ("celeba", "default", (64, 64, 3), 100, LSUN_GENERATOR, LSUN_DISCRIMINATOR + 128),  # `first_bias`
    ("imagenet32", "paper", (32, 32, 3), 256, IMAGENET_GENERATOR, IMAGENET_DISCRIMINATOR),
    ("cifar10", "paper", (32, 32, 3), 256, IMAGENET_GENERATOR, IMAGENET_DISCRIMINATOR),
    ("svhn", "paper", (32, 32, 3), 100, SVHN_GENERATOR, SVHN_DISCRIMINATOR),
    ("mnist_conditional", "paper", (28, 28, 1), 100, MNIST_GENERATOR, MNIST_DISCRIMINATOR),
    ("celeba", "torch", (64, 64, 3), 100, TORCH_GENERATOR, TORCH_DISCRIMINATOR),
]


@pytest.mark.parametrize(("name", "recipe", "shape", "latent_dim", "generator", "discriminator"), TABLE)
def test_architectures_of_the_table(name, recipe, shape, latent_dim, generator, discriminator):
    config = from_file(name, recipe)
    networks = state.abstract(config)
    assert config.latent_dim == latent_dim
    assert count(networks.generator.params) == generator
    assert count(networks.discriminator.params) == discriminator
    assert outputs(config) == ((5, *shape), (5,))


def outputs(config):
    """Shapes of the images and of the logits for five z."""
    generator, discriminator = models.from_config(config)
    networks = state.abstract(config)
    labels = jax.ShapeDtypeStruct((5,), jnp.int32) if config.num_classes else None

    def run(networks, z, labels):
        images = generator.apply(networks.generator.variables(), z, labels)
        return images, discriminator.apply(networks.discriminator.variables(), images, labels)

    z = jax.ShapeDtypeStruct((5, config.latent_dim), jnp.float32)
    images, logits = jax.eval_shape(run, networks, z, labels)
    return images.shape, logits.shape


@pytest.mark.parametrize(
    ("image_size", "channels", "first_map"),
    [((128, 128), 3, (4, 4)), ((256, 256), 3, (4, 4)), ((96, 64), 2, (6, 4)), ((64, 64), 6, (4, 4)),
     ((28, 28), 1, (7, 7)), ((48, 80), 1, (6, 10)), ((4, 4), 3, (2, 2))],
)  # fmt: skip
def test_sizes_beyond_the_table(image_size, channels, first_map):
    config = configuration.default_config()
    config.update(dict(image_size=image_size, channels=channels, width=8))
    config = configuration.validate(config)
    assert outputs(config)[0] == (5, *image_size, channels)
    features, _ = configuration.layers(config)
    project = state.abstract(config).generator.params["project"]["kernel"]
    assert project.shape == (100, first_map[0] * first_map[1] * features[-1])


def test_paper_recipe_is_the_papers():
    config = from_file("celeba", "paper")
    fields = "b1 b2 l2 generator_lr discriminator_lr batch_size prior norm_epsilon kernel_size width fresh_z ema_decay"
    assert [config[name] for name in fields.split()] == [
        0.5, 0.999, 1e-5, 2e-4, 2e-4, 128, "uniform", 1e-8, 5, 128, True, 0.0,
    ]  # fmt: skip


@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_no_bias_and_no_batch_norm_at_the_edges(recipe):
    networks = state.abstract(from_file("celeba", recipe))
    assert "norm_0" not in networks.discriminator.params
    assert "norm_3" not in networks.generator.params
    biases = [path for path, _ in jax.tree_util.tree_leaves_with_path(networks.generator.params) if "bias" in str(path)]
    assert all("norm" in str(path) for path in biases)


def test_weights_are_drawn_as_in_the_paper(tiny):
    networks = state.create(tiny(width=64))
    assert np.std(networks.generator.params["project"]["kernel"]) == pytest.approx(0.02, rel=0.05)
    assert np.std(networks.discriminator.params["conv_1"]["kernel"]) == pytest.approx(0.02, rel=0.05)
    gains = networks.generator.params["project_norm"]["scale"]
    assert np.mean(gains) == pytest.approx(1, abs=0.01)
    assert np.std(gains) == pytest.approx(0.02, rel=0.3)


def test_labels_reach_every_layer():
    network = Generator(image_shape=(8, 8, 1), features=(4, 8), strides=(2, 2), dense=(16,), num_classes=3)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((2, 5)), jnp.zeros(2, jnp.int32))["params"]
    inputs = {name: layer["kernel"].shape for name, layer in params.items() if "kernel" in layer}
    assert inputs == {"dense_0": (8, 16), "project": (19, 32), "conv_0": (5, 5, 4, 11), "conv_1": (5, 5, 1, 7)}
    network = Discriminator(image_shape=(8, 8, 1), features=(4, 8), strides=(2, 2), dense=(16,), num_classes=3)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((2, 8, 8, 1)), jnp.zeros(2, jnp.int32))["params"]
    inputs = {name: layer["kernel"].shape for name, layer in params.items() if "kernel" in layer}
    assert inputs == {"conv_0": (5, 5, 4, 4), "conv_1": (5, 5, 7, 8), "dense_0": (35, 16), "logit": (19, 1)}


def test_a_conditional_network_without_labels_says_so():
    network = Generator(image_shape=(8, 8, 1), features=(4, 8), strides=(2, 2), num_classes=3)
    with pytest.raises(ValueError, match="labels"):
        network.init(jax.random.key(0), jnp.zeros((2, 5)))


@pytest.mark.parametrize("output", ["tanh", "sigmoid"])
def test_images_are_in_minus_one_to_one_whatever_the_output(output):
    network = Generator(image_shape=(8, 8, 1), features=(4, 8), strides=(2, 2), output=output)
    z = 1e6 * jax.random.normal(jax.random.key(1), (64, 5))
    params = jax.tree.map(lambda leaf: 100 * leaf, jax.jit(network.init)(jax.random.key(0), z))
    images = jax.jit(network.apply)(params, z)
    assert images.min() == pytest.approx(-1)
    assert images.max() == pytest.approx(1)


def test_a_sigmoid_network_sees_images_in_zero_to_one(monkeypatch):
    network = Discriminator(image_shape=(8, 8, 1), features=(4,), strides=(2,), output="sigmoid")
    seen = []
    monkeypatch.setattr(models, "conv", lambda x, kernel, stride: seen.append(x) or jnp.zeros((2, 4, 4, 4)))
    network.init(jax.random.key(0), jnp.linspace(-1, 1, 128).reshape(2, 8, 8, 1))
    assert (seen[0].min(), seen[0].max()) == (0, 1)


def batch_norm(**fields):
    return BatchNorm(**dict(epsilon=1e-5, momentum=0.9, affine=False, axis_name=None) | fields)


def test_batch_norm_normalises_the_batch_and_moves_the_running_statistics():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (64, 4, 4, 5))
    norm = batch_norm()
    variables = norm.init(jax.random.key(1), x, train=True)
    assert np.allclose(variables["batch_stats"]["mean"], 0), "creating a network must not train it"
    y, updated = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * x.var((0, 1, 2)), rtol=1e-5)


def test_batch_norm_in_float32_keeps_a_small_variance_beside_a_large_mean():
    x = 100 + 1e-3 * jax.random.normal(jax.random.key(0), (4096, 1))
    norm = batch_norm(epsilon=1e-8)
    y, _ = norm.apply(norm.init(jax.random.key(1), x, train=True), x, train=True, mutable=["batch_stats"])
    assert np.std(y) == pytest.approx(1, abs=0.02)


def test_batch_norm_keeps_float32_statistics_under_bfloat16():
    x = jnp.ones((8, 3), jnp.bfloat16)
    norm = batch_norm(affine=True)
    y, variables = norm.init_with_output(jax.random.key(0), x, train=True)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("per_unit", [False, True])
def test_an_output_does_not_depend_on_the_rest_of_its_batch(tiny, per_unit):
    config = tiny(norm_per_unit=per_unit)
    generator, _ = models.from_config(config)
    weights = state.create(config).generator.variables()
    z = jax.random.normal(jax.random.key(0), (64, config.latent_dim))
    np.testing.assert_allclose(generator.apply(weights, z)[:1], generator.apply(weights, z[:1]), atol=1e-6)


def test_the_generators_units_are_rectified():
    calls = []
    network = Generator(activation=lambda x: calls.append(x.shape) or jax.nn.relu(x))
    jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((2, 100)))
    assert calls == [(2, 4, 4, 1024), (2, 8, 8, 512), (2, 16, 16, 256), (2, 32, 32, 128)]
    assert Generator().activation is nn.relu


def test_the_slopes_are_the_papers(monkeypatch):
    slopes = []
    monkeypatch.setattr(nn, "leaky_relu", lambda x, slope: slopes.append(slope) or jax.nn.leaky_relu(x, slope))
    jax.eval_shape(Discriminator().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert slopes == [0.2] * 4


def normalised(x, groups, epsilon):
    """Group norm of x [B, ..., F], example by example and group by group."""
    y = np.empty_like(x)
    for i, example in enumerate(x):
        for features in np.split(np.arange(x.shape[-1]), groups):
            part = example[..., features]
            y[i][..., features] = (part - part.mean()) / np.sqrt(part.var() + epsilon)
    return y


@pytest.mark.parametrize(
    ("shape", "whole", "groups"),
    [
        ((3, 4, 5, 32), False, 2),
        ((3, 2, 2, 24), False, 3),
        ((3, 48), False, 3),
        ((3, 4, 5, 32), True, 1),
        ((3, 5), True, 1),
    ],
)
def test_group_and_layer_norm_are_what_they_say(shape, whole, groups):
    x = 3 + 2 * np.random.default_rng(0).normal(size=shape)
    with jax.enable_x64(True):
        norm = GroupNorm(whole=whole, epsilon=1e-3)
        variables = norm.init(jax.random.key(0), jnp.asarray(x), train=True)
        expected = normalised(x, groups, 1e-3)
        np.testing.assert_allclose(norm.apply(variables, x, train=True), expected, rtol=1e-10, atol=1e-10)
        gain, bias = np.random.default_rng(1).normal(size=(2, shape[-1]))
        found = norm.apply({"params": {"scale": gain, "bias": bias}}, x, groups=3)
        np.testing.assert_allclose(found, expected * gain + bias, rtol=1e-10, atol=1e-10)
    assert set(variables) == {"params"}
    assert NoNorm(name="norm_1")(x, train=True, groups=2) is x


def test_group_norm_computes_in_float32_under_bfloat16():
    x = 100 + jax.random.normal(jax.random.key(0), (4, 4, 4, 16))
    y, variables = GroupNorm().init_with_output(jax.random.key(0), x.astype(jnp.bfloat16), train=True)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    expected = normalised(np.asarray(x.astype(jnp.bfloat16), np.float64), 1, 1e-5)
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=0.02)


@pytest.mark.parametrize("shape", [(3, 3, 2, 5), (4, 7), (9, 1)])
def test_spectral_norm_divides_by_the_largest_singular_value(shape):
    weight = np.random.default_rng(0).normal(size=shape)
    matrix = weight.reshape(-1, shape[-1])
    largest = np.linalg.svd(matrix, compute_uv=False)[0]
    with jax.enable_x64(True):
        variables = jax.jit(SpectralNorm(train=True).init)(jax.random.key(0), jnp.asarray(weight))
        u, v = variables["spectral"]["left"], variables["spectral"]["right"]
        np.testing.assert_allclose([np.linalg.norm(u), np.linalg.norm(v)], 1, rtol=1e-6)
        untrained = jax.jit(SpectralNorm().init)(jax.random.key(0), jnp.asarray(weight))
        np.testing.assert_array_equal(untrained["spectral"]["left"], u, err_msg="creating a network must not train it")
        # In training: one power iteration, which is kept; the gradient takes the vectors for constants.
        apply = jax.jit(functools.partial(SpectralNorm(train=True).apply, mutable=["spectral"]))
        found, updated = apply(variables, weight)
        u = matrix @ v / np.linalg.norm(matrix @ v)
        v = matrix.T @ u / np.linalg.norm(matrix.T @ u)
        np.testing.assert_allclose(updated["spectral"]["left"], u, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(updated["spectral"]["right"], v, rtol=1e-6, atol=1e-9)
        sigma = u @ matrix @ v
        np.testing.assert_allclose(found, weight / sigma, rtol=1e-6)
        cotangent = np.random.default_rng(1).normal(size=shape)

        def objective(weight):
            return jnp.sum(cotangent * apply(variables, weight)[0])

        expected = cotangent / sigma - np.sum(cotangent * weight) / sigma**2 * np.outer(u, v).reshape(shape)
        np.testing.assert_allclose(jax.jit(jax.grad(objective))(jnp.asarray(weight)), expected, rtol=1e-6, atol=1e-9)
        # After training: as many as it takes, of which nothing is kept.
        found, kept = jax.jit(functools.partial(SpectralNorm().apply, mutable=["spectral"]))(variables, weight)
        np.testing.assert_allclose(found, weight / largest, rtol=1e-3)
        jax.tree.map(np.testing.assert_array_equal, kept["spectral"], variables["spectral"])


NORMS = ("batch", "spectral", "layer", "group", "none")


@pytest.mark.parametrize("norm", NORMS)
def test_networks_have_the_norm_that_they_should(tiny, norm):
    in_generator = norm if norm != "spectral" else "none"
    networks = models.from_config(tiny(discriminator_norm=norm, generator_norm=in_generator))
    for network, name in zip(networks, (in_generator, norm), strict=True):
        layer = network.norm(name="norm")
        assert isinstance(layer, {"batch": BatchNorm, "layer": GroupNorm, "group": GroupNorm}.get(name, NoNorm))
        assert getattr(layer, "whole", False) == (name == "layer")
        assert (network.weight_norm is SpectralNorm) == (name == "spectral")


@pytest.mark.parametrize("norm", NORMS)
def test_layers_have_biases_where_nothing_else_shifts(tiny, norm):
    in_generator = norm if norm != "spectral" else "none"
    config = tiny(dense=(16,), num_classes=3, discriminator_norm=norm, generator_norm=in_generator)
    networks = state.abstract(config)
    biased = norm in ("spectral", "none")
    for params, names, normalised_layers in (
        (networks.discriminator.params, {"conv_0", "conv_1", "dense_0", "logit"}, {"norm_1", "dense_norm_0"}),
        (
            networks.generator.params,
            {"dense_0", "project", "conv_0", "conv_1"},
            {"dense_norm_0", "project_norm", "norm_0"},
        ),
    ):
        assert set(params) == names | (set() if biased else normalised_layers)
        for name in names:
            assert set(params[name]) == {"kernel"} | ({"bias"} if biased else set())
        for name in normalised_layers & set(params):
            assert set(params[name]) == {"scale", "bias"}
    assert set(networks.discriminator.stats) == {"batch_stats"} | ({"spectral"} if norm == "spectral" else set())
    assert set(networks.generator.stats) == {"batch_stats"}
    assert bool(networks.discriminator.stats["batch_stats"]) == (norm == "batch")
    assert outputs(config) == ((5, 16, 16, 1), (5,))


@pytest.mark.parametrize("transpose", [False, True])
def test_a_bias_is_added_to_all_positions_and_starts_at_0(transpose):
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    layer = models.Conv(5, 4, 2, transpose, bias=True)
    variables = layer.init(jax.random.key(1), x)
    assert not variables["params"]["bias"].any()
    without = models.Conv(5, 4, 2, transpose).apply({"params": {"kernel": variables["params"]["kernel"]}}, x)
    biased = {"params": variables["params"] | {"bias": jnp.arange(5.0)}}
    np.testing.assert_allclose(layer.apply(biased, x), without + np.arange(5), atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_in_training_only_batch_norm_mixes_examples(tiny, norm):
    # So penalties on an image's gradient make sense with all others.
    config = tiny(discriminator_norm=norm, image_size=(4, 4), features=(16,), dense=(16,))
    _, discriminator = models.from_config(config)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 4, 4, 1)).astype(np.float32)
    variables = discriminator.init(jax.random.key(0), images, train=True)

    @jax.jit
    def logits(images):
        return discriminator.apply(variables, images, train=True, mutable=["batch_stats", "spectral"])[0]

    found, others = np.array(logits(images)), np.array(logits(np.concatenate([images[:2], images[:2] / 2])))
    assert np.allclose(found[:2], others[:2], rtol=1e-4, atol=1e-7) == (norm != "batch")
    assert not np.allclose(found[2:], others[2:], rtol=1e-4, atol=1e-7)


def test_activations_are_what_they_are_called(tiny):
    x = np.linspace(-3, 3, 25)
    plain = {
        "relu": np.maximum(x, 0),
        "leaky_relu": np.where(x > 0, x, 0.2 * x),
        "tanh": np.tanh(x),
        "softplus": np.log1p(np.exp(2 * x + 2)) / 2 - 1,
    }
    assert set(plain) == set(models.ACTIVATIONS)
    for name, expected in plain.items():
        np.testing.assert_allclose(models.ACTIVATIONS[name](jnp.asarray(x)), expected, atol=1e-5)
    generator, discriminator = models.from_config(tiny(generator_activation="tanh", discriminator_activation="relu"))
    assert (generator.activation, discriminator.activation) == (jnp.tanh, nn.relu)


@pytest.mark.parametrize("fields", [{}, dict(dense=(7,)), dict(convolutional=False, dense=(7, 8)), dict(kernel_size=5)])
def test_a_bias_in_the_first_layer_lets_the_discriminator_see_contrast(tiny, fields):
    # Without one: layers before a batch norm take c x to c times what they make of x, and batch norm divides by c.
    def logits(first_bias, contrast):
        config = tiny(norm_epsilon=1e-30, dtype="float64", first_bias=first_bias, **fields)
        _, discriminator = models.from_config(config)
        images = jax.random.uniform(jax.random.key(1), (4, *config.image_size, config.channels), minval=-1)
        variables = jax.jit(discriminator.init)(jax.random.key(0), images)
        rng = np.random.default_rng(0)
        params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape), variables["params"])
        variables = variables | {"params": params}
        apply = jax.jit(functools.partial(discriminator.apply, train=True, mutable=["batch_stats"]))
        return apply(variables, contrast * images)[0]

    with jax.enable_x64(True):
        np.testing.assert_allclose(logits(False, 0.5), logits(False, 1.0), rtol=1e-9)
        assert np.abs(logits(True, 0.5) - logits(True, 1.0)).max() > 1e-3


@pytest.mark.parametrize("kernel_size", [4, pytest.param(5, marks=pytest.mark.nightly)])
def test_signals_neither_fade_nor_grow_without_normalisation(tiny, kernel_size):
    config = tiny(
        image_size=(32, 32),
        width=16,
        latent_dim=64,
        kernel_size=kernel_size,
        generator_norm="none",
        discriminator_norm="none",
    )
    generator, discriminator = models.from_config(config)
    inputs = jax.random.normal(jax.random.key(1), (64, 64)), jax.random.normal(jax.random.key(2), (64, 32, 32, 1))
    for network, given in zip((generator, discriminator), inputs, strict=True):
        variables = jax.jit(network.init)(jax.random.key(0), given)
        _, sown = jax.jit(functools.partial(network.apply, mutable=["intermediates"]))(variables, given)
        sizes = [np.sqrt(np.mean(np.square(map_[0]))) for map_ in sown["intermediates"].values()]
        assert 0.6 < min(sizes) <= max(sizes) < 1.5, sizes  # with the paper's weights below 0.01 in the last map


@pytest.mark.parametrize("fields", [dict(num_classes=3), dict(generator_norm="layer", discriminator_norm="spectral")])
def test_no_convolution_is_traced_to_make_a_state(tiny, fields, monkeypatch):
    config = tiny(**fields)
    generator, discriminator = models.from_config(config)
    key = latent.key(config.seed, latent.INIT)
    labels = jnp.zeros(2, jnp.int32) if config.num_classes else None
    arguments = (jnp.zeros((2, config.latent_dim)), labels), (jnp.zeros((2, *generator.image_shape)), labels)
    inits = [jax.jit(functools.partial(network.init, train=True)) for network in (generator, discriminator)]
    expected = [init(key, *xs) for init, key, xs in zip(inits, jax.random.split(key), arguments, strict=True)]

    monkeypatch.setattr(conv, "_chosen", None)
    found = state.create(config)
    for network, variables in zip((found.generator, found.discriminator), expected, strict=True):
        variables = {name: part for name, part in variables.items() if name != "intermediates"}
        ours = {name: part for name, part in network.variables().items() if part}
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), ours, variables)
    with pytest.raises(TypeError):  # applied, the networks do convolve
        generator.apply(found.generator.variables(), *arguments[0])
