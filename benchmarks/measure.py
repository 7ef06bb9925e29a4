"""What the measurements of speed share: the network from the command line, timing in turns, the peak, tables, records.

Times of one machine in one run are compared, and nothing else: what is compared runs in turns (A B A B ...), and a
ratio is the median of the ratios of neighbours, so that whatever slows the machine for a while slows both.

    python benchmarks/measure.py FILE ...       prints the records that --json left, as one table
"""

import argparse
import importlib.util
import json
import os
import platform
import runpy
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

# JAX would take most of a GPU's memory at once, and leave none to what it is compared with.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dcgan_jax import heap
from dcgan_jax.config import validate

heap.keep()  # as launch/train.py does; what is compared with in the same process has it too

# Fields of the configuration that a benchmark's options may change.
CHANGEABLE = {"batch_size": int, "width": int, "kernel_size": int, "image_size": int, "dtype": str}
# Float32 products in two ways, on the units that know both: (JAX's name, PyTorch's name, TF32 in cuDNN).
PRECISIONS = {"tf32": ("default", "high", True), "float32": ("highest", "highest", False)}
# A function that does the same work so many times and waits for the end of it.
Run = Callable[[int], Any]
Row = dict[str, Any]


def parser(description: str | None, config: str) -> argparse.ArgumentParser:
    """The options that all share, with the default of --config."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--config", default=config, help="configs/NAME.py or configs/NAME.py:RECIPE")
    for name, kind in CHANGEABLE.items():
        made.add_argument(f"--{name}", type=kind, help=f"in place of the configuration's {name}")
    made.add_argument("--precision", choices=PRECISIONS, default="tf32", help="of float32 products, where it matters")
    made.add_argument("--repeats", type=int, default=7, help="turns of each")
    made.add_argument("--seconds", type=float, default=0.5, help="a turn is at least about as long")
    made.add_argument("--peak_size", type=int, help="side of the matrices of which the peak is measured")
    made.add_argument("--json", type=Path, help="file to which the record is added as one line")
    return made


def configuration(options: argparse.Namespace) -> ConfigDict:
    """The validated configuration that the options describe; sets JAX's precision too."""
    path, _, recipe = options.config.partition(":")
    config = runpy.run_path(path)["get_config"](*[recipe] if recipe else [])
    changes = {name: getattr(options, name) for name in CHANGEABLE if getattr(options, name)}
    if "image_size" in changes:
        changes["image_size"] = (changes["image_size"],)
    config.update(changes)
    jax.config.update("jax_default_matmul_precision", PRECISIONS[options.precision][0])
    return validate(config)


def title(config: ConfigDict, options: argparse.Namespace) -> str:
    """One line: the device and the network."""
    side = "x".join(map(str, config.image_size))
    precision = f" ({options.precision} products)" if jax.default_backend() != "cpu" else ""
    return (
        f"{jax.devices()[0].device_kind}: {options.config}, {side}, width {config.width}, {config.kernel_size}x"
        f"{config.kernel_size} kernels, batch {config.batch_size}, {config.dtype}{precision}"
    )


def waiting(function: Callable, *arguments: Any) -> Run:
    """A run of a JAX function on arguments that it does not consume."""

    def run(calls: int) -> None:
        for _ in range(calls):
            results = function(*arguments)
        jax.block_until_ready(results)

    return run


def _seconds(run: Run, calls: int) -> float:
    began = time.perf_counter()
    run(calls)
    return (time.perf_counter() - began) / calls


def in_turns(runs: dict[str, Run], repeats: int, seconds: float) -> dict[str, list[float]]:
    """Seconds a call of each, in each of `repeats` rounds over all of them."""
    calls = {}
    for name, run in runs.items():
        run(1)  # compiles
        calls[name] = max(1, round(seconds / _seconds(run, 1)))
    rounds = [{name: _seconds(run, calls[name]) for name, run in runs.items()} for _ in range(repeats)]
    return {name: [times[name] for times in rounds] for name in runs}


def ratio(slow: list[float], fast: list[float]) -> float:
    """How many times as fast `fast` is, pair by pair."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def peak(dtype: str, repeats: int, size: int | None = None) -> Row:
    """Operations a second of a large matrix product and a large convolution on one device, the best of all repeats.

    The larger is what a network could reach here ('peak'). size: side of the matrices.
    """
    size = size or (2048 if jax.default_backend() == "cpu" else 8192)
    keys = jax.random.split(jax.random.key(0), 4)
    one, other = (jax.random.normal(key, (size, size), dtype) for key in keys[:2])
    channels, side = max(16, size // 16), 32
    images = jax.random.normal(keys[2], (size // 64, side, side, channels), dtype)
    kernel = jax.random.normal(keys[3], (3, 3, channels, channels), dtype)

    @jax.jit
    def convolution(images, kernel):
        return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    work = {"matrix_product": 2 * size**3, "convolution": 2 * images.size * 9 * channels}
    runs = {
        "matrix_product": waiting(jax.jit(jnp.matmul), one, other),
        "convolution": waiting(convolution, images, kernel),
    }
    times = in_turns(runs, repeats, 0.0)
    rates = {name: work[name] / min(times[name]) for name in runs}
    return {**rates, "peak": max(rates.values()), "matrix_side": size, "dtype": dtype}


def table(rows: list[Row]) -> str:
    """Rows of the same fields as text, numbers to the right; a field that a row lacks is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns] + [[_cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [all(isinstance(row.get(name, 0), int | float | None) for row in rows) for name in columns]

    def line(texts: list[str]) -> str:
        parts = zip(texts, widths, numeric, strict=True)
        return "  ".join(text.rjust(width) if number else text.ljust(width) for text, width, number in parts).rstrip()

    return "\n".join(map(line, cells))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def record(options: argparse.Namespace, rows: list[Row], **more: Any) -> None:
    """Adds one line to the file of --json, if any: the device, versions, the command's options, the rows."""
    if not options.json:
        return
    device = jax.devices()[0]
    known = [name for name in ("jax", "jaxlib", "flax", "torch") if importlib.util.find_spec(name)]
    line = {
        # PyTorch's threads spin while they wait: on cores that others use it is slower by far than alone.
        "load": os.getloadavg()[0],
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in known},
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        **more,
        "rows": rows,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    with options.json.open("a") as file:
        file.write(json.dumps(line) + "\n")


def main() -> None:
    """Prints what the files of records named on the command line hold, as one table."""
    rows = []
    for line in (line for name in sys.argv[1:] for line in Path(name).read_text().splitlines()):
        known = json.loads(line)
        rows += [known.get("network", {}) | row for row in known["rows"]]
    print(table(rows))


if __name__ == "__main__":
    main()
