"""How long one waits: for the import, for the first samples of a run, and for the first step of training.

    python benchmarks/startup.py [--config=configs/digits.py] [--repeats=3] [--json=FILE] [--KEY=VALUE ...]

Each time is taken in a new process, its start included, and is the median of `repeats`. 'first' has an empty
compilation cache, 'second' the one that the first left; neither is the user's own, and the images are prepared
beforehand. The compile time is the sum over all functions, which for the second start are read. KEY is a field of the
configuration, such as data.path.
"""

import argparse
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

ROOT = Path(__file__).resolve().parent.parent

# What a process runs: it tells of a moment, or of a sum of seconds, as one line of JSON.
IMPORT = """
import sys
sys.path.insert(0, ROOT)
import dcgan_jax
tell(import_s=now())
"""
SAMPLE = """
import sys
sys.path.insert(0, ROOT)
import dcgan_jax
gan = dcgan_jax.load(WORKDIR)
tell(load_s=now())
gan.sample(1)
tell(sample_s=now())
"""
TRAIN = """
import os, runpy, sys
os.chdir(ROOT)
sys.path[:0] = [ROOT, ROOT + "/launch"]
import jax
seconds = [0.0]
def listen(event, duration, **_):
    if event == "/jax/core/compile/backend_compile_duration":
        seconds[0] += duration
jax.monitoring.register_event_duration_secs_listener(listen)
from dcgan_jax import parallel
map_step = parallel.map_step
def timed(step):
    mapped = map_step(step)
    told = []
    def first(*arguments):
        result = mapped(*arguments)
        if not told:
            told.append(jax.block_until_ready(result))
            tell(first_step_s=now(), compile_s=seconds[0])
        return result
    return first
parallel.map_step = timed
sys.argv = ["launch/train.py", *ARGUMENTS]
runpy.run_path("launch/train.py", run_name="__main__")
"""


def told_by(program: str, caches: Path, **values: object) -> dict[str, float]:
    """What a program tells, in a new process: times count from just before it is started."""
    head = [f"{name} = {value!r}" for name, value in values.items()]
    head += [
        "import json, time",
        "def now(): return time.time() - BEGAN",
        "def tell(**seconds): print(json.dumps(seconds), flush=True)",
    ]
    cached = ("COMPILATION_CACHE", "PERSISTENT_CACHE")
    environment = {name: value for name, value in os.environ.items() if not any(word in name for word in cached)}
    head.insert(0, f"BEGAN = {time.time()!r}")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*head, program])],
        env=environment | {"XDG_CACHE_HOME": str(caches)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    told: dict[str, float] = {}
    for line in done.stdout.splitlines():
        told |= json.loads(line)
    return told


def runs(config: str, fields: list[str], folder: Path) -> dict[str, float]:
    """One measurement of everything, with a compilation cache that is empty at first."""
    caches, workdir = folder / "caches", folder / "run"
    arguments = [
        f"--config={config}",
        f"--workdir={workdir}",
        "--config.num_steps=1",
        *(f"--config.{field.lstrip('-')}" for field in fields),
    ]
    found = {}
    found["import"] = told_by(IMPORT, caches, ROOT=str(ROOT))["import_s"]
    for start in ("first", "second"):
        shutil.rmtree(workdir, ignore_errors=True)
        told = told_by(TRAIN, caches, ROOT=str(ROOT), ARGUMENTS=arguments)
        found[f"first step, {start} start"] = told["first_step_s"]
        found[f"compilation, {start} start"] = told["compile_s"]
    for start in ("first", "second"):
        told = told_by(SAMPLE, folder / "caches_of_samples", ROOT=str(ROOT), WORKDIR=str(workdir))
        found[f"load, {start} time"] = told["load_s"]
        found[f"load and first sample, {start} time"] = told["sample_s"]
    shutil.rmtree(folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/digits.py")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file to which the record is added as one line")
    arguments, fields = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        if not any(field.lstrip("-").startswith("data.prepared") for field in fields):
            fields.append(f"data.prepared={temporary}/prepared")
        runs(arguments.config, fields, Path(temporary) / "warm")  # reads everything from the disk once, and prepares
        found = [runs(arguments.config, fields, Path(temporary) / str(i)) for i in range(arguments.repeats)]
    seconds = {name: round(statistics.median(run[name] for run in found), 3) for name in found[0]}
    rows = [{"what": name, "seconds": value} for name, value in seconds.items()]
    print(measure.table(rows))
    measure.record(arguments, rows, fields=[field for field in fields if "data.p" not in field])


if __name__ == "__main__":
    main()
