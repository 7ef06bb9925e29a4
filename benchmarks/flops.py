"""Floating-point operations of a training step, counted by hand: python benchmarks/flops.py [--config=...]

An addition and a multiplication count one each. Counted are convolutions and dense layers; batch norm, activations,
losses and Adam take a few operations per number where a convolution takes thousands, and are left out. Taps of a kernel
that fall on padding count like all others, as is usual; `inside` leaves them out.

In each layer the forward pass, the input gradient and the weight gradient take equally many operations. A step is

    generator       forward, weight gradients, input gradients (not into z)
    discriminator   its own update: forward, weight gradients, input gradients (not into the images), for real and fake
                    the generator's update: forward, input gradients (into the images too)

and with `fresh_z` one more forward pass of the generator. Faster algorithms (Winograd's) do the same work in fewer
operations: rates are of the operations counted here, not of those that a device executed.
"""

import itertools
import math
from dataclasses import dataclass

import measure
from ml_collections import ConfigDict

from dcgan_jax import config as configuration
from dcgan_jax.ops.conv import padding


@dataclass(frozen=True)
class Layer:
    """A dense layer (kernel_size 0), or a convolution from images [height, width, outer] to maps [.., inner].

    The generator's transposed convolution goes from maps to images and takes as many operations.
    """

    name: str
    outer: int
    inner: int
    height: int = 0
    width: int = 0
    kernel_size: int = 0
    stride: int = 1
    transpose: bool = False

    def flops(self, inside: bool = False) -> int:
        """Operations of one pass for one image."""
        if not self.kernel_size:
            return 2 * self.outer * self.inner
        taps = math.prod(_taps(side, self.kernel_size, self.stride, inside) for side in (self.height, self.width))
        return 2 * taps * self.outer * self.inner

    def __str__(self) -> str:
        if not self.kernel_size:
            return f"{self.name}: {self.outer} -> {self.inner}"
        outer = f"{self.height}x{self.width}x{self.outer}"
        inner = f"{self.height // self.stride}x{self.width // self.stride}x{self.inner}"
        return f"{self.name}: {inner} -> {outer}" if self.transpose else f"{self.name}: {outer} -> {inner}"


def _taps(side: int, kernel_size: int, stride: int, inside: bool) -> int:
    """How many pairs of a kernel's tap and a position there are along one side."""
    first = [position * stride - padding(kernel_size, stride) for position in range(side // stride)]
    if not inside:
        return len(first) * kernel_size
    return sum(min(start + kernel_size, side) - max(start, 0) for start in first)


def networks(config: ConfigDict) -> tuple[list[Layer], list[Layer]]:
    """The layers of the generator and of the discriminator, each in the order of the forward pass.

    One-hot labels are additional inputs of every dense layer. In a convolution they count as one channel, however many
    they are (`dcgan_jax.ops.conv.conv_of_constant_maps`).
    """
    features, strides = configuration.layers(config)
    classes, joined, size = config.num_classes, bool(config.num_classes), config.kernel_size
    height, width = config.image_size
    sides = [(height // math.prod(strides[:i]), width // math.prod(strides[:i])) for i in range(len(strides) + 1)]
    flat = math.prod(sides[-1]) * features[-1]

    # The generator has the discriminator's layers in reverse.
    discriminator, generator = [], []
    for i, (inner, outer, stride) in enumerate(zip(features, (config.channels, *features), strides, strict=False)):
        discriminator.append(Layer(f"conv_{i}", outer + joined, inner, *sides[i], size, stride))
        name = f"conv_{len(strides) - 1 - i}"
        generator.insert(0, Layer(name, outer, inner + joined, *sides[i], size, stride, transpose=True))
    widths = (flat, *config.dense)
    for i, (before, units) in enumerate(zip(widths, config.dense, strict=False)):
        discriminator.append(Layer(f"dense_{i}", before + classes, units))
    discriminator.append(Layer("logit", widths[-1] + classes, 1))
    widths = (config.latent_dim, *config.dense[::-1])
    dense = [
        Layer(f"dense_{i}", before + classes, units) for i, (before, units) in enumerate(itertools.pairwise(widths))
    ]
    return [*dense, Layer("project", widths[-1] + classes, flat), *generator], discriminator


def generator_forward(config: ConfigDict, inside: bool = False) -> int:
    """Operations that generate one image."""
    return sum(layer.flops(inside) for layer in networks(config)[0])


def train_step(config: ConfigDict, inside: bool = False) -> int:
    """Operations of one training step per image of the batch."""
    generator, discriminator = ([layer.flops(inside) for layer in layers] for layers in networks(config))
    # Real and fake forward, weight and input gradients; then forward and input gradients once more.
    return (3 + config.fresh_z) * sum(generator) - generator[0] + 8 * sum(discriminator) - 2 * discriminator[0]


def main() -> None:
    options = measure.parser(__doc__, "configs/lsun_bedroom.py").parse_args()
    config = measure.configuration(options)
    rows = []
    for network, layers in zip(("generator", "discriminator"), networks(config), strict=True):
        rows += [{"network": network, "layer": str(layer), "MFLOP": layer.flops() / 1e6} for layer in layers]
    measure.report(options, rows, train_step=train_step(config), generator=generator_forward(config))
    print(f"one image takes {train_step(config) / 1e9:.3f} GFLOP in a training step")
    print(f"and {generator_forward(config) / 1e9:.3f} GFLOP to generate")


if __name__ == "__main__":
    main()
