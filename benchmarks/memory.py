"""Memory and time of a training step, by batch size, resolution and width.

    python benchmarks/memory.py [--batch=16,64,128] [--resolution=32,64,128,256] [--width=32,64,128]
                                [--sides=64] [--widths=64] [--batches=64] [--steps=5] [--json=FILE] [--KEY=VALUE ...]
    python benchmarks/memory.py --largest [--config=configs/lsun_bedroom.py] [--start=64] [--limit_gb=16]
                                [--json=FILE] [--KEY=VALUE ...]

There is a row for each batch size at `sides` and `widths`, then for each resolution, then for each width, with the
other two at `sides`, `widths` and `batches`. An empty list (--width=) leaves out a sweep. Each row is measured in a new
process, on one device and random images; KEY is a field of the configuration, such as kernel_size or dtype.

arguments, results, temporary: XLA's numbers for the compiled step; the donated state counts once, in the arguments.
peak: on a CPU the largest resident memory of the process while steps run, including Python and JAX (`before`: just
before them, with the state and the compiled step); on an accelerator the largest amount in use on the device.
step: the median of `steps`, after one that does not count.

--largest: the largest batch of a configuration that fits, to 1/16 of it, by doubling from `start` and then by halves. A
batch fits if a step of it runs, in a process of its own that takes memory as training does; with --limit_gb (which a
CPU needs) if XLA's numbers for the compiled step, which is not run, come to no more than that many 10^9 bytes.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import measure
from ml_collections import ConfigDict

from dcgan_jax import state as states
from dcgan_jax import steps
from dcgan_jax.config import default_config, default_of, validate

MEBIBYTE = 2**20
PRECISION = 16  # of the largest batch: each further trial compiles another step


def resident(entry: str) -> int | None:
    """Resident bytes of this process, 'VmRSS' now or 'VmHWM' at most; None if the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(entry)), None)


def forget_peak() -> None:
    """Resets VmHWM: compiling takes more memory than the step."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        print(f"the peak includes compiling ({error})", file=sys.stderr)


def one_row(fields: dict[str, Any], count: int) -> measure.Row:
    """The row of this configuration: its step is compiled and run `count` times."""
    config = default_config()
    config.update(fields)
    config = validate(config)
    device = jax.local_devices()[0]
    state, batch = jax.device_put((jax.device_get(states.create(config)), measure.random_batch(config)), device)
    train_step = functools.partial(steps.train_step, steps.from_config(config))
    began = time.perf_counter()
    step = jax.jit(train_step, donate_argnums=0).lower(state, batch).compile()
    compile_s = time.perf_counter() - began
    analysis = step.memory_analysis()

    state, _ = jax.block_until_ready(step(state, batch))
    forget_peak()
    before = resident("VmRSS")
    durations = []
    for _ in range(count):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        durations.append(time.perf_counter() - began)
    used = device.memory_stats()
    sizes = {
        "arguments": analysis.argument_size_in_bytes,
        "results": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "temporary": analysis.temp_size_in_bytes,
        "before": None if used else before,
        "peak": used["peak_bytes_in_use"] if used else resident("VmHWM"),
    }
    seconds = statistics.median(durations)
    return {
        "batch": config.batch_size,
        "resolution": config.image_size[0],
        "width": config.width,
        **{f"{name} MiB": size and size / MEBIBYTE for name, size in sizes.items()},
        "step s": seconds,
        "images/s": config.batch_size / seconds,
        "compile s": compile_s,
    }


def sweeps(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The fields of each row, without repetitions."""
    base = {"batch_size": options.batches, "image_size": options.sides, "width": options.widths}
    rows = []
    for name, values in (
        ("batch_size", options.batch),
        ("image_size", options.resolution),
        ("width", options.width),
    ):
        rows += [row for value in values if (row := base | {name: value}) not in rows]
    return [row | {"image_size": [row["image_size"]] * 2} for row in rows]


def largest(fits: Callable[[int], bool], start: int) -> int:
    """The largest batch that fits, to 1/16 of it, by doubling or halving from `start` and then by halves; 0 if none."""
    low, high = 0, start
    while fits(high):
        low, high = high, 2 * high
    while not low and high > 1:
        low, high = (high // 2, high) if fits(high // 2) else (0, high // 2)
    gap = max(1, low // PRECISION)
    while low and high - low > gap:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def one_trial(config: ConfigDict, limit_gb: float) -> measure.Row:
    """Whether a step of this configuration fits."""
    train_step = jax.jit(functools.partial(steps.train_step, steps.from_config(config)), donate_argnums=0)
    batch = measure.random_batch(config)
    if limit_gb:
        analysis = train_step.lower(states.abstract(config), batch).compile().memory_analysis()
        needed = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
        needed += analysis.temp_size_in_bytes
        return {"batch": config.batch_size, "needed GB": needed / 1e9, "fits": needed <= limit_gb * 1e9}
    try:
        jax.block_until_ready(train_step(states.create(config), jax.device_put(batch)))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"batch": config.batch_size, "fits": False}
    used = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {"batch": config.batch_size, "needed GB": used and used / 1e9, "fits": True}


def search(options: argparse.Namespace, flags: list[str]) -> list[measure.Row]:
    """A row for each trial, the largest batch that fits marked."""
    rows: list[measure.Row] = []

    def fits(batch: int) -> bool:
        arguments = (
            "--largest",
            f"--trial={batch}",
            f"--config={options.config}",
            f"--limit_gb={options.limit_gb}",
            *flags,
        )
        # Training takes its share of a card at once. The cache is off, as for the rows.
        environment = dict(XLA_PYTHON_CLIENT_PREALLOCATE="true", JAX_ENABLE_COMPILATION_CACHE="0")
        try:
            rows.append(measure.in_new_process(*arguments, **environment))
        except subprocess.CalledProcessError as error:
            if error.returncode > 0:  # a mistake, which it has told; below 0 a signal: the system's memory is full
                sys.exit(error.returncode)
            rows.append({"batch": batch, "fits": False})
        return rows[-1]["fits"]

    found = largest(fits, options.start)
    return [row | {"largest": "*" if row["batch"] == found else ""} for row in rows]


def numbers(text: str) -> list[int]:
    """'16,64' as numbers."""
    return [int(number) for number in text.split(",") if number]


def main_largest() -> None:
    """The command with --largest."""
    parser = measure.plain_parser(__doc__, config="configs/lsun_bedroom.py", limit_gb=0.0, start=64)
    parser.add_argument("--largest", action="store_true")
    parser.add_argument("--trial", type=int, help=argparse.SUPPRESS)
    options, flags = parser.parse_known_args()
    if not options.limit_gb and jax.default_backend() == "cpu":
        parser.error("--limit_gb: missing, expected the GB that a step may take, as a CPU's memory is no limit")
    if options.trial is None:
        measure.report(options, search(options, flags), flags=flags)
        return
    config = measure.load_config(options.config)
    measure.set_fields(config, [*flags, f"--batch_size={options.trial}"])
    print(json.dumps(one_trial(validate(config), options.limit_gb)))


def main() -> None:
    parser = measure.plain_parser(__doc__, batches=64, sides=64, widths=64, steps=5)
    parser.add_argument("--batch", type=numbers, default=[16, 64, 128])
    parser.add_argument("--resolution", type=numbers, default=[32, 64, 128, 256])
    parser.add_argument("--width", type=numbers, default=[32, 64, 128])
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    options, flags = parser.parse_known_args()
    if options.row is not None:
        print(json.dumps(one_row(options.row, options.steps)))
        return
    fields = {}
    for flag in flags:
        name, _, value = flag.lstrip("-").partition("=")
        fields[name] = type(default_of(name))(value)
    # Without a cache: the memory of a program that is read from one is unknown.
    rows = [
        measure.in_new_process(
            f"--row={json.dumps(row | fields)}", f"--steps={options.steps}", JAX_ENABLE_COMPILATION_CACHE="0"
        )
        for row in sweeps(options)
    ]
    measure.report(options, rows, fields=fields)


if __name__ == "__main__":
    main_largest() if "--largest" in sys.argv else main()
