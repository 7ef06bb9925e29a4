"""Waiting times: for the import, for a run's first samples, and for the first step of training.

    python benchmarks/startup.py [--config=configs/digits.py] [--repeats=3] [--other=TREE] [--KEY=VALUE ...]

Each time includes the start of a new process and is the median of `repeats`. The 'first' start has empty caches, but
for the prepared images; the 'second' has what the first left; the user's own caches are not used. 'compilation' is the
sum over all programs, of which some are compiled at the same time; in the second start it is the time to read them from
the cache. At the end the programs of a run of one step are named. KEY is a field of the configuration.

other: another tree of the project, such as a worktree of an earlier commit. Both start in turns, and `ratio` is the
median over the pairs of this tree's time to the other's.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import measure

# The programs of the new processes. `tell` prints numbers as one line of JSON; `now` is the time since the start.
COMMON = """
import json, os, sys, time
os.chdir(ROOT)
sys.path[:0] = [ROOT, ROOT + "/launch"]
def now(): return time.time() - BEGAN
def tell(**seconds): print(json.dumps(seconds), flush=True)
"""
IMPORT = """
import dcgan_jax
tell(import_s=now())
"""
SAMPLE = """
import dcgan_jax
gan = dcgan_jax.load(WORKDIR)
tell(load_s=now())
gan.sample(1)
tell(sample_s=now())
"""
TRAIN = """
import runpy
import jax
compiled = []
def listen(event, duration, **about):
    if event == "/jax/core/compile/backend_compile_duration":
        compiled.append((about.get("fun_name", "?"), duration))
jax.monitoring.register_event_duration_secs_listener(listen)
from dcgan_jax.runtime import dispatch
original, done = dispatch.Dispatcher.__call__, []
def timed(*arguments):
    result = original(*arguments)
    if not done:
        done.append(jax.block_until_ready(result))
        tell(first_step_s=now(), compile_s=sum(seconds for _, seconds in compiled))
    return result
dispatch.Dispatcher.__call__ = timed
sys.argv = ["launch/train.py", *ARGUMENTS]
try:
    runpy.run_path("launch/train.py", run_name="__main__")
finally:
    tell(programs=sorted(name for name, _ in compiled))
"""


def run_program(program: str, root: Path, caches: Path, **values: object) -> dict[str, Any]:
    """Runs a program on a tree in a new process; returns what it tells. values: its global names."""
    names = ("COMPILATION_CACHE", "PERSISTENT_CACHE", "DONTWRITEBYTECODE")  # users have Python's bytecode, too
    environment = {name: value for name, value in os.environ.items() if not any(word in name for word in names)}
    values |= {"ROOT": str(root), "BEGAN": time.time()}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(f"{name} = {value!r}" for name, value in values.items()) + COMMON + program],
        env=environment | {"XDG_CACHE_HOME": str(caches), "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    told: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        told |= json.loads(line) if line.startswith("{") else {}
    return told


def one_round(root: Path, config: str, fields: list[str], folder: Path) -> tuple[dict[str, float], list[str]]:
    """All times of a tree, with caches that are empty at first, and the programs of the first start."""
    caches, workdir = folder / "caches", folder / "run"
    arguments = [
        f"--config={config}",
        f"--workdir={workdir}",
        "--config.num_steps=1",
        *(f"--config.{field.lstrip('-')}" for field in fields),
    ]
    times, programs = {"import": run_program(IMPORT, root, caches)["import_s"]}, {}
    for start in ("first", "second"):
        shutil.rmtree(workdir, ignore_errors=True)
        told = run_program(TRAIN, root, caches, ARGUMENTS=arguments)
        times[f"first step, {start} start"] = told["first_step_s"]
        times[f"compilation, {start} start"] = told["compile_s"]
        programs[start] = told["programs"]
    for start in ("first", "second"):
        told = run_program(SAMPLE, root, folder / "caches_of_samples", WORKDIR=str(workdir))
        times[f"load, {start} time"] = told["load_s"]
        times[f"load and first sample, {start} time"] = told["sample_s"]
    shutil.rmtree(folder)
    return times, programs["first"]


def main() -> None:
    parser = measure.plain_parser(__doc__, config="configs/digits.py", repeats=3)
    parser.add_argument("--other", type=Path, help="another tree of the project, to compare with")
    options, fields = parser.parse_known_args()
    trees = {"this": measure.ROOT} | ({"other": options.other.resolve()} if options.other else {})
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory() as temporary:
        if not any(field.lstrip("-").startswith("data.prepared") for field in fields):
            fields.append(f"data.prepared={temporary}/prepared")
        for name, root in trees.items():  # reads all files from the disk, and prepares
            one_round(root, options.config, fields, Path(temporary) / f"warm_{name}")
        for i in range(options.repeats):
            for name, root in trees.items():
                times, found = one_round(root, options.config, fields, Path(temporary) / f"{name}_{i}")
                rounds[name].append(times)
                if name == "this":
                    programs = found
    compared, options.other = bool(options.other), None  # no machine's paths in records
    rows = []
    for what in rounds["this"][0]:
        row = {"what": what}
        row |= {name: round(statistics.median(times[what] for times in rounds[name]), 3) for name in trees}
        if compared:
            pairs = zip(rounds["this"], rounds["other"], strict=True)
            row["ratio"] = round(statistics.median(ours[what] / theirs[what] for ours, theirs in pairs), 3)
        rows.append(row)
    measure.report(options, rows, fields=[field for field in fields if "data.p" not in field])
    counts = Counter(programs)
    print(f"{len(programs)} programs: " + ", ".join(f"{name} {counts[name]}" for name in sorted(counts)))


if __name__ == "__main__":
    main()
