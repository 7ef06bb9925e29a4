"""Training steps per second, against PyTorch: python benchmarks/train_step.py --config=configs/NAME.py[:RECIPE]

    --peer=torch            PyTorch's DCGAN of the same configuration (benchmarks/torch_dcgan.py), in turns with ours
    --steps_per_call=1,16   ours with one step per call of the compiled program, and with 16 (lax.scan)
    --conv=chosen,plain     ours with the convolutions chosen for the device, and with XLA's everywhere; 'fastest': with
                            those that rows of benchmarks/formulations.py in the file of --json show to be
    --profile               where our time goes, by kind of operation
    --calls                 the library calls of our compiled step: kind, result, window, layout, time
    --flags                 our step once more in child processes, each with an XLA flag of `VARIANTS`

Ours is `steps.train_step`, compiled, with its state donated and the batch on the device. Printed are images per second;
the rate of the operations counted in benchmarks/flops.py and its share of the device's peak, measured in the same run;
the memory of a step; and how many times as fast the first of ours is, the median over pairs of neighbours. Every row is
printed, and appended to the file of --json, as soon as it is known: our programs, our times, the peak, then PyTorch's
modes, one by one. A mode that fails is reported in its row. For several devices see benchmarks/scaling.py.
"""

import argparse
import functools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import calls
import flops
import formulations
import jax
import measure
from ml_collections import ConfigDict

from dcgan_jax import state, steps
from dcgan_jax.ops import conv

PROFILED_CALLS = 5
# XLA's flags that `--flags` tries beside the defaults, each alone.
VARIANTS = {
    "defaults": "",
    "no command buffers": "--xla_gpu_enable_command_buffer=",
    "conv fusion": "--xla_gpu_experimental_enable_conv_fusion=true",
    "no Triton products": "--xla_gpu_enable_triton_gemm=false",
    "heuristics alone": "--xla_gpu_autotune_level=0",
}
FORMS = {"chosen": "ours", "plain": "ours, plain", "fastest": "ours, fastest"}

Tell = Callable[..., None]  # writes a row at once


def lowered(config: ConfigDict, form: str, steps_per_call: int, rules: dict) -> jax.stages.Lowered:
    """The program of `steps_per_call` steps; form: one of `FORMS`; rules: of the form 'fastest'."""
    train_step = functools.partial(steps.train_step, steps.from_config(config))
    batches = jax.eval_shape(functools.partial(_batches, config, steps_per_call))
    program = train_step
    if steps_per_call > 1:

        def program(current, batches):
            return jax.lax.scan(train_step, current, batches)

    jax.clear_caches()  # of functions that were traced with other convolutions
    switch = {conv.SWITCH: "plain" if form == "plain" else ""}
    with mock.patch.dict(os.environ, switch), mock.patch.dict(conv.ON_CUDA, rules if form == "fastest" else {}):
        return jax.jit(program, donate_argnums=0).lower(state.abstract(config), batches)


def _batches(config: ConfigDict, steps_per_call: int) -> Any:
    batch = jax.tree.map(jax.numpy.asarray, measure.random_batch(config))
    return batch if steps_per_call == 1 else jax.tree.map(lambda x: jax.numpy.stack([x] * steps_per_call), batch)


def compiled_in_threads(config: ConfigDict, options: argparse.Namespace, tell: Tell) -> tuple[dict, dict, Any]:
    """Our programs by name, how many steps each has, and a state to start from; a row for each program."""

    def compiled(program: jax.stages.Lowered) -> tuple[jax.stages.Compiled, float]:
        began = time.perf_counter()
        return program.compile(), time.perf_counter() - began

    pending, steps_of = {}, {}
    forms = options.conv.split(",")
    rules = formulations.fastest(options.json, config.dtype) if options.json and "fastest" in forms else {}
    if "chosen" in forms and all(conv.ON_CUDA.get(key) == form for key, form in rules.items()):
        forms = [form for form in forms if form != "fastest"]  # those that are chosen already, or none is known
    if "fastest" in forms:
        print("fastest:", rules, flush=True)
    with ThreadPoolExecutor() as pool:
        start = pool.submit(state.create, config)
        for count in map(int, options.steps_per_call.split(",")):
            for form in forms:
                name = FORMS[form] + ("" if count == 1 else f", {count} steps a call")
                name += f", {options.variant}" if options.variant else ""
                steps_of[name] = count
                pending[name] = pool.submit(compiled, lowered(config, form, count, rules))
        programs = {}
        for name, future in pending.items():
            programs[name], seconds = future.result()
            held = programs[name].memory_analysis()
            size = held.temp_size_in_bytes + held.argument_size_in_bytes
            size += held.output_size_in_bytes - held.alias_size_in_bytes
            tell(who=name, compile_s=seconds, MiB=size / 2**20, **calls.counts(programs[name].as_text()))
        return programs, steps_of, start.result()


def running(compiled: jax.stages.Compiled, start: Any, batches: Any) -> measure.Run:
    """Calls of a compiled program from a state, on batches on the device."""
    # A donated state must not be used again, nor hold an array twice: the average starts as the generator itself.
    current = jax.tree.map(lambda array: array.copy(), start)

    def run(calls: int) -> None:
        nonlocal current
        for _ in range(calls):
            current, metrics = compiled(current, batches)
        jax.block_until_ready((current, metrics))

    return run


def compare_with_peers(
    config: ConfigDict, options: argparse.Namespace, ours: tuple[str, measure.Run, int], tell: Tell
) -> None:
    """A row for each of PyTorch's modes: its times in turns with ours, its memory, or why it failed."""
    try:
        import torch_dcgan
    except ImportError as error:
        tell(who="torch", failed=f"not installed ({error.name})")
        return
    torch_dcgan.set_precision(options.precision)
    name, run, count = ours
    for mode in options.modes.split(",") if options.modes else torch_dcgan.MODES:
        who = f"torch {mode}"
        torch_dcgan.memory()
        began = time.perf_counter()
        try:
            theirs = torch_dcgan.training(config, mode)
            theirs(3)  # compiles; some of it only in the second step
            compile_s = time.perf_counter() - began
            times = measure.in_turns({name: run, who: theirs}, options.repeats, options.seconds)
            ours_alone = [seconds / count for seconds in times[name]]
            tell(
                who=who,
                compile_s=compile_s,
                MiB=(torch_dcgan.memory() or 0) / 2**20 or None,
                **_speed(config, times[who]),
                **{f"{name} is": measure.ratio(times[who], ours_alone)},
            )
        except Exception as error:  # whatever PyTorch raises: the other modes are still worth comparing
            tell(who=who, failed=torch_dcgan.one_line(error))


def _speed(config: ConfigDict, times: list[float]) -> measure.Row:
    seconds = statistics.median(times)
    rate = config.batch_size * flops.train_step(config) / seconds
    return {"ms": 1e3 * seconds, "images/s": config.batch_size / seconds, "GFLOP/s": rate / 1e9}


def times_of_operations(run: measure.Run) -> Counter[str]:
    """Milliseconds per call of each operation; with several threads the sum exceeds the call's."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run(PROFILED_CALLS)
        (path,) = Path(folder).rglob("*.xplane.pb")
        profile = jax.profiler.ProfileData.from_file(str(path))
    times: Counter[str] = Counter()
    for event in (event for plane in profile.planes for line in plane.lines for event in line.events):
        operation = dict(event.stats).get("hlo_op")
        if operation:
            times[str(operation)] += event.duration_ns / PROFILED_CALLS / 1e6
    return times


def kinds_of_work(times: Counter[str]) -> list[measure.Row]:
    """Milliseconds per call by kind of operation, longest first."""
    kinds: Counter[str] = Counter()
    for operation, milliseconds in times.items():
        kinds[re.sub(r"[.\d]+$", "", operation)] += milliseconds
    total = sum(times.values())
    return [{"kind": kind, "ms_a_call": ms, "share": ms / total} for kind, ms in kinds.most_common(15)]


def library_calls(text: str, times: Counter[str]) -> list[measure.Row]:
    """A row for each library call of a program, longest first; those in a command buffer have no time."""
    rows = [{"ms_a_call": times.get(call.name), **call._asdict()} for call in calls.of_program(text)]
    return sorted(rows, key=lambda row: -(row["ms_a_call"] or 0))


def in_child_processes(options: argparse.Namespace) -> None:
    """Our step by each of `VARIANTS`, in a process of its own, which writes its rows itself."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--flags" and not argument.startswith("--peer")]
    for name, flag in VARIANTS.items():
        environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}"}
        print(f"== {name} {flag}", flush=True)
        done = subprocess.run([sys.executable, __file__, *arguments, f"--variant={name}"], env=environment)
        if done.returncode:
            print(f"{name}: failed, exit code {done.returncode}", flush=True)


def main() -> None:
    parser = measure.parser(__doc__, "configs/celeba.py")
    parser.add_argument("--peer", choices=["torch"])
    parser.add_argument("--modes", help="of the peer, such as eager,compiled; by default all")
    parser.add_argument("--steps_per_call", default="1", help="one number, or several such as 1,16")
    parser.add_argument("--conv", default="chosen", help="chosen, plain, fastest, or several in turns: chosen,plain")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--calls", action="store_true")
    parser.add_argument("--flags", action="store_true")
    parser.add_argument("--variant", help="a word for the name of ours")
    options = parser.parse_args()
    if options.flags:
        in_child_processes(options)
        return
    config = measure.configuration(options)
    print(measure.title(config, options), flush=True)
    network = {"config": options.config, "batch": config.batch_size, "dtype": config.dtype}

    def tell(**row: Any) -> None:
        measure.report(options, [row], network=network)

    programs, steps_of, start = compiled_in_threads(config, options, tell)
    runs = {
        name: running(program, start, jax.device_put(_batches(config, steps_of[name])))
        for name, program in programs.items()
    }
    times = measure.in_turns(runs, options.repeats, options.seconds)
    times = {name: [seconds / steps_of[name] for seconds in column] for name, column in times.items()}
    first = next(iter(runs))
    for name, column in times.items():
        ratio = {f"{first} is": measure.ratio(column, times[first])} if name != first else {}
        tell(who=name, **_speed(config, column), **ratio)
    if options.profile or options.calls:
        operations = times_of_operations(runs[first])
        text = programs[first].as_text()
        for rows in (kinds_of_work(operations), library_calls(text, operations) if options.calls else []):
            if rows:
                measure.report(options, rows, network=network)
    if options.peer:
        compare_with_peers(config, options, (first, runs[first], steps_of[first]), tell)
    peak = measure.kept_peak(options, config.dtype)
    tell(who="peak: the better of a matrix product and a convolution", **{"GFLOP/s": peak["peak"] / 1e9})
    for name, column in times.items():
        tell(who=name, of_peak=1e9 * _speed(config, column)["GFLOP/s"] / peak["peak"])


if __name__ == "__main__":
    main()
