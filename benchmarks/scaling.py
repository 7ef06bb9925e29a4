"""What devices send each other in a step, and an estimate for many devices: python benchmarks/scaling.py

For 1, 2, 4 and 8 virtual CPU devices it compiles the training step, with synchronised batch norm and without, and reads
the collectives out of the compiled program: their number, and the bytes of their results on one device. Neither depends
on the batch. On accelerators XLA may join more of them into one than on CPUs.

Then follows an estimate, not a measurement, of weak scaling (each device keeps its share of the batch) up to 256
devices. On a ring of n, an all-gather or a reduce-scatter sends n - 1 messages one after another, each as large as one
device's part, and an all-reduce is one of each (Thakur, Rabenseifner and Gropp, "Optimization of Collective
Communication Operations in MPICH", 2005; Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
workstations", 2009):

    all-gather, reduce-scatter:  (n - 1) (latency + part / bandwidth)
    all-reduce of S bytes:     2 (n - 1) (latency + S / n / bandwidth)

All collectives of the step are added up, none is hidden behind computation, and there is a single ring: this is
pessimistic. Efficiency is step / (step + collectives).

    --step_ms      a step on one device, measured there (benchmarks/train_step.py); without it there is no estimate
    --gigabytes    per second over a link, in one direction; --microseconds: latency of a message
"""

import functools
import json
import math
import os
import re
import sys

import jax
import measure
from ml_collections import ConfigDict

from dcgan_jax import state, steps
from dcgan_jax.runtime.devices import AXIS

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
COLLECTIVE = re.compile(r"= (.+?) (all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)(?:-start)?\(")
SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
RING_SIZES = (2, 4, 8, 16, 32, 64, 128, 256)


def collectives(text: str) -> dict[str, list[int]]:
    """The bytes of each collective's result in a compiled program's text, by kind."""
    sizes: dict[str, list[int]] = {}
    for results, kind in COLLECTIVE.findall(text):
        arrays = SHAPE.findall(results)
        size = sum(BYTES[dtype] * math.prod(map(int, filter(None, sides.split(",")))) for dtype, sides in arrays)
        sizes.setdefault(kind, []).append(size)
    return sizes


def compiled_text(config: ConfigDict) -> str:
    """The program of one step over all devices of this process, with two images on each."""
    count = jax.local_device_count()
    config.batch_size = 2
    batch = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), measure.random_batch(config))
    replicated = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), (state.abstract(config), batch)
    )
    step = functools.partial(steps.train_step, steps.from_config(config, AXIS))
    return jax.pmap(step, axis_name=AXIS).lower(*replicated).compile().as_text()


def ring_seconds(kind: str, size: float, devices: int, bandwidth: float, latency: float) -> float:
    """Seconds of one collective on a ring; size: bytes to reduce, or one device's part of what is gathered."""
    if kind == "all-reduce":
        return 2 * (devices - 1) * (latency + size / devices / bandwidth)
    return (devices - 1) * (latency + size / bandwidth)


def parts(sizes: dict[str, list[int]], devices: int) -> list[tuple[str, float]]:
    """(kind, size as `ring_seconds` takes it) of each collective; sizes: of results on so many devices."""
    return [(kind, size / devices if kind == "all-gather" else size) for kind in sizes for size in sizes[kind]]


def measured(devices: int, synchronised: bool) -> dict[str, list[int]]:
    """The collectives on so many virtual devices; their number is fixed when a process starts."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    arguments = (*sys.argv[1:], f"--child={int(synchronised)}")
    return measure.in_new_process(*arguments, XLA_FLAGS=flags, JAX_PLATFORMS="cpu")


def main() -> None:
    parser = measure.parser(__doc__, "configs/lsun_bedroom.py")
    parser.add_argument("--devices", default="1,2,4,8")
    parser.add_argument("--step_ms", type=float)
    parser.add_argument("--gigabytes", type=float, default=50.0)
    parser.add_argument("--microseconds", type=float, default=1.0)
    parser.add_argument("--child", type=int, help="0 or 1, used by the script itself")
    options = parser.parse_args()
    config = measure.configuration(options)
    if options.child is not None:
        config.sync_batch_norm = bool(options.child)
        print(json.dumps(collectives(compiled_text(config))))
        return

    rows, sent = [], {}
    for synchronised in (True, False):
        for devices in map(int, options.devices.split(",")):
            sizes = measured(devices, synchronised)
            row = {"sync_batch_norm": str(synchronised), "devices": devices}
            for kind, results in (sizes or {"all-reduce": []}).items():
                row |= {kind: len(results), f"{kind} MB": sum(results) / 1e6}
            rows.append(row)
            # A single device sends nothing, even if its program has collectives.
            sent[synchronised] = parts(sizes, devices) if devices > 1 else []
    print(f"{options.config}: collectives of a step\n{measure.table(rows)}")

    estimate = []
    for devices in RING_SIZES if options.step_ms else ():
        row = {"devices": devices}
        for synchronised, name in ((True, "synchronised"), (False, "not synchronised")):
            link = (1e9 * options.gigabytes, 1e-6 * options.microseconds)
            seconds = sum(ring_seconds(kind, size, devices, *link) for kind, size in sent[synchronised])
            row |= {
                f"{name} ms": 1e3 * seconds,
                f"{name} efficiency": options.step_ms / (options.step_ms + 1e3 * seconds),
            }
        estimate.append(row)
    if estimate:
        print(
            f"estimate, by the formula above: a step of {options.step_ms:g} ms, links of {options.gigabytes:g} GB/s, "
            f"{options.microseconds:g} us\n{measure.table(estimate)}"
        )
    measure.record(options, rows, estimate=estimate)


if __name__ == "__main__":
    main()
