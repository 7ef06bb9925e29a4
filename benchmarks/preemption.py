"""What kills, stop requests, damage and changing machines do to a run: nothing, or the tally says what.

    python benchmarks/preemption.py [--kills=50] [--stops=20] [--damages=200] [--resizes=12] [--seed=0]

kills: SIGKILL at random moments of runs of 300 steps of configs/digits.py, every second one while a checkpoint is being
    written; the same command after each. The finished runs are compared with an undisturbed one, bit by bit.
stops: SIGTERM at random moments; how soon the process ends, with which code, and how many steps are lost.
damages: random damage to random files of the newest checkpoint; what is read afterwards.
resizes: a run in float64 that is stopped or killed and goes on, each time on another number of processes and devices,
    as a scheduler would have it; its end is compared with a run on one device.
"""

import argparse
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

import numpy as np

from dcgan_jax import checkpoint
from dcgan_jax.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
STEPS, EVERY = 300, 20
RUN = ("--config=configs/digits.py", f"--config.num_steps={STEPS}", "--config.log_every=1")
RUN = (*RUN, f"--config.checkpoint_every={EVERY}", "--config.sample_every=100")
RESIZED = (*RUN, "--config.image_size=16", "--config.width=4", "--config.batch_size=8", "--config.dtype=float64")
TOPOLOGIES = ((2, 2), (1, 4), (4, 1), (1, 1), (2, 1))


def launch(workdir: Path, *flags: str, devices: int = 1, **environment: str) -> subprocess.Popen:
    virtual = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "launch/train.py", *flags, f"--workdir={workdir}"],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": virtual, "JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.DEVNULL,
        stderr=(workdir.parent / f"{workdir.name}.log").open("a"),
    )


def recorded(workdir: Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def being_written(workdir: Path) -> bool:
    return any(workdir.glob("checkpoints/*tmp*"))


def same(one: Path, other: Path, tolerance: float = 0) -> bool:
    """Whether two runs ended in the same state, and recorded every step once, with the same losses."""
    (a, _), (b, _) = checkpoint.read(one), checkpoint.read(other)
    leaves = checkpoint.leaves(a), checkpoint.leaves(b)
    for (path, kind, x), (other_path, other_kind, y) in zip(*leaves, strict=True):
        if (path, kind) != (other_path, other_kind) or np.abs(x.astype(float) - y.astype(float)).max() > tolerance:
            return False
    records = recorded(one), recorded(other)
    if any([line["step"] for line in record] != list(range(1, STEPS + 1)) for record in records):
        return False
    return all(abs(x[k] - y[k]) <= tolerance for x, y in zip(*records, strict=True) for k in ("d_loss", "g_loss"))


def kill(folder: Path, straight: Path, seconds: float, count: int) -> None:
    phases: Counter = Counter()
    runs = wrong = 0
    workdir = folder / "killed_0"
    while sum(phases.values()) < count or runs == 0:
        log = folder / f"{workdir.name}.log"
        before = log.stat().st_size if log.exists() else 0
        process = launch(workdir, *RUN)
        moment = time.monotonic() + random.uniform(0, seconds)
        while_saving = random.random() < 0.5
        if sum(phases.values()) >= count:
            process.wait()
        while process.poll() is None and time.monotonic() < moment and not (while_saving and being_written(workdir)):
            time.sleep(0.002)
        if process.poll() is None:
            time.sleep(random.uniform(0, 0.05))
            saving, started = being_written(workdir), b"\nstep " in log.read_bytes()[before:]
            process.kill()
            phases["saving" if saving else "training" if started else "start-up"] += process.wait() == -signal.SIGKILL
        if process.returncode == 0:
            runs += 1
            wrong += not same(straight, workdir)
            workdir = folder / f"killed_{runs}"
        elif process.returncode != -signal.SIGKILL:
            print(f"kills: the command ended with {process.returncode}; see {folder}")
            wrong += 1
            break
    told = ", ".join(f"{number} in {phase}" for phase, number in sorted(phases.items()))
    print(f"kills: {sum(phases.values())} ({told}); runs finished: {runs}; not bit-equal or a step not once: {wrong}")


def stop(folder: Path, seconds: float, count: int) -> None:
    codes: Counter = Counter()
    slowest, lost = 0.0, 0
    workdir = folder / "stopped"
    for _ in range(count):
        process = launch(workdir, *RUN, "--config.num_steps=1000000")
        time.sleep(random.uniform(0, seconds))
        asked = time.monotonic()
        process.terminate()
        codes[process.wait()] += 1
        slowest = max(slowest, time.monotonic() - asked)
        done, saved = recorded(workdir), checkpoint.steps(workdir)
        lost = max(lost, (done[-1]["step"] if done else 0) - (saved[-1] if saved else 0))
    print(f"stops: {count}; exit codes: {dict(codes)}; slowest {slowest:.1f} s; most recorded steps lost: {lost}")


def damage(folder: Path, straight: Path, count: int) -> None:
    workdir = folder / "damaged"
    logging.disable()  # a line for each
    found: Counter = Counter()
    whole = {step: checkpoint.read(straight, step)[0] for step in checkpoint.steps(straight)[-2:]}
    for _ in range(count):
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(straight / "checkpoints", workdir / "checkpoints")
        newest = workdir / "checkpoints" / str(STEPS)
        victim = random.choice(sorted(path for path in newest.rglob("*") if path.is_file()))
        content = bytearray(victim.read_bytes())
        kind = random.choice(("cut", "flip", "flip many", "remove", "insert", "empty"))
        place = random.randrange(len(content) + 1)
        if kind == "remove":
            victim.unlink()
        else:
            if kind in ("cut", "empty"):
                content = content[: place if kind == "cut" else 0]
            elif kind == "insert":
                content[place:place] = random.randbytes(random.randrange(1, 9))
            for _ in range({"flip": 1, "flip many": 20}.get(kind, 0) if content else 0):
                content[random.randrange(len(content))] ^= 1 << random.randrange(8)
            victim.write_bytes(content)
        try:
            tree = checkpoint.read(workdir)[0]
        except UserError:
            found["refused"] += 1
            continue
        step = int(tree["step"])
        pairs = zip(checkpoint.leaves(tree), checkpoint.leaves(whole[step]), strict=True)
        right = all(a[:2] == b[:2] and np.array_equal(a[2], b[2]) for a, b in pairs)
        found["wrong" if not right else "right" if step == STEPS else "the one before used"] += 1
    print(f"damages: {count}; {dict(found)}")


def resize(folder: Path, count: int) -> None:
    alone, workdir = folder / "alone", folder / "resized"
    assert launch(alone, *RESIZED, JAX_ENABLE_X64="1").wait() == 0
    codes: Counter = Counter()
    for segment in range(count + 1):
        processes, devices = TOPOLOGIES[segment % len(TOPOLOGIES)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        joined = (f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}") if processes > 1 else ()
        job = [
            launch(
                workdir,
                *RESIZED,
                *(*joined, f"--process_id={i}") * (processes > 1),
                devices=devices,
                JAX_ENABLE_X64="1",
            )
            for i in range(processes)
        ]
        before, enough = len(recorded(workdir)), random.uniform(0, 2 * STEPS / count)
        while segment < count and all(process.poll() is None for process in job):
            if len(recorded(workdir)) - before > enough:
                random.choice(job).send_signal(random.choice((signal.SIGTERM, signal.SIGKILL)))
                break
            time.sleep(0.02)
        codes.update(process.wait(300) for process in job)
    equal = same(alone, workdir, tolerance=1e-8)
    print(f"resizes: {count} over {TOPOLOGIES}; exit codes: {dict(codes)}; equal to one device to 1e-8: {equal}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, number in (("kills", 50), ("stops", 20), ("damages", 200), ("resizes", 12), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=number)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    folder = Path(tempfile.mkdtemp(prefix="preemption_"))
    straight = folder / "straight"
    began = time.monotonic()
    assert launch(straight, *RUN).wait() == 0, f"see {folder}"
    seconds = time.monotonic() - began
    if arguments.kills:
        kill(folder, straight, seconds, arguments.kills)
    if arguments.stops:
        stop(folder, seconds, arguments.stops)
    if arguments.damages:
        damage(folder, straight, arguments.damages)
    if arguments.resizes:
        resize(folder, arguments.resizes)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
