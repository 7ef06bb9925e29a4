"""What a step of training costs in memory and time, by batch size, resolution and width.

    python benchmarks/memory.py [--batch=16,64,128] [--resolution=32,64,128,256] [--width=32,64,128]
                                [--sides=64] [--widths=64] [--batches=64] [--steps=5] [--json=FILE] [--KEY=VALUE ...]

One row for each batch size at `sides` and `widths`, then for each resolution, then for each width, the other two
at `sides`, `widths` and `batches`. An empty list (--width=) leaves a sweep out. Each row is a new process with one
device and random images; KEY is a field of the configuration, such as kernel_size or dtype.

arguments, results, temporary: what XLA says of the compiled step; the donated state is counted once, in the arguments.
peak: on a CPU the largest resident memory of the process while steps run, Python and JAX included (`before`: that
just before them, with the state and compiled step); on an accelerator the most that was ever in use on the device.
step: the median of `steps`, after one that does not count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import measure
import numpy as np

from dcgan_jax import state as states
from dcgan_jax import steps
from dcgan_jax.config import check_field, default_config, validate

MEBIBYTE = 2**20


def resident(entry: str) -> int | None:
    """Bytes that this process holds: 'VmRSS' now, 'VmHWM' at most. None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(entry)), None)


def forget_peak() -> None:
    """Lets VmHWM count from here: compiling takes more than the step does."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as error:
        print(f"the peak includes compiling ({error})", file=sys.stderr)


def one_row(fields: dict[str, Any], count: int) -> dict[str, Any]:
    """One row: the step of this configuration, compiled and run `count` times."""
    config = default_config()
    config.update(fields)
    config = validate(config)
    device = jax.local_devices()[0]
    shape = (config.batch_size, *config.image_size, config.channels)
    batch = {"images": np.random.default_rng(0).integers(0, 256, shape, np.uint8)}
    if config.num_classes:
        batch["labels"] = np.arange(config.batch_size, dtype=np.int32) % config.num_classes
    state, batch = jax.device_put((jax.device_get(states.create(config)), batch), device)
    began = time.perf_counter()
    step = jax.jit(steps.make_train_step(config), donate_argnums=0).lower(state, batch).compile()
    compile_s = time.perf_counter() - began
    told = step.memory_analysis()

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
        "arguments": told.argument_size_in_bytes,
        "results": told.output_size_in_bytes - told.alias_size_in_bytes,
        "temporary": told.temp_size_in_bytes,
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


def in_a_process_of_its_own(fields: dict[str, Any], count: int) -> dict[str, Any]:
    """`one_row` where nothing was compiled or allocated before."""
    done = subprocess.run(
        [sys.executable, __file__, f"--row={json.dumps(fields)}", f"--steps={count}"],
        # What was read from a cache would not tell its memory.
        env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "0"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def sweeps(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The fields of each row, none of them twice."""
    base = {"batch_size": arguments.batches, "image_size": arguments.sides, "width": arguments.widths}
    rows = []
    for name, values in (
        ("batch_size", arguments.batch),
        ("image_size", arguments.resolution),
        ("width", arguments.width),
    ):
        rows += [row for value in values if (row := base | {name: value}) not in rows]
    return [row | {"image_size": [row["image_size"]] * 2} for row in rows]


def numbers(text: str) -> list[int]:
    """'16,64' as numbers."""
    return [int(number) for number in text.split(",") if number]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=numbers, default=[16, 64, 128])
    parser.add_argument("--resolution", type=numbers, default=[32, 64, 128, 256])
    parser.add_argument("--width", type=numbers, default=[32, 64, 128])
    parser.add_argument("--batches", type=int, default=64)
    parser.add_argument("--sides", type=int, default=64)
    parser.add_argument("--widths", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to which the record is added as one line")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    arguments, others = parser.parse_known_args()
    if arguments.row is not None:
        print(json.dumps(one_row(arguments.row, arguments.steps)))
        return
    fields = {}
    for other in others:
        name, _, value = other.lstrip("-").partition("=")
        fields[name] = type(check_field(name))(value)

    rows = [in_a_process_of_its_own(row | fields, arguments.steps) for row in sweeps(arguments)]
    print(measure.table(rows))
    measure.record(arguments, rows, fields=fields)


if __name__ == "__main__":
    main()
