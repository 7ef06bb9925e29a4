"""Every formulation of every convolution of a network: python benchmarks/formulations.py [--config=...] [...]

A row for each layer, function and formulation of `dcgan_jax.ops.formulations`: milliseconds; the rate of the operations
counted in benchmarks/flops.py, of the plain form, whatever the formulation takes; how many times as fast as the plain
form it is; its largest difference from that, relative to the largest value; and the calls that it became on a GPU.
`used` marks what `dcgan_jax.ops.conv` runs on such a device.

The layers next to the image and the innermost come first. A layer's programs are compiled in threads, then measured in
turns; its rows are written at once.
"""

import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import calls
import flops
import jax
import jax.numpy as jnp
import measure
import numpy as np
from jax import Array

from dcgan_jax.ops import conv
from dcgan_jax.ops.formulations import ALIGNMENT, FORMULATIONS

FUNCTIONS = ("conv", "conv_transpose", "kernel_gradient")
THREADS = 12


def layers_by_worth(config) -> list[flops.Layer]:
    """The convolutions of both networks, each size once: next to the image, innermost, then the others."""
    layers = {}
    for layer in (layer for network in flops.networks(config) for layer in network if layer.kernel_size):
        layers.setdefault((layer.height, layer.width, layer.outer, layer.inner, layer.stride), layer)
    ordered = sorted(layers.values(), key=lambda layer: -layer.height)
    return [ordered[0], ordered[-1], *ordered[1:-1]] if len(ordered) > 1 else ordered


def candidates(layer: flops.Layer, function: str) -> list[str]:
    """The formulations that may be faster on a GPU, the plain one first; every one if the layer is at either end."""
    small = min(layer.height, layer.width) // layer.stride <= layer.kernel_size + 1
    names = ["plain", "space_to_depth"]
    if small or layer.outer < ALIGNMENT:
        names.append("patches")
    if small and function != "conv":
        names.append("padded_maps")
    if layer.outer < ALIGNMENT:
        names.append("padded_channels")
    return names


def random_arrays(layer: flops.Layer, batch_size: int, dtype: str) -> dict[str, Array]:
    """Random images, kernel and maps of a layer, made without compiling anything."""
    block = np.random.default_rng(0).standard_normal(2**20, np.float32).astype(jnp.dtype(dtype))
    inner = (layer.height // layer.stride, layer.width // layer.stride, layer.inner)
    shapes = {
        "images": (batch_size, layer.height, layer.width, layer.outer),
        "kernel": (layer.kernel_size, layer.kernel_size, layer.outer, layer.inner),
        "maps": (batch_size, *inner),
    }
    return {name: jax.device_put(np.resize(block, shape)) for name, shape in shapes.items()}


def arguments(function: str, arrays: dict[str, Array]) -> tuple[Array, Array]:
    """The two arrays that a function takes."""
    names = {"conv": ("images", "kernel"), "conv_transpose": ("maps", "kernel"), "kernel_gradient": ("images", "maps")}
    return tuple(arrays[name] for name in names[function])


def program(layer: flops.Layer, function: str, name: str):
    """The jitted function of two arrays."""
    static = (layer.stride, layer.kernel_size) if function == "kernel_gradient" else (layer.stride,)
    form = getattr(FORMULATIONS[name], function)
    return jax.jit(lambda a, b: form(a, b, *static))


def situation_and_form(layer: flops.Layer, function: str, dtype: str) -> tuple[str, str]:
    """The situation of a layer in `conv.ON_CUDA`, and the formulation that this kind of device runs."""
    shape = (layer.kernel_size, layer.kernel_size, layer.outer, layer.inner)
    sides = (layer.height // layer.stride, layer.width // layer.stride)
    known = conv.Layer(shape, layer.stride, sides, jnp.dtype(dtype))
    chosen = {"cpu": conv.on_cpu, "gpu": conv.on_cuda}.get(jax.default_backend())
    return conv.situation(function, known), chosen(function, known) if chosen else "plain"


def fastest(path: Path, dtype: str) -> dict[tuple[str, str], str]:
    """The lines of `conv.ON_CUDA` by the rows that a file has for this dtype."""
    best: dict[tuple[str, str], measure.Row] = {}
    for record in map(json.loads, path.read_text().splitlines() if path.exists() else []):
        for row in record["rows"] if record["network"]["dtype"] == dtype else []:
            key = row.get("function"), row.get("situation")
            if all(key) and "ms" in row and row["ms"] < best.get(key, row | {"ms": float("inf")})["ms"]:
                best[key] = row
    return {key: row["form"] for key, row in best.items()}


def measured(layer: flops.Layer, arrays: dict[str, Array], options, config, pool) -> list[measure.Row]:
    """The rows of one layer: all compiled first, as tuning would disturb what is measured beside it."""
    began = time.perf_counter()
    pending = {}
    for function in FUNCTIONS:
        for name in candidates(layer, function):
            lowered = program(layer, function, name).lower(*arguments(function, arrays))
            pending[function, name] = pool.submit(lowered.compile)
    compiled, rows = {}, []
    for key, future in pending.items():
        try:
            compiled[key] = future.result()
        except Exception as error:  # whatever XLA raises: the other formulations are still worth comparing
            failed = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
            rows.append({"layer": str(layer), "function": key[0], "form": key[1], "failed": failed})
    print(f"{layer}: {len(compiled)} programs compiled in {time.perf_counter() - began:.0f} s", flush=True)
    for function in FUNCTIONS:
        forms = {name: program for (of, name), program in compiled.items() if of == function}
        rows += in_turns(layer, function, forms, arguments(function, arrays), options, config)
    return rows


def in_turns(layer, function, forms, arrays, options, config) -> list[measure.Row]:
    """The rows of one function of a layer."""
    runs = {name: measure.waiting(program, *arrays) for name, program in forms.items()}
    times = measure.in_turns(runs, options.repeats, options.seconds)
    results = {name: program(*arrays) for name, program in forms.items()}
    work, rows = config.batch_size * layer.flops(), []
    situation, chosen = situation_and_form(layer, function, config.dtype)
    for name, column in times.items():
        seconds = statistics.median(column)
        row = {"layer": str(layer), "function": function, "situation": situation, "form": name}
        row |= {"used": "used" if name == chosen else ""}
        row |= {"ms": 1e3 * seconds, "TFLOP/s": work / seconds / 1e12}
        if "plain" in times:
            row["than_plain"] = measure.ratio(times["plain"], column)
            row["difference"] = _difference(results[name], results["plain"])
        became = calls.of_program(forms[name].as_text())
        row["became"] = "; ".join(f"{call.kind} {call.result} {call.window}".strip() for call in became)
        rows.append(row)
    return rows


@jax.jit
def _largest(found: Array, expected: Array) -> Array:
    found, expected = found.astype(jnp.float32), expected.astype(jnp.float32)
    return jnp.abs(found - expected).max() / jnp.abs(expected).max()


def _difference(found: Array, expected: Array) -> float:
    return float(_largest(found, expected))


def main() -> None:
    parser = measure.parser(__doc__, "configs/lsun_bedroom.py")
    parser.set_defaults(repeats=5, seconds=0.02)
    options = parser.parse_args()
    config = measure.configuration(options)
    print(measure.title(config, options), flush=True)
    with ThreadPoolExecutor(THREADS) as pool:
        for layer in layers_by_worth(config):
            rows = measured(layer, random_arrays(layer, config.batch_size, config.dtype), options, config, pool)
            network = {"config": options.config, "batch": config.batch_size, "dtype": config.dtype}
            measure.report(options, rows, network=network)
    if options.json:
        print("conv.ON_CUDA by the fastest in each situation:", fastest(options.json, config.dtype), flush=True)


if __name__ == "__main__":
    main()
