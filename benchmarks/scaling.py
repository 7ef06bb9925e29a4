"""What the devices tell one another in a step, and what that would cost many of them: python benchmarks/scaling.py

For 1, 2, 4 and 8 virtual CPU devices it compiles the step that training maps over them, with batch norm synchronised
and not, and reads the collectives out of the compiled program: how many, and the bytes of their results on one device.
Neither depends on the batch. Counts are of a program for CPUs; on accelerators XLA may join more of them into one.

Then an estimate, not a measurement: weak scaling (each device keeps its share of the batch) up to 256 devices. On a
ring of n, an all-gather or a reduce-scatter sends n - 1 messages one after another, each as large as one device's part,
and an all-reduce is one of each (Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication Operations
in MPICH", 2005; Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", 2009):

    all-gather, reduce-scatter:  (n - 1) (latency + part / bandwidth)
    all-reduce of S bytes:     2 (n - 1) (latency + S / n / bandwidth)

All collectives of the step are added up and none is hidden behind computation, on a single ring: both are pessimistic.
Efficiency is step / (step + collectives).

    --step_ms      a step on one device, measured there (benchmarks/train_step.py); it has no default
    --gigabytes    a second over a link, in one direction; --microseconds: latency of a message
"""

import json
import os
import re
import subprocess
import sys

import jax
import measure
from ml_collections import ConfigDict

from dcgan_jax import parallel, state, steps

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
COLLECTIVE = re.compile(r"= (.+?) (all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)(?:-start)?\(")
SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
RING = (2, 4, 8, 16, 32, 64, 128, 256)


def collectives(text: str) -> dict[str, list[int]]:
    """The bytes of the result of each collective in a compiled program's text, by kind."""
    found: dict[str, list[int]] = {}
    for results, kind in COLLECTIVE.findall(text):
        size = 0
        for dtype, sides in SHAPE.findall(results):
            count = 1
            for side in filter(None, sides.split(",")):
                count *= int(side)
            size += BYTES[dtype] * count
        found.setdefault(kind, []).append(size)
    return found


def compiled_text(config: ConfigDict) -> str:
    """The program of one step over all devices of this process, two images on each."""
    devices = jax.local_device_count()

    def spread(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((devices, *leaf.shape), leaf.dtype)

    batch = {"images": jax.ShapeDtypeStruct((2, *config.image_size, config.channels), "uint8")}
    if config.num_classes:
        batch["labels"] = jax.ShapeDtypeStruct((2,), "int32")
    step = jax.pmap(steps.make_train_step(config, parallel.AXIS), axis_name=parallel.AXIS)
    return step.lower(*jax.tree.map(spread, (state.abstract(config), batch))).compile().as_text()


def ring_seconds(kind: str, size: float, devices: int, bandwidth: float, latency: float) -> float:
    """Seconds of one collective on a ring; size: bytes that are reduced, or one device's part of what is gathered."""
    if kind == "all-reduce":
        return 2 * (devices - 1) * (latency + size / devices / bandwidth)
    return (devices - 1) * (latency + size / bandwidth)


def parts(found: dict[str, list[int]], devices: int) -> list[tuple[str, float]]:
    """Each collective with the size that `ring_seconds` takes, from the sizes of results on so many devices."""
    return [(kind, size / devices if kind == "all-gather" else size) for kind, sizes in found.items() for size in sizes]


def in_child(devices: int, synchronised: bool) -> dict[str, list[int]]:
    """The collectives on so many virtual devices, whose number is settled when a process starts."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], f"--child={int(synchronised)}"],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


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
            found = in_child(devices, synchronised)
            row = {"sync_batch_norm": str(synchronised), "devices": devices}
            for kind, results in (found or {"all-reduce": []}).items():
                row |= {kind: len(results), f"{kind} MB": sum(results) / 1e6}
            rows.append(row)
            # A single device has nobody to tell, whatever its program still says.
            sent[synchronised] = parts(found, devices) if devices > 1 else []
    print(f"{options.config}: collectives of a step\n{measure.table(rows)}")

    estimate = []
    for devices in RING if options.step_ms else ():
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
