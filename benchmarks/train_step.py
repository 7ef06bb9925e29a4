"""Training steps per second, against PyTorch: python benchmarks/train_step.py --config=configs/NAME.py[:RECIPE]

    --peer=torch            PyTorch's DCGAN of the same configuration (benchmarks/torch_dcgan.py), in turns with ours
    --steps_per_call=1,16   ours with one step per call of the compiled program, and with 16 (lax.scan)
    --profile               where our time goes, by kind of operation

Ours is `steps.train_step`, compiled, with its state donated and the batch on the device. Printed are images per second;
the rate of the operations counted in benchmarks/flops.py and its share of the device's peak, measured in the same run;
the memory of a step; and how many times as fast ours is, the median over pairs of neighbours. A mode of the peer that
fails is reported in its row. For several devices see benchmarks/scaling.py.
"""

import argparse
import functools
import re
import statistics
import tempfile
from collections import Counter
from pathlib import Path

import flops
import jax
import measure
from ml_collections import ConfigDict

from dcgan_jax import state, steps

PROFILED_CALLS = 5


def ours(config: ConfigDict, steps_per_call: int) -> tuple[measure.Run, int]:
    """Calls of `steps_per_call` of our steps, on batches on the device; and the bytes that a call takes."""
    train_step = functools.partial(steps.train_step, steps.from_config(config))
    batches = jax.device_put(measure.random_batch(config))
    program = train_step
    if steps_per_call > 1:
        batches = jax.tree.map(lambda array: jax.numpy.stack([array] * steps_per_call), batches)

        def program(current, batches):
            return jax.lax.scan(train_step, current, batches)

    current = state.create(config)
    # The moving average starts as the generator itself, but a donated state must not hold an array twice.
    current = jax.tree.map(lambda array: array.copy(), current)
    compiled = jax.jit(program, donate_argnums=0).lower(current, batches).compile()
    held = compiled.memory_analysis()
    size = held.temp_size_in_bytes + held.argument_size_in_bytes + held.output_size_in_bytes - held.alias_size_in_bytes

    def run(calls: int) -> None:
        nonlocal current
        for _ in range(calls):
            current, metrics = compiled(current, batches)
        jax.block_until_ready((current, metrics))

    return run, size


def peers(config: ConfigDict, options: argparse.Namespace) -> tuple[dict[str, measure.Run], list[measure.Row]]:
    """PyTorch's modes that run here, and a row for each mode: its memory, or why it failed."""
    try:
        import torch_dcgan
    except ImportError as error:
        return {}, [{"who": "torch", "failed": f"not installed ({error.name})"}]
    torch_dcgan.set_precision(options.precision)
    runs, rows = {}, []
    for mode in options.modes.split(",") if options.modes else torch_dcgan.MODES:
        row = {"who": f"torch {mode}"}
        torch_dcgan.memory()
        try:
            runs[row["who"]] = torch_dcgan.training(config, mode)
            runs[row["who"]](3)  # compiles; some of it only in the second step
            row["MiB"] = (torch_dcgan.memory() or 0) / 2**20 or None
        except Exception as error:  # whatever PyTorch raises: the other modes are still worth comparing
            runs.pop(row["who"], None)
            row["failed"] = torch_dcgan.one_line(error)
        rows.append(row)
    return runs, rows


def kinds_of_work(run: measure.Run) -> list[measure.Row]:
    """Milliseconds per call by kind of operation, longest first; with several threads the sum exceeds the call's."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run(PROFILED_CALLS)
        (path,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(path))
    times: Counter[str] = Counter()
    for event in (event for plane in profile.planes for line in plane.lines for event in line.events):
        operation = dict(event.stats).get("hlo_op")
        if operation:
            times[re.sub(r"[.\d]+$", "", str(operation))] += event.duration_ns
    total = sum(times.values())
    return [
        {"kind": kind, "ms_a_call": nanoseconds / PROFILED_CALLS / 1e6, "share": nanoseconds / total}
        for kind, nanoseconds in times.most_common(15)
    ]


def main() -> None:
    parser = measure.parser(__doc__, "configs/celeba.py")
    parser.add_argument("--peer", choices=["torch"])
    parser.add_argument("--modes", help="of the peer, such as eager,compiled; by default all")
    parser.add_argument("--steps_per_call", default="1", help="one number, or several such as 1,16")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    config = measure.configuration(options)
    print(measure.title(config, options), flush=True)

    runs, rows, steps_of = {}, [], {}
    for count in map(int, options.steps_per_call.split(",")):
        name = "ours" if count == 1 else f"ours, {count} steps a call"
        runs[name], size = ours(config, count)
        steps_of[name] = count
        rows.append({"who": name, "MiB": size / 2**20})
    if options.peer:
        their_runs, their_rows = peers(config, options)
        runs, rows = runs | their_runs, rows + their_rows
    peak = measure.peak(config.dtype, options.repeats, options.peak_size)
    times = measure.in_turns(runs, options.repeats, options.seconds)
    times = {name: [seconds / steps_of.get(name, 1) for seconds in column] for name, column in times.items()}

    work = config.batch_size * flops.train_step(config)
    finished = [_row(row, times, list(steps_of), config.batch_size, work, peak["peak"]) for row in rows]
    summary = _against_the_fastest(times, list(steps_of))
    print(measure.table(finished))
    print(f"peak {peak['peak'] / 1e9:.0f} GFLOP/s (the better of a matrix product and a convolution, {config.dtype})")
    print(*(f"{name} is {ratio:.2f} times as fast as {peer}" for name, peer, ratio in summary), sep="\n")
    profile = kinds_of_work(runs[next(iter(steps_of))]) if options.profile else []
    if profile:
        print(measure.table(profile))
    network = {"config": options.config, "batch": config.batch_size, "dtype": config.dtype}
    measure.record(
        options, finished, network=network, peak=peak, against_the_fastest=summary, profile=profile, seconds=times
    )


def _row(row: measure.Row, times: dict, ours: list[str], batch_size: int, work: int, peak: float) -> measure.Row:
    failed = {name: row[name] for name in ("failed",) if name in row}
    if row["who"] not in times:
        return {"who": row["who"], **failed}
    seconds = statistics.median(times[row["who"]])
    ratios = {f"{name} is": measure.ratio(times[row["who"]], times[name]) for name in ours}
    rates = {"images/s": batch_size / seconds, "GFLOP/s": work / seconds / 1e9, "of_peak": work / seconds / peak}
    return {"who": row["who"], "ms": 1e3 * seconds, **rates, "MiB": row["MiB"], **ratios}


def _against_the_fastest(times: dict, ours: list[str]) -> list[tuple[str, str, float]]:
    """(ours, the fastest mode of the peer, the ratio) for each way of running ours."""
    theirs = {name: statistics.median(column) for name, column in times.items() if name not in ours}
    if not theirs:
        return []
    fastest = min(theirs, key=theirs.get)
    return [(name, fastest, measure.ratio(times[fastest], times[name])) for name in ours]


if __name__ == "__main__":
    main()
