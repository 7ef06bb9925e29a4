"""Every layer of both networks, pass by pass: python benchmarks/layers.py [--config=configs/lsun_bedroom.py] [...]

The time of the forward pass, the input gradient and the weight gradient, the rate of the operations counted in
benchmarks/flops.py, and its share of the device's peak. Beside the convolutions in use (`dcgan_jax.conv`), XLA's plain
ones run in turns: how many times as fast the one in use is, and the largest difference of their results relative to the
largest number in them. Batch norm and activations are not in here.
"""

import statistics

import flops
import jax
import jax.numpy as jnp
import measure
from jax import Array

from dcgan_jax import conv

# What computes each pass: the convolution's three functions take one another's places (dcgan_jax/conv.py).
PASSES = {
    False: {"forward": "conv", "input gradient": "conv_transpose", "weight gradient": "kernel_gradient"},
    True: {"forward": "conv_transpose", "input gradient": "conv", "weight gradient": "kernel_gradient"},
}
DENSE = {
    "forward": lambda x, kernel, y: x @ kernel,
    "input gradient": lambda x, kernel, y: y @ kernel.T,
    "weight gradient": lambda x, kernel, y: x.T @ y,
}


def contenders(layer: flops.Layer, passed: str, arrays: tuple[Array, Array, Array]) -> tuple[dict, tuple]:
    """The compiled functions of one pass, and their arguments: of (images, kernel, maps), or of (x, kernel, y)."""
    outer, kernel, inner = arrays
    if not layer.kernel_size:
        return {"used": jax.jit(DENSE[passed])}, arrays
    name = PASSES[layer.transpose][passed]
    arguments = {"conv": (outer, kernel), "conv_transpose": (inner, kernel), "kernel_gradient": (outer, inner)}[name]
    static = (layer.stride, layer.kernel_size) if name == "kernel_gradient" else (layer.stride,)
    used = conv._kernel_gradient if name == "kernel_gradient" else getattr(conv, name)
    functions = {"used": used, "plain": getattr(conv, f"_plain_{name}")}
    return {who: jax.jit(lambda a, b, f=f: f(a, b, *static)) for who, f in functions.items()}, arguments


def random_arrays(layer: flops.Layer, batch_size: int, dtype: str) -> tuple[Array, Array, Array]:
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
    rows = []
    for network, layers in zip(("generator", "discriminator"), flops.networks(config), strict=True):
        for layer in layers:
            arrays = random_arrays(layer, config.batch_size, config.dtype)
            for passed in DENSE:
                row = measured(layer, passed, arrays, options, config.batch_size * layer.flops(), peak["peak"])
                rows.append({"network": network, "layer": str(layer), "pass": passed, **row})
    print(measure.table(rows))
    print(f"peak {peak['peak'] / 1e9:.0f} GFLOP/s (the better of a matrix product and a convolution, {config.dtype})")
    measure.record(options, rows, peak=peak)


def measured(layer: flops.Layer, passed: str, arrays: tuple, options, work: int, peak: float) -> measure.Row:
    """One pass of one layer, with XLA's plain one beside it where there is one."""
    functions, arguments = contenders(layer, passed, arrays)
    runs = {name: measure.waiting(function, *arguments) for name, function in functions.items()}
    times = measure.in_turns(runs, options.repeats, options.seconds / 10)
    seconds = statistics.median(times["used"])
    row = {"ms": 1e3 * seconds, "GFLOP/s": work / seconds / 1e9, "of_peak": work / seconds / peak}
    if "plain" in times:
        used, plain = (function(*arguments).astype(jnp.float32) for function in functions.values())
        row["than_plain"] = measure.ratio(times["plain"], times["used"])
        row["difference"] = float(jnp.abs(used - plain).max() / jnp.abs(plain).max())
    return row


if __name__ == "__main__":
    main()
