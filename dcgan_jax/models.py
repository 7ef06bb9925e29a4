"""The generator and the discriminator of Radford, Metz and Chintala (arXiv 1511.06434), by their five guidelines.

1. Strided convolutions (discriminator) and fractionally-strided convolutions (generator) in place of all pooling.
2. Batch norm in both, but not at the generator's output nor at the discriminator's input.
3. No fully connected hidden layers (the released MNIST network has some: `dense`).
4. ReLU in the generator, tanh at its output.
5. Leaky ReLU in the discriminator, slope 0.2.

No layer has a bias but batch norm, as in the released code. Both networks are described by the same data, the
discriminator's layers from the image inwards; the generator is the mirror.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from dcgan_jax.config import layers
from dcgan_jax.conv import conv, conv_transpose, of_constants

# Section 3 of the paper: weights from N(0, 0.02); the released code draws gains from N(1, 0.02).
WEIGHT_INIT = nn.initializers.normal(0.02)
LEAK = 0.2


def leaky_relu(x: Array) -> Array:
    """Leaky ReLU of slope 0.2."""
    return nn.leaky_relu(x, LEAK)


def gain_init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    """Gains of batch norm: N(1, 0.02)."""
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


class BatchNorm(nn.Module):
    """Normalises each feature (last axis) by its mean and variance over all other axes (Ioffe and Szegedy 2015).

    In training these are the batch's own, over all devices where `axis_name` names their axis, and the running
    statistics (collection 'batch_stats') move towards them. Otherwise the running statistics serve, so that an output
    depends on its input alone. Statistics are computed and kept in float32 whatever the input's type.

    A batch that holds `groups` equal parts, one behind the other, is normalised as that many batches would be; the
    running statistics move towards the mean of theirs.
    """

    epsilon: float
    momentum: float
    affine: bool
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Array, *, train: bool, groups: int = 1) -> Array:
        features, dtype = x.shape[-1:], jnp.promote_types(x.dtype, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, dtype)
        running_var = self.variable("batch_stats", "var", jnp.ones, features, dtype)
        y = x.astype(dtype).reshape(groups, -1, *x.shape[1:])
        if train:
            mean, var = self._statistics(y)
            if not self.is_initializing():
                running_mean.value = self.momentum * running_mean.value + (1 - self.momentum) * jnp.mean(mean, 0)
                running_var.value = self.momentum * running_var.value + (1 - self.momentum) * jnp.mean(var, 0)
            mean, var = (values.reshape(groups, *(1,) * (y.ndim - 2), *features) for values in (mean, var))
        else:
            mean, var = running_mean.value, running_var.value
        y = (y - mean) * jax.lax.rsqrt(var + self.epsilon)
        if self.affine:
            gain = self.param("scale", gain_init, features, dtype)
            y = y * gain + self.param("bias", nn.initializers.zeros, features, dtype)
        return y.astype(x.dtype).reshape(x.shape)

    def _statistics(self, x: Array) -> tuple[Array, Array]:
        """Mean and variance [groups, F] of x [groups, B, ..., F]."""
        axes = tuple(range(1, x.ndim - 1))
        mean = jnp.mean(x, axes, keepdims=True)
        # In two passes: the mean of squares less the square of the mean loses all digits of a small variance, which
        # an epsilon of 1e-8 does not hide.
        var = jnp.mean(jnp.square(x - mean), axes)
        mean = jnp.mean(mean, axes)
        if self.axis_name is not None and not self.is_initializing():
            # One meeting of the devices for both: the variance of all is the mean of each one's own and of the
            # squares by which their means differ from the mean of all.
            means, variances = jnp.moveaxis(jax.lax.all_gather(jnp.stack([mean, var]), self.axis_name), 1, 0)
            mean = jnp.mean(means, 0)
            var = jnp.mean(variances + jnp.square(means - mean), 0)
        return mean, var


class Conv(nn.Module):
    """A strided convolution (or its adjoint, which enlarges) without bias; padding as in `dcgan_jax.conv`.

    Of one-hot labels [B, L], if given, it makes what it would of L more features behind those of x [B, H, W, F], the
    same at all positions.
    """

    features: int
    kernel_size: int
    stride: int
    transpose: bool = False

    @nn.compact
    def __call__(self, x: Array, one_hot: Array | None = None) -> Array:
        inputs = x.shape[-1] + (0 if one_hot is None else one_hot.shape[-1])
        channels = (self.features, inputs) if self.transpose else (inputs, self.features)
        shape = (self.kernel_size, self.kernel_size, *channels)
        kernel = self.param("kernel", WEIGHT_INIT, shape, jnp.promote_types(x.dtype, jnp.float32)).astype(x.dtype)
        convolve = conv_transpose if self.transpose else conv
        if one_hot is None:
            return convolve(x, kernel, self.stride)
        of_x, of_labels = jnp.split(kernel, [x.shape[-1]], axis=3 if self.transpose else 2)
        labels_alone = of_constants(convolve, one_hot, of_labels, self.stride, size=x.shape[1:3])
        return convolve(x, of_x, self.stride) + labels_alone


class Network(nn.Module):
    """What both networks are described by.

    image_shape: (height, width, channels).
    features, strides: of each convolution, in the discriminator's order: from the image inwards.
    kernel_size: side of all kernels.
    dense: widths of hidden dense layers between the convolutions and z or the logit, in the discriminator's order;
        with no convolution at all, the networks are these.
    num_classes: 0, or the number of labels; one-hot labels are then joined to the input of *every* layer, as in the
        released MNIST code.
    output: 'tanh', or 'sigmoid' for networks that work on images in [0, 1]. Whichever it is, images outside the
        networks are in [-1, 1].
    norm_*: see `BatchNorm`; norm_per_unit: the generator's first is of each unit, not of each channel.
    axis_name: of the devices over which batch norm takes its statistics, or None.
    dtype: of activations; parameters stay float32.
    """

    image_shape: tuple[int, int, int] = (64, 64, 3)
    features: tuple[int, ...] = (128, 256, 512, 1024)
    strides: tuple[int, ...] = (2, 2, 2, 2)
    kernel_size: int = 5
    dense: tuple[int, ...] = ()
    num_classes: int = 0
    output: str = "tanh"
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9
    norm_affine: bool = True
    norm_per_unit: bool = False
    axis_name: str | None = None
    dtype: DTypeLike = jnp.float32

    def _norm(self, name: str) -> BatchNorm:
        return BatchNorm(self.norm_epsilon, self.norm_momentum, self.norm_affine, self.axis_name, name=name)

    def _dense(self, units: int, name: str) -> nn.Dense:
        param_dtype = jnp.promote_types(self.dtype, jnp.float32)
        return nn.Dense(
            units, use_bias=False, dtype=self.dtype, param_dtype=param_dtype, kernel_init=WEIGHT_INIT, name=name
        )

    def _one_hot(self, labels: Array | None) -> Array | None:
        """Labels [B] as [B, num_classes], or None where there are no classes."""
        if not self.num_classes:
            return None
        if labels is None:
            raise ValueError(f"labels: found None, expected whole numbers [B] below {self.num_classes}")
        return jax.nn.one_hot(labels, self.num_classes, dtype=self.dtype)


def _join(x: Array, one_hot: Array | None) -> Array:
    """x [B, F] with one-hot labels [B, L], if there are any, behind its features."""
    return x if one_hot is None else jnp.concatenate([x, one_hot], axis=-1)


class Generator(Network):
    """z to images.

    z [B, latent_dim], labels int [B] where there are classes -> images [B, H, W, C] in [-1, 1].
    The maps that its convolutions enlarge are sown as 'intermediates' under the names map_0, map_1, ...
    """

    @nn.compact
    def __call__(self, z: Array, labels: Array | None = None, *, train: bool = False) -> Array:
        height, width, channels = self.image_shape
        inwards = math.prod(self.strides)
        features, strides = self.features[::-1], self.strides[::-1]

        x, one_hot = z.astype(self.dtype), self._one_hot(labels)
        for i, units in enumerate(self.dense[::-1]):
            x = self._dense(units, f"dense_{i}")(_join(x, one_hot))
            x = nn.relu(self._norm(f"dense_norm_{i}")(x, train=train))

        if not features:  # no convolution: dense layers up to the pixels
            pixels = self._dense(math.prod(self.image_shape), "pixels")(_join(x, one_hot))
            return self._image(pixels.reshape(-1, *self.image_shape))

        # "Project and reshape" in figure 1 of the paper.
        first_map = (height // inwards, width // inwards, features[0])
        x = self._dense(math.prod(first_map), "project")(_join(x, one_hot))
        if not self.norm_per_unit:
            x = x.reshape(-1, *first_map)
        x = nn.relu(self._norm("project_norm")(x, train=train)).reshape(-1, *first_map)

        self.sow("intermediates", "map_0", x)
        for i, (units, stride) in enumerate(zip(features[1:], strides[:-1], strict=True)):
            x = Conv(units, self.kernel_size, stride, transpose=True, name=f"conv_{i}")(x, one_hot)
            x = nn.relu(self._norm(f"norm_{i}")(x, train=train))
            self.sow("intermediates", f"map_{i + 1}", x)

        last = f"conv_{len(strides) - 1}"
        return self._image(Conv(channels, self.kernel_size, strides[-1], transpose=True, name=last)(x, one_hot))

    def _image(self, x: Array) -> Array:
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return jnp.tanh(x) if self.output == "tanh" else 2 * nn.sigmoid(x) - 1


class Discriminator(Network):
    """Images to logits, positive for real.

    images [B, H, W, C] in [-1, 1], labels int [B] where there are classes -> logits float32 [B].
    The activations of its convolutions are sown as 'intermediates' under the names map_0, map_1, ...
    `activation` may be exchanged for one of the same values with another gradient, to look into the network.
    `groups`: in training, how many equal parts of the batch have batch statistics of their own (see `BatchNorm`).
    With `outputs` above 1 it is a classifier of that many classes, logits [B, outputs].
    """

    outputs: int = 1
    activation: Callable[[Array], Array] = leaky_relu

    @nn.compact
    def __call__(self, images: Array, labels: Array | None = None, *, train: bool = False, groups: int = 1) -> Array:
        x, one_hot = images if self.output == "tanh" else (images + 1) / 2, self._one_hot(labels)
        x = x.astype(self.dtype)
        for i, (features, stride) in enumerate(zip(self.features, self.strides, strict=True)):
            x = Conv(features, self.kernel_size, stride, name=f"conv_{i}")(x, one_hot)
            x = self._norm(f"norm_{i}")(x, train=train, groups=groups) if i > 0 else x
            x = self.activation(x)
            self.sow("intermediates", f"map_{i}", x)

        x = x.reshape(x.shape[0], -1)
        for i, units in enumerate(self.dense):
            x = self._dense(units, f"dense_{i}")(_join(x, one_hot))
            if self.features or i > 0:  # guideline 2
                x = self._norm(f"dense_norm_{i}")(x, train=train, groups=groups)
            x = self.activation(x)
        logits = self._dense(self.outputs, "logit")(_join(x, one_hot))
        logits = logits[:, 0] if self.outputs == 1 else logits
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def from_config(config: ConfigDict, axis_name: str | None = None) -> tuple[Generator, Discriminator]:
    """Both networks of a validated configuration; batch norm synchronised over `axis_name` if the config says so."""
    features, strides = layers(config)
    description = dict(
        image_shape=(*config.image_size, config.channels),
        features=features,
        strides=strides,
        kernel_size=config.kernel_size,
        dense=tuple(config.dense),
        num_classes=config.num_classes,
        output=config.output,
        norm_epsilon=config.norm_epsilon,
        norm_momentum=config.norm_momentum,
        norm_affine=config.norm_affine,
        norm_per_unit=config.norm_per_unit,
        axis_name=axis_name if config.sync_batch_norm else None,
        dtype=jnp.dtype(config.dtype),
    )
    return Generator(**description), Discriminator(**description)
