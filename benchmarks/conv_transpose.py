"""The fractionally-strided convolution, naive and as the adjoint: python benchmarks/conv_transpose.py

Naive is what automatic differentiation makes of XLA's transposed convolution (a convolution with dilated input);
adjoint is `dcgan_jax.conv.conv_transpose`. For each layer of the 64x64 generator of width 64 it prints the rates of the
forward pass, the gradient of the input and that of the weights, and the ratio of the two, each the median over
interleaved runs. A floating-point operation is an addition or a multiplication, counted from the shapes.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp

from dcgan_jax.conv import DIMENSIONS, conv_transpose, padding

# (side of the maps, features in, features out) of each layer, image last
LAYERS = [(4, 512, 256), (8, 256, 128), (16, 128, 64), (32, 64, 3)]
STRIDE = 2


def naive(maps, kernel, stride):
    """The same function written as a convolution of the dilated maps with the flipped kernel."""
    size = kernel.shape[0]
    pad = padding(size, stride)
    before = size - 1 - pad
    after = size - 1 - pad + (2 * pad + stride - size)  # what is left over so that the output is stride times as large
    flipped = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return jax.lax.conv_general_dilated(
        maps, flipped, (1, 1), [(before, after)] * 2, lhs_dilation=(stride, stride), dimension_numbers=DIMENSIONS
    )


def passes(function):
    """Forward, input gradient and weight gradient, each a function of (maps, kernel, cotangent)."""

    def gradient(argument):
        def run(maps, kernel, cotangent):
            return jax.vjp(lambda m, k: function(m, k, STRIDE), maps, kernel)[1](cotangent)[argument]

        return jax.jit(run)

    forward = jax.jit(lambda maps, kernel, cotangent: function(maps, kernel, STRIDE))
    return {"forward": forward, "input gradient": gradient(0), "weight gradient": gradient(1)}


def seconds(function, arguments):
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--kernel", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()

    print(f"{jax.devices()[0].device_kind}, batch {options.batch}, kernel {options.kernel}, stride {STRIDE}, float32")
    print(f"{'layer':<24}{'pass':<18}{'naive':>12}{'adjoint':>12}{'ratio':>8}   (GFLOP/s)")
    totals = {}
    for side, features_in, features_out in LAYERS:
        keys = jax.random.split(jax.random.key(0), 3)
        maps = jax.random.normal(keys[0], (options.batch, side, side, features_in))
        kernel = jax.random.normal(keys[1], (options.kernel, options.kernel, features_out, features_in))
        cotangent = jax.random.normal(keys[2], (options.batch, STRIDE * side, STRIDE * side, features_out))
        work = 2 * options.batch * side**2 * options.kernel**2 * features_in * features_out
        layer = f"{side}x{side}x{features_in} -> {2 * side}x{2 * side}x{features_out}"
        for name in ("forward", "input gradient", "weight gradient"):
            candidates = [passes(function)[name] for function in (naive, conv_transpose)]
            arguments = (maps, kernel, cotangent)
            one, other = (function(*arguments) for function in candidates)  # compiles, and compares
            error = jnp.abs(one - other).max() / jnp.abs(one).max()
            assert error < 1e-4, f"{layer}, {name}: they differ by {error}"
            times = [[seconds(function, arguments) for function in candidates] for _ in range(options.repeats)]
            slow, fast = (statistics.median(column) for column in zip(*times, strict=True))
            ratio = statistics.median(a / b for a, b in times)
            print(f"{layer:<24}{name:<18}{work / slow / 1e9:>12.0f}{work / fast / 1e9:>12.0f}{ratio:>8.1f}")
            total = totals.setdefault(name, [0.0, 0.0])
            total[0], total[1] = total[0] + slow, total[1] + fast
    for name, (slow, fast) in totals.items():
        print(f"{'all layers':<24}{name:<18}{'':>24}{slow / fast:>8.1f}")


if __name__ == "__main__":
    main()
