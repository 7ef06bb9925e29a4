"""Every pass of every layer of both networks: python benchmarks/layers.py [--config=configs/lsun_bedroom.py] [...]

For the forward pass, the input gradient and the weight gradient it prints the time, the rate of the operations counted
in benchmarks/flops.py, and its share of the device's peak. In turns with the convolutions in use (`dcgan_jax.ops.conv`)
run XLA's plain ones ('than_plain': how many times as fast ours is; 'difference': the largest, relative to the largest
result) and, for transposed convolutions, what automatic differentiation makes of XLA's convolution of dilated maps
('than_autodiff'). Last come the ratios over all of the generator's convolutions. Batch norm and activations are left
out.
"""

import statistics
from collections import defaultdict

import flops
import jax
import jax.numpy as jnp
import measure
from jax import Array

from dcgan_jax.ops import conv
from dcgan_jax.ops.formulations import FORMULATIONS

# The function that computes each pass, by whether the layer is transposed: the same three functions swap places.
PASSES = {
    False: {"forward": "conv", "input gradient": "conv_transpose", "weight gradient": "kernel_gradient"},
    True: {"forward": "conv_transpose", "input gradient": "conv", "weight gradient": "kernel_gradient"},
}
DENSE = {
    "forward": lambda x, kernel, y: x @ kernel,
    "input gradient": lambda x, kernel, y: y @ kernel.T,
    "weight gradient": lambda x, kernel, y: x.T @ y,
}


def contenders(
    layer: flops.Layer, passed: str, arrays: tuple[Array, Array, Array]
) -> dict[str, tuple[jax.stages.Wrapped, tuple]]:
    """Compiled functions for one pass and their arguments; arrays: (images, kernel, maps), or (x, kernel, y)."""
    outer, kernel, inner = arrays
    if not layer.kernel_size:
        return {"used": (jax.jit(DENSE[passed]), arrays)}
    name = PASSES[layer.transpose][passed]
    arguments = {"conv": (outer, kernel), "conv_transpose": (inner, kernel), "kernel_gradient": (outer, inner)}[name]
    static = (layer.stride, layer.kernel_size) if name == "kernel_gradient" else (layer.stride,)
    used = conv._kernel_gradient if name == "kernel_gradient" else getattr(conv, name)
    functions = {"used": used, "plain": getattr(FORMULATIONS["plain"], name)}
    compared = {who: (jax.jit(lambda a, b, f=f: f(a, b, *static)), arguments) for who, f in functions.items()}
    if layer.transpose:
        compared["autodiff"] = (jax.jit(_autodiff(passed, layer.stride)), (inner, kernel, outer))
    return compared


def _dilated(maps: Array, kernel: Array, stride: int) -> Array:
    """The transposed convolution as a convolution of dilated maps with the flipped kernel."""
    size = kernel.shape[0]
    before = size - 1 - conv.padding(size, stride)
    after = conv.padding(size, stride) + stride - 1  # the output is `stride` times as large as the maps
    flipped = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return jax.lax.conv_general_dilated(
        maps, flipped, (1, 1), [(before, after)] * 2, lhs_dilation=(stride, stride), dimension_numbers=conv.DIMENSIONS
    )


def _autodiff(passed: str, stride: int):
    def run(maps: Array, kernel: Array, cotangent: Array) -> Array:
        if passed == "forward":
            return _dilated(maps, kernel, stride)
        gradients = jax.vjp(lambda m, k: _dilated(m, k, stride), maps, kernel)[1](cotangent)
        return gradients[passed == "weight gradient"]

    return run


def random_arrays(layer: flops.Layer, batch_size: int, dtype: str) -> tuple[Array, Array, Array]:
    """(images, kernel, maps) of a convolution, or (x, kernel, y) of a dense layer."""
    keys = jax.random.split(jax.random.key(0), 3)
    outer, inner, kernel = (batch_size, layer.outer), (batch_size, layer.inner), (layer.outer, layer.inner)
    if layer.kernel_size:
        outer = (batch_size, layer.height, layer.width, layer.outer)
        inner = (batch_size, layer.height // layer.stride, layer.width // layer.stride, layer.inner)
        kernel = (layer.kernel_size, layer.kernel_size, *kernel)
    return tuple(jax.random.normal(key, shape, dtype) for key, shape in zip(keys, (outer, kernel, inner), strict=True))


def main() -> None:
    options = measure.parser(__doc__, "configs/lsun_bedroom.py").parse_args()
    config = measure.configuration(options)
    print(measure.title(config, options), flush=True)
    peak = measure.peak(config.dtype, options.repeats, options.peak_size)
    rows, totals = [], defaultdict(float)
    for network, layers in zip(("generator", "discriminator"), flops.networks(config), strict=True):
        for layer in layers:
            arrays = random_arrays(layer, config.batch_size, config.dtype)
            for passed in DENSE:
                work = config.batch_size * layer.flops()
                row, seconds = measured(layer, passed, arrays, options, work, peak["peak"])
                rows.append({"network": network, "layer": str(layer), "pass": passed, **row})
                for name in seconds if layer.transpose else ():
                    totals[passed, name] += seconds[name]
    measure.report(options, rows, peak=peak)
    print(f"peak {peak['peak'] / 1e9:.0f} GFLOP/s (the better of a matrix product and a convolution, {config.dtype})")
    for passed in DENSE if totals else ():
        ratio = totals[passed, "autodiff"] / totals[passed, "used"]
        print(f"the generator's convolutions, {passed}: {ratio:.1f} times as fast as automatic differentiation")


def measured(
    layer: flops.Layer, passed: str, arrays: tuple, options, work: int, peak: float
) -> tuple[measure.Row, dict[str, float]]:
    """One pass of one layer: its row, and the seconds of each contender."""
    compared = contenders(layer, passed, arrays)
    runs = {name: measure.waiting(function, *arguments) for name, (function, arguments) in compared.items()}
    times = measure.in_turns(runs, options.repeats, options.seconds / 10)
    seconds = {name: statistics.median(column) for name, column in times.items()}
    rate = work / seconds["used"]
    row = {"ms": 1e3 * seconds["used"], "GFLOP/s": rate / 1e9, "of_peak": rate / peak}
    results = {name: function(*arguments).astype(jnp.float32) for name, (function, arguments) in compared.items()}
    for name in list(compared)[1:]:
        row[f"than_{name}"] = measure.ratio(times[name], times["used"])
        difference = float(jnp.abs(results["used"] - results[name]).max() / jnp.abs(results[name]).max())
        row["difference"] = max(row.get("difference", 0.0), difference)
    return row, seconds


if __name__ == "__main__":
    main()
