"""What kills, stop requests, damage and changing machines do to a run: nothing, or the counts say what.

    python benchmarks/preemption.py [--kills=50] [--stops=20] [--damages=200] [--resizes=12] [--seed=0]

kills: SIGKILL at random moments of runs of 300 steps of configs/digits.py, half of them while a checkpoint is being
    written, and the same command again after each. Finished runs are compared with an undisturbed one, bit by bit.
stops: SIGTERM at random moments; how soon the process ends, with which exit code, and how many steps are lost.
damages: random damage to random files of the newest checkpoint; what is read afterwards.
resizes: a run in float64 that is stopped or killed and resumed, each time on another number of processes and devices,
    as a scheduler would do it; its final state is compared with that of a run on one device.
"""

import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import measure
import numpy as np
from measure import ROOT

from dcgan_jax.run import checkpoint, trees
from dcgan_jax.runtime.errors import UserError

STEPS, EVERY = 300, 20
FLAGS = (
    *("--config=configs/digits.py", f"--config.num_steps={STEPS}", "--config.log_every=1"),
    *(f"--config.checkpoint_every={EVERY}", "--config.sample_every=100"),
)
SMALL = ("--config.image_size=16", "--config.width=4", "--config.batch_size=8", "--config.dtype=float64")
TOPOLOGIES = ((2, 2), (1, 4), (4, 1), (1, 1), (2, 1))  # (processes, devices of each)


def launch(workdir: Path, *flags: str, devices: int = 1, **environment: str) -> subprocess.Popen:
    """Starts training; its standard error goes to a file beside the run directory."""
    virtual = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "launch/train.py", *flags, f"--workdir={workdir}"],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": virtual, "JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.DEVNULL,
        stderr=log_file(workdir).open("a"),
    )


def launch_together(workdir: Path, processes: int, devices: int, *flags: str, **environment: str) -> list:
    """Starts training on several processes."""
    if processes == 1:
        return [launch(workdir, *flags, devices=devices, **environment)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        joined = (f"--coordinator=127.0.0.1:{free.getsockname()[1]}", f"--num_processes={processes}")
    each = [(*flags, *joined, f"--process_id={i}") for i in range(processes)]
    return [launch(workdir, *own, devices=devices, **environment) for own in each]


def log_file(workdir: Path) -> Path:
    """The file with a run's standard error."""
    return workdir.with_name(f"{workdir.name}.log")


def recorded(workdir: Path) -> list[dict]:
    """The complete lines of metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def is_saving(workdir: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any(workdir.glob("checkpoints/*tmp*"))


def equal(one: Path, other: Path, tolerance: float = 0) -> bool:
    """Whether two runs ended in the same state, and recorded every step once, with the same losses."""
    leaves = [trees.leaves(checkpoint.read(workdir)[0]) for workdir in (one, other)]
    for (path, kind, x), (other_path, other_kind, y) in zip(*leaves, strict=True):
        if (path, kind) != (other_path, other_kind) or np.abs(x.astype(float) - y.astype(float)).max() > tolerance:
            return False
    records = recorded(one), recorded(other)
    if any([line["step"] for line in record] != list(range(1, STEPS + 1)) for record in records):
        return False
    return all(abs(x[k] - y[k]) <= tolerance for x, y in zip(*records, strict=True) for k in ("d_loss", "g_loss"))


def kill_runs(folder: Path, straight: Path, seconds: float, count: int) -> None:
    """Kills runs until there were `count` kills, then lets the last one end; seconds: the length of a run."""
    phases: Counter[str] = Counter()
    finished = wrong = 0
    workdir = folder / "killed_0"
    while phases.total() < count or finished == 0:
        code = _run_and_kill(workdir, seconds, phases) if phases.total() < count else launch(workdir, *FLAGS).wait()
        if code == 0:
            finished += 1
            wrong += not equal(straight, workdir)
            workdir = folder / f"killed_{finished}"
        elif code != -signal.SIGKILL:
            print(f"kills: the command ended with {code}; see {log_file(workdir)}")
            wrong += 1
            break
    in_phases = ", ".join(f"{number} in {phase}" for phase, number in sorted(phases.items()))
    print(
        f"kills: {phases.total()} ({in_phases}); runs finished: {finished}; not bit-equal or a step not once: {wrong}"
    )


def _run_and_kill(workdir: Path, seconds: float, phases: Counter[str]) -> int:
    """The exit code of a run that is killed at a random moment; counts the phase that it was in."""
    log = log_file(workdir)
    size_before = log.stat().st_size if log.exists() else 0
    process = launch(workdir, *FLAGS)
    deadline = time.monotonic() + random.uniform(0, seconds)
    while_saving = random.random() < 0.5
    while process.poll() is None and time.monotonic() < deadline and not (while_saving and is_saving(workdir)):
        time.sleep(0.002)
    if process.poll() is None:
        time.sleep(random.uniform(0, 0.05))
        saving, started = is_saving(workdir), b"\nstep " in log.read_bytes()[size_before:]
        process.kill()
        phases["saving" if saving else "training" if started else "start-up"] += process.wait() == -signal.SIGKILL
    return process.returncode


def stop_runs(folder: Path, seconds: float, count: int) -> None:
    """Sends SIGTERM at `count` random moments."""
    codes: Counter[int] = Counter()
    slowest, lost = 0.0, 0
    workdir = folder / "stopped"
    for _ in range(count):
        process = launch(workdir, *FLAGS, "--config.num_steps=1000000")
        time.sleep(random.uniform(0, seconds))
        asked = time.monotonic()
        process.terminate()
        codes[process.wait()] += 1
        slowest = max(slowest, time.monotonic() - asked)
        done, saved = recorded(workdir), checkpoint.steps(workdir)
        lost = max(lost, (done[-1]["step"] if done else 0) - (saved[-1] if saved else 0))
    print(f"stops: {count}; exit codes: {dict(codes)}; slowest {slowest:.1f} s; most recorded steps lost: {lost}")


def damage_checkpoints(folder: Path, straight: Path, count: int) -> None:
    """Reads copies of a run whose newest checkpoint is damaged."""
    workdir = folder / "damaged"
    logging.disable()  # a warning for each
    outcomes: Counter[str] = Counter()
    undamaged = {step: checkpoint.read(straight, step)[0] for step in checkpoint.steps(straight)[-2:]}
    for _ in range(count):
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(straight / "checkpoints", workdir / "checkpoints")
        newest = workdir / "checkpoints" / str(STEPS)
        _damage(random.choice(sorted(path for path in newest.rglob("*") if path.is_file())))
        try:
            tree = checkpoint.read(workdir)[0]
        except UserError:
            outcomes["refused"] += 1
            continue
        step = int(tree["step"])
        pairs = zip(trees.leaves(tree), checkpoint.leaves(undamaged[step]), strict=True)
        right = all(a[:2] == b[:2] and np.array_equal(a[2], b[2]) for a, b in pairs)
        outcomes["wrong" if not right else "right" if step == STEPS else "the one before used"] += 1
    print(f"damages: {count}; {dict(outcomes)}")


def _damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    position = random.randrange(len(content) + 1)
    kind = random.choice(("cut", "flip", "flip many", "remove", "insert", "empty"))
    if kind == "remove":
        file.unlink()
        return
    if kind in ("cut", "empty"):
        content = content[: position if kind == "cut" else 0]
    elif kind == "insert":
        content[position:position] = random.randbytes(random.randrange(1, 9))
    for _ in range({"flip": 1, "flip many": 20}.get(kind, 0) if content else 0):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    file.write_bytes(content)


def resize_run(folder: Path, count: int) -> None:
    """Stops or kills a run `count` times, and resumes it on other processes and devices."""
    alone, workdir, flags = folder / "alone", folder / "resized", (*FLAGS, *SMALL)
    assert launch(alone, *flags, JAX_ENABLE_X64="1").wait() == 0
    codes: Counter[int] = Counter()
    for segment in range(count + 1):
        processes = launch_together(workdir, *TOPOLOGIES[segment % len(TOPOLOGIES)], *flags, JAX_ENABLE_X64="1")
        before, enough = len(recorded(workdir)), random.uniform(0, 2 * STEPS / count)
        while segment < count and all(process.poll() is None for process in processes):
            if len(recorded(workdir)) - before > enough:
                random.choice(processes).send_signal(random.choice((signal.SIGTERM, signal.SIGKILL)))
                break
            time.sleep(0.02)
        codes.update(process.wait(300) for process in processes)
    same = equal(alone, workdir, tolerance=1e-8)
    print(f"resizes: {count} over {TOPOLOGIES}; exit codes: {dict(codes)}; equal to one device to 1e-8: {same}")


def main() -> None:
    options = measure.plain_parser(__doc__, kills=50, stops=20, damages=200, resizes=12, seed=0).parse_args()
    random.seed(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="preemption_"))
    straight = folder / "straight"
    began = time.monotonic()
    assert launch(straight, *FLAGS).wait() == 0, f"see {folder}"
    seconds = time.monotonic() - began
    if options.kills:
        kill_runs(folder, straight, seconds, options.kills)
    if options.stops:
        stop_runs(folder, seconds, options.stops)
    if options.damages:
        damage_checkpoints(folder, straight, options.damages)
    if options.resizes:
        resize_run(folder, options.resizes)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
