"""Waiting times: for the import, for a run's first samples, and for the first step of training.

    python benchmarks/startup.py [--config=configs/digits.py] [--repeats=3] [--json=FILE] [--KEY=VALUE ...]

Each time includes the start of a new process and is the median of `repeats`. The 'first' start has an empty compilation
cache, the 'second' the one that the first left; the user's own cache is not used, and images are prepared beforehand.
'compilation' is the sum over all functions; in the second start it is the time to read them from the cache. KEY is a
field of the configuration, such as data.path.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure
from measure import ROOT

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
compiling = [0.0]
def listen(event, duration, **_):
    if event == "/jax/core/compile/backend_compile_duration":
        compiling[0] += duration
jax.monitoring.register_event_duration_secs_listener(listen)
from dcgan_jax.runtime import devices
map_step = devices.map_step
def map_timed(step, **options):
    mapped = map_step(step, **options)
    done = []
    def timed(*arguments):
        result = mapped(*arguments)
        if not done:
            done.append(jax.block_until_ready(result))
            tell(first_step_s=now(), compile_s=compiling[0])
        return result
    return timed
devices.map_step = map_timed
sys.argv = ["launch/train.py", *ARGUMENTS]
runpy.run_path("launch/train.py", run_name="__main__")
"""


def run_program(program: str, caches: Path, **values: object) -> dict[str, float]:
    """Runs a program in a new process; returns the numbers that it tells. values: its global names."""
    names = ("COMPILATION_CACHE", "PERSISTENT_CACHE")
    environment = {name: value for name, value in os.environ.items() if not any(word in name for word in names)}
    values |= {"ROOT": str(ROOT), "BEGAN": time.time()}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(f"{name} = {value!r}" for name, value in values.items()) + COMMON + program],
        env=environment | {"XDG_CACHE_HOME": str(caches)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds: dict[str, float] = {}
    for line in done.stdout.splitlines():
        seconds |= json.loads(line)
    return seconds


def one_round(config: str, fields: list[str], folder: Path) -> dict[str, float]:
    """All times, with a compilation cache that is empty at first."""
    caches, workdir = folder / "caches", folder / "run"
    arguments = [
        f"--config={config}",
        f"--workdir={workdir}",
        "--config.num_steps=1",
        *(f"--config.{field.lstrip('-')}" for field in fields),
    ]
    times = {"import": run_program(IMPORT, caches)["import_s"]}
    for start in ("first", "second"):
        shutil.rmtree(workdir, ignore_errors=True)
        seconds = run_program(TRAIN, caches, ARGUMENTS=arguments)
        times[f"first step, {start} start"] = seconds["first_step_s"]
        times[f"compilation, {start} start"] = seconds["compile_s"]
    for start in ("first", "second"):
        seconds = run_program(SAMPLE, folder / "caches_of_samples", WORKDIR=str(workdir))
        times[f"load, {start} time"] = seconds["load_s"]
        times[f"load and first sample, {start} time"] = seconds["sample_s"]
    shutil.rmtree(folder)
    return times


def main() -> None:
    options, fields = measure.plain_parser(__doc__, config="configs/digits.py", repeats=3).parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        if not any(field.lstrip("-").startswith("data.prepared") for field in fields):
            fields.append(f"data.prepared={temporary}/prepared")
        one_round(options.config, fields, Path(temporary) / "warm")  # reads all files from the disk, and prepares
        rounds = [one_round(options.config, fields, Path(temporary) / str(i)) for i in range(options.repeats)]
    rows = [
        {"what": name, "seconds": round(statistics.median(times[name] for times in rounds), 3)} for name in rounds[0]
    ]
    measure.report(options, rows, fields=[field for field in fields if "data.p" not in field])


if __name__ == "__main__":
    main()
