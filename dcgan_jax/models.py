"""The generator and the discriminator of Radford, Metz and Chintala (arXiv 1511.06434), by their five guidelines.

1. Strided convolutions (discriminator) and fractionally-strided convolutions (generator) in place of all pooling.
2. Batch norm in both, but not at the generator's output nor at the discriminator's input.
3. No fully connected hidden layers (the released MNIST network has some: `dense`).
4. ReLU in the generator, tanh at its output.
5. Leaky ReLU in the discriminator, slope 0.2.

No layer but batch norm has a bias, as in the released code; `first_bias` gives one to the discriminator's first layer,
`last_bias` to the last of both networks. One description serves both: it lists the discriminator's layers from the
image inwards; the generator is the mirror. Other normalisations and activations are for comparison. Layers without
normalisation have biases, and weights that keep the variance of a signal: by the paper's, smaller ones, it would fade.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from dcgan_jax.config import layers
from dcgan_jax.ops.batch_norm import Norm, batch_norm
from dcgan_jax.ops.conv import conv, conv_of_constant_maps, conv_transpose
from dcgan_jax.ops.dtypes import at_least_float32
from dcgan_jax.ops.group_norm import GroupNorm, NoNorm
from dcgan_jax.ops.parameter import parameter
from dcgan_jax.ops.spectral_norm import SpectralNorm

WEIGHT_INIT = nn.initializers.normal(0.02)  # section 3 of the paper
LEAK = 0.2
LAYER_NORM = functools.partial(GroupNorm, whole=True)  # one object, so that equal networks are compiled once

# Makes a layer's initialiser from how many products are summed in each of its outputs.
WeightInit = Callable[[float], nn.initializers.Initializer]
# Makes the function that a layer applies to its kernel before use, such as spectral norm, a module with its own state.
WeightNorm = Callable[..., Callable[[Array], Array]]


def leaky_relu(x: Array) -> Array:
    """Leaky ReLU of slope 0.2."""
    return nn.leaky_relu(x, LEAK)


def shifted_softplus(x: Array) -> Array:
    """softplus(2x + 2) / 2 - 1, a smooth function that is near x above 0 (section 4 of the WGAN-GP paper)."""
    return nn.softplus(2 * x + 2) / 2 - 1


ACTIVATIONS = {"relu": nn.relu, "leaky_relu": leaky_relu, "tanh": jnp.tanh, "softplus": shifted_softplus}


def paper_init(fan_in: float) -> nn.initializers.Initializer:
    """Normal with a standard deviation of 0.02, as in the paper, for networks with normalisation."""
    return WEIGHT_INIT


def he_init(fan_in: float) -> nn.initializers.Initializer:
    """Normal with a variance of 2 / fan_in, which ReLU layers hand on unchanged (He et al. 2015)."""
    return nn.initializers.normal(math.sqrt(2 / fan_in))


def no_weight_norm(*, name: str, train: bool) -> Callable[[Array], Array]:
    """Leaves weights as they are."""
    return lambda weight: weight


class Conv(nn.Module):
    """A strided convolution, or its adjoint, which enlarges; padding as in `dcgan_jax.ops.conv`.

    x [B, H, W, F] -> [B, H / stride, W / stride, features], or [B, H * stride, W * stride, features].
    One-hot labels [B, L] act as L more input channels, constant over all positions.
    """

    features: int
    kernel_size: int
    stride: int
    transpose: bool = False
    weight_norm: WeightNorm = no_weight_norm
    bias: bool = False
    weight_init: WeightInit = paper_init

    @nn.compact
    def __call__(self, x: Array, one_hot: Array | None = None, *, train: bool = False) -> Array:
        inputs = x.shape[-1] + (0 if one_hot is None else one_hot.shape[-1])
        channels = (self.features, inputs) if self.transpose else (inputs, self.features)
        shape = (self.kernel_size, self.kernel_size, *channels)
        fan_in = inputs * self.kernel_size**2 / (self.stride**2 if self.transpose else 1)
        kernel = parameter(self, "kernel", self.weight_init(fan_in), shape, at_least_float32(x.dtype))
        kernel = self.weight_norm(name="weight_norm", train=train)(kernel).astype(x.dtype)
        convolve = conv_transpose if self.transpose else conv
        if one_hot is None:
            return _biased(self, convolve(x, kernel, self.stride))
        of_x, of_labels = jnp.split(kernel, [x.shape[-1]], axis=3 if self.transpose else 2)
        labels_alone = conv_of_constant_maps(convolve, one_hot, of_labels, self.stride, size=x.shape[1:3])
        return _biased(self, convolve(x, of_x, self.stride) + labels_alone)


class Dense(nn.Module):
    """A dense layer: x [B, F] -> [B, features]. One-hot labels [B, L] are joined to x."""

    features: int
    weight_norm: WeightNorm = no_weight_norm
    bias: bool = False
    weight_init: WeightInit = paper_init

    @nn.compact
    def __call__(self, x: Array, one_hot: Array | None = None, *, train: bool = False) -> Array:
        x = x if one_hot is None else jnp.concatenate([x, one_hot], axis=-1)
        shape = (x.shape[-1], self.features)
        kernel = parameter(self, "kernel", self.weight_init(shape[0]), shape, at_least_float32(x.dtype))
        return _biased(self, x @ self.weight_norm(name="weight_norm", train=train)(kernel).astype(x.dtype))


def _biased(layer: Conv | Dense, x: Array) -> Array:
    """x [..., features], with a bias for each feature if the layer has biases."""
    if not layer.bias:
        return x
    bias = parameter(layer, "bias", nn.initializers.zeros, x.shape[-1:], at_least_float32(x.dtype))
    return x + jnp.expand_dims(bias, range(x.ndim - 1)).astype(x.dtype)


class Network(nn.Module):
    """What both networks are described by.

    image_shape: (height, width, channels).
    features, strides: of each convolution, in the discriminator's order: from the image inwards.
    kernel_size: side of all kernels.
    dense: widths of hidden dense layers between the convolutions and z or the logit, in the discriminator's order;
        without any convolution, the networks are these.
    num_classes: 0, or the number of labels; one-hot labels are then joined to the input of *every* layer, as in the
        released MNIST code.
    output: 'tanh', or 'sigmoid' for networks that work on images in [0, 1]. Outside the networks, images are in
        [-1, 1] either way.
    norm: makes the normalisation layers. norm_per_unit: the generator's first has statistics and gains for each unit
        instead of each channel.
    weight_norm: what all layers apply to their weights.
    bias: whether all layers have biases. last_bias: whether the last one has one.
    weight_init: what all weights start from.
    dtype: of activations; parameters stay float32.
    """

    image_shape: tuple[int, int, int] = (64, 64, 3)
    features: tuple[int, ...] = (128, 256, 512, 1024)
    strides: tuple[int, ...] = (2, 2, 2, 2)
    kernel_size: int = 5
    dense: tuple[int, ...] = ()
    num_classes: int = 0
    output: str = "tanh"
    norm: Norm = batch_norm()
    norm_per_unit: bool = False
    weight_norm: WeightNorm = no_weight_norm
    bias: bool = False
    last_bias: bool = False
    weight_init: WeightInit = paper_init
    dtype: DTypeLike = jnp.float32

    def _conv(self, features: int, stride: int, name: str, *, transpose: bool = False, bias: bool = False) -> Conv:
        own = (self.weight_norm, self.bias or bias, self.weight_init)
        return Conv(features, self.kernel_size, stride, transpose, *own, name=name)

    def _dense(self, features: int, name: str, *, bias: bool = False) -> Dense:
        return Dense(features, self.weight_norm, self.bias or bias, self.weight_init, name=name)

    def _one_hot(self, labels: Array | None) -> Array | None:
        """Labels [B] as [B, num_classes], or None if there are no classes."""
        if not self.num_classes:
            return None
        if labels is None:
            raise ValueError(f"labels: found None, expected whole numbers [B] below {self.num_classes}")
        return jax.nn.one_hot(labels, self.num_classes, dtype=self.dtype)


class Generator(Network):
    """z to images.

    z [B, latent_dim], labels int [B] if there are classes -> images [B, H, W, C] in [-1, 1].
    The inputs of its convolutions are sown as 'intermediates' under the names map_0, map_1, ...
    """

    activation: Callable[[Array], Array] = nn.relu

    @nn.compact
    def __call__(self, z: Array, labels: Array | None = None, *, train: bool = False) -> Array:
        height, width, channels = self.image_shape
        total_stride = math.prod(self.strides)
        features, strides = self.features[::-1], self.strides[::-1]
        x, one_hot = z.astype(self.dtype), self._one_hot(labels)
        for i, units in enumerate(self.dense[::-1]):
            x = self._dense(units, f"dense_{i}")(x, one_hot, train=train)
            x = self.activation(self.norm(name=f"dense_norm_{i}")(x, train=train))

        if not features:  # no convolutions: dense layers up to the pixels
            pixels = self._dense(math.prod(self.image_shape), "pixels", bias=self.last_bias)(x, one_hot, train=train)
            return self._image(pixels.reshape(-1, *self.image_shape))

        # "Project and reshape" in figure 1 of the paper.
        first_map = (height // total_stride, width // total_stride, features[0])
        x = self._dense(math.prod(first_map), "project")(x, one_hot, train=train)
        if not self.norm_per_unit:
            x = x.reshape(-1, *first_map)
        x = self.activation(self.norm(name="project_norm")(x, train=train)).reshape(-1, *first_map)

        self.sow("intermediates", "map_0", x)
        for i, (units, stride) in enumerate(zip(features[1:], strides[:-1], strict=True)):
            x = self._conv(units, stride, f"conv_{i}", transpose=True)(x, one_hot, train=train)
            x = self.activation(self.norm(name=f"norm_{i}")(x, train=train))
            self.sow("intermediates", f"map_{i + 1}", x)

        last = self._conv(channels, strides[-1], f"conv_{len(strides) - 1}", transpose=True, bias=self.last_bias)
        return self._image(last(x, one_hot, train=train))

    def _image(self, x: Array) -> Array:
        x = x.astype(at_least_float32(x.dtype))
        return jnp.tanh(x) if self.output == "tanh" else 2 * nn.sigmoid(x) - 1


class Discriminator(Network):
    """Images to logits, positive for real.

    images [B, H, W, C] in [-1, 1], labels int [B] if there are classes -> logits float32 [B].
    The activations of its convolutions are sown as 'intermediates' under the names map_0, map_1, ...
    `groups`: in training, how many equal parts of the batch have batch statistics of their own (see `BatchNorm`).
    `first_bias`: whether the first layer has a bias. Without one, this network is blind to the contrast of a batch: all
    layers before the first batch norm take c x to c times what they make of x, for any c > 0, and batch norm divides by
    c. The generator then gets no gradient that keeps the contrast of its images.
    `activation` may be replaced by a function with equal values and another gradient (guided backpropagation).
    With `outputs` above 1 it is a classifier of that many classes, logits [B, outputs].
    """

    outputs: int = 1
    first_bias: bool = False
    activation: Callable[[Array], Array] = leaky_relu

    @nn.compact
    def __call__(self, images: Array, labels: Array | None = None, *, train: bool = False, groups: int = 1) -> Array:
        x, one_hot = images if self.output == "tanh" else (images + 1) / 2, self._one_hot(labels)
        x = x.astype(self.dtype)
        for i, (features, stride) in enumerate(zip(self.features, self.strides, strict=True)):
            x = self._conv(features, stride, f"conv_{i}", bias=self.first_bias and i == 0)(x, one_hot, train=train)
            x = self.norm(name=f"norm_{i}")(x, train=train, groups=groups) if i > 0 else x
            x = self.activation(x)
            self.sow("intermediates", f"map_{i}", x)

        x = x.reshape(x.shape[0], -1)
        for i, units in enumerate(self.dense):
            first = i == 0 and not self.features
            x = self._dense(units, f"dense_{i}", bias=self.first_bias and first)(x, one_hot, train=train)
            if not first:  # guideline 2: not at the image
                x = self.norm(name=f"dense_norm_{i}")(x, train=train, groups=groups)
            x = self.activation(x)
        logits = self._dense(self.outputs, "logit", bias=self.last_bias)(x, one_hot, train=train)
        logits = logits[:, 0] if self.outputs == 1 else logits
        return logits.astype(at_least_float32(logits.dtype))


def from_config(config: ConfigDict, axis_name: str | None = None) -> tuple[Generator, Discriminator]:
    """Both networks of a validated configuration; with `sync_batch_norm`, batch norm is over the axis `axis_name`."""
    features, strides = layers(config)
    description = dict(
        image_shape=(*config.image_size, config.channels),
        features=features,
        strides=strides,
        kernel_size=config.kernel_size,
        dense=tuple(config.dense),
        num_classes=config.num_classes,
        output=config.output,
        norm_per_unit=config.norm_per_unit,
        last_bias=config.last_bias,
        dtype=jnp.dtype(config.dtype),
    )

    def own(network: str) -> dict[str, Any]:
        activation = ACTIVATIONS[config[f"{network}_activation"]]
        return description | dict(activation=activation) | _normalisation(config, config[f"{network}_norm"], axis_name)

    return Generator(**own("generator")), Discriminator(**own("discriminator"), first_bias=config.first_bias)


def _normalisation(config: ConfigDict, name: str, axis_name: str | None) -> dict[str, Any]:
    """The fields of `Network` that a kind of normalisation sets."""
    match name:
        case "batch":
            sync = axis_name if config.sync_batch_norm else None
            return dict(norm=batch_norm(config.norm_epsilon, config.norm_momentum, config.norm_affine, sync))
        case "group":
            return dict(norm=GroupNorm)
        case "layer":
            return dict(norm=LAYER_NORM)
        case "spectral":
            return dict(norm=NoNorm, weight_norm=SpectralNorm, bias=True)
        case _:
            return dict(norm=NoNorm, bias=True, weight_init=he_init)
