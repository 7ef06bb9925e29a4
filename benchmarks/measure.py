"""Shared by all benchmarks: arguments, the configuration, timing in turns, the device's peak rate, tables and records.

Only times of one machine in one run are compared. What is compared takes turns (A B A B ...), and a ratio is the median
over pairs of neighbours, so that whatever slows the machine for a while slows both.

    python benchmarks/measure.py FILE ...       prints the records that --json wrote, as one table
"""

import argparse
import importlib.util
import json
import os
import platform
import runpy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

# By default JAX takes most of a GPU's memory at once and leaves none to PyTorch.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.config import default_of, validate
from dcgan_jax.runtime import malloc

malloc.keep_freed_memory()  # as launch/train.py does; PyTorch in the same process has it too

ROOT = Path(__file__).resolve().parent.parent
# Configuration fields with a flag of their own.
FIELD_FLAGS = {"batch_size": int, "width": int, "kernel_size": int, "image_size": int, "dtype": str}
# Two ways to multiply float32, on devices with both: (JAX's name, PyTorch's name, TF32 in cuDNN).
PRECISIONS = {"tf32": ("default", "high", True), "float32": ("highest", "highest", False)}
# Does the same work n times, and returns when it is finished.
Run = Callable[[int], Any]
Row = dict[str, Any]


def plain_parser(description: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """A parser with --json, and a flag for each default (of its type; None is a text)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to which the record is appended as one line")
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=str if default is None else type(default), default=default)
    return parser


def parser(description: str | None, config: str) -> argparse.ArgumentParser:
    """The flags of all benchmarks of networks; `config` is the default of --config."""
    parser = plain_parser(description)
    parser.add_argument("--config", default=config, help="configs/NAME.py or configs/NAME.py:RECIPE")
    for name, kind in FIELD_FLAGS.items():
        parser.add_argument(f"--{name}", type=kind, help=f"replaces the configuration's {name}")
    parser.add_argument("--precision", choices=PRECISIONS, default="tf32", help="of float32 products on accelerators")
    parser.add_argument("--repeats", type=int, default=7, help="turns")
    parser.add_argument("--seconds", type=float, default=0.5, help="approximate length of a turn")
    parser.add_argument("--peak_size", type=int, help="side of the matrices that the peak is measured with")
    parser.add_argument("--kept_peak", type=Path, help="file for the peak, which is measured if it is not there")
    return parser


def load_config(name: str) -> ConfigDict:
    """The configuration in configs/NAME.py or configs/NAME.py:RECIPE."""
    path, _, recipe = name.partition(":")
    return runpy.run_path(path)["get_config"](*[recipe] if recipe else [])


def set_fields(config: ConfigDict, flags: list[str]) -> None:
    """Sets fields from flags such as '--data.path=FOLDER', what `parse_known_args` leaves over."""
    for flag in flags:
        name, _, value = flag.lstrip("-").partition("=")
        config.update_from_flattened_dict({name: type(default_of(name))(value)})


def configuration(options: argparse.Namespace) -> ConfigDict:
    """The validated configuration that the flags of `parser` describe. Also sets JAX's precision."""
    config = load_config(options.config)
    changes = {name: getattr(options, name) for name in FIELD_FLAGS if getattr(options, name)}
    if "image_size" in changes:
        changes["image_size"] = (changes["image_size"],)
    config.update(changes)
    jax.config.update("jax_default_matmul_precision", PRECISIONS[options.precision][0])
    return validate(config)


def title(config: ConfigDict, options: argparse.Namespace) -> str:
    """One line about the device and the network."""
    side = "x".join(map(str, config.image_size))
    precision = f" ({options.precision} products)" if jax.default_backend() != "cpu" else ""
    return (
        f"{jax.devices()[0].device_kind}: {options.config}, {side}, width {config.width}, {config.kernel_size}x"
        f"{config.kernel_size} kernels, batch {config.batch_size}, {config.dtype}{precision}"
    )


def random_batch(config: ConfigDict) -> dict[str, np.ndarray]:
    """Random images for one step, with labels if the configuration has classes."""
    count = config.batch_size * config.discriminator_steps
    shape = (count, *config.image_size, config.channels)
    batch = {"images": np.random.default_rng(0).integers(0, 256, shape, np.uint8)}
    if config.num_classes:
        batch["labels"] = np.arange(count, dtype=np.int32) % config.num_classes
    return batch


def waiting(function: Callable, *arguments: Any) -> Run:
    """A run of a JAX function on arguments that it does not donate."""

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
    """Seconds per call of each run, in each of `repeats` rounds over all of them."""
    calls = {}
    for name, run in runs.items():
        run(1)  # compiles
        calls[name] = max(1, round(seconds / _seconds(run, 1)))
    rounds = [{name: _seconds(run, calls[name]) for name, run in runs.items()} for _ in range(repeats)]
    return {name: [times[name] for times in rounds] for name in runs}


def ratio(slow: list[float], fast: list[float]) -> float:
    """How many times as fast `fast` is: the median over pairs of neighbours."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def peak(dtype: str, repeats: int, size: int | None = None) -> Row:
    """Operations per second of a large matrix product and a large convolution on one device, the best of all repeats.

    'peak' is the larger one. size: side of the matrices.
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


def kept_peak(options: argparse.Namespace, dtype: str) -> Row:
    """`peak`, or what another process measured on such a device and left in the file of --kept_peak."""
    name = f"{jax.devices()[0].device_kind}, {dtype}, {options.precision}"
    known = json.loads(options.kept_peak.read_text()) if options.kept_peak and options.kept_peak.exists() else {}
    if name not in known:
        known[name] = peak(dtype, options.repeats, options.peak_size)
        if options.kept_peak:
            options.kept_peak.write_text(json.dumps(known))
    return known[name]


def in_new_process(*arguments: str, **environment: str) -> Any:
    """Runs the current script with other arguments; returns the JSON in the last line that it prints."""
    done = subprocess.run(
        [sys.executable, sys.argv[0], *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: list[Row]) -> str:
    """Rows as aligned text, with a column for each field; cells of missing fields are empty."""
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


def report(options: argparse.Namespace, rows: list[Row], **more: Any) -> None:
    """Prints the rows as a table, and appends a record of them to the file of --json."""
    print(table(rows), flush=True)
    record(options, rows, **more)


def record(options: argparse.Namespace, rows: list[Row], **more: Any) -> None:
    """Appends one line to the file of --json, if given: device, versions, options, `more`, rows."""
    if not options.json:
        return
    device = jax.devices()[0]
    known = [name for name in ("jax", "jaxlib", "flax", "torch") if importlib.util.find_spec(name)]
    line = {
        # PyTorch's threads spin while they wait: on cores that others use, it is far slower than alone.
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
    """Prints the records in the files that the command line names as tables, with a row for each run."""
    tables: dict[str, dict[str, Row]] = {}
    for line in (line for name in sys.argv[1:] for line in Path(name).read_text().splitlines()):
        known = json.loads(line)
        for row in known["rows"]:
            row = known.get("network", {}) | row
            what = next((name for name in ("who", "form", "kind", "ms_a_call") if name in row), "")
            rows = tables.setdefault(what, {})
            run = [row.get(name) for name in ("config", "batch", "dtype", "who")]
            rows.setdefault(str(run) if what == "who" else str(len(rows)), {}).update(row)
    for rows in tables.values():
        print(table(list(rows.values())))


if __name__ == "__main__":
    main()
