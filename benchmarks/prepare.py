"""Preparing images: speed over cores, memory, and that kills change nothing.

    python benchmarks/prepare.py [--count=300000] [--kills=10] [--folder=FOLDER]

Makes `count` JPEGs of 178x218 (smooth colours with noise, 14 KB each, 1,000 different ones repeated) in a temporary
folder (in FOLDER, which needs 10 GB), and prepares them at 64x64 with one worker and with one per core, each time in a
new process whose memory is measured. Then it kills a preparation at `kills` random moments and compares the result with
an undisturbed one.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure
import numpy as np
from measure import ROOT
from PIL import Image
from tqdm import trange

from dcgan_jax.runtime.files import sha256

NUM_DIFFERENT = 1000


def make_images(folder: Path, count: int) -> None:
    """Writes the JPEGs, 1,000 to a folder. The same content on every call."""
    rng = np.random.default_rng(0)
    contents = []
    path = folder / "one.jpg"
    folder.mkdir(parents=True)
    for _ in range(min(count, NUM_DIFFERENT)):
        small = Image.fromarray(rng.integers(0, 256, (14, 11, 3), np.uint8))
        colours = small.resize((178, 218), Image.Resampling.BICUBIC)
        pixels = np.asarray(colours).astype(int) + rng.integers(-12, 13, (218, 178, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=90)
        contents.append(path.read_bytes())
    path.unlink()
    for i in trange(count, desc="making images", disable=None):
        target = folder / f"{i // 1000:04d}" / f"{i:06d}.jpg"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(contents[i % NUM_DIFFERENT])


def command(source: Path, target: Path, workers: int) -> list[str]:
    """The command that prepares `source` into `target`."""
    return [
        sys.executable,
        str(ROOT / "launch" / "prepare.py"),
        f"--config={ROOT / 'configs' / 'folder.py'}",
        f"--config.data.path={source}",
        f"--config.data.prepared={target}",
        f"--workers={workers}",
    ]


def prepare(source: Path, target: Path, workers: int) -> tuple[float, float]:
    """Seconds and peak memory in MB of one preparation in a new process."""
    script = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    script += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", script, *command(source, target, workers)], check=True, capture_output=True, text=True
    )
    return time.perf_counter() - began, float(done.stdout)


def hashes(target: Path) -> dict[str, str]:
    """Hashes of the files of the only prepared set in a folder."""
    (folder,) = (path for path in target.iterdir() if path.is_dir())
    return {path.name: sha256(path) for path in folder.iterdir()}


def prepare_with_kills(source: Path, target: Path, workers: int, kills: int, seconds: float) -> list[float]:
    """Starts a preparation again and again and kills it after random times, which it returns; the last one may end."""
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    moments = []
    for _ in range(kills):
        process = subprocess.Popen(command(source, target, workers), **quiet, start_new_session=True)
        moments.append(random.uniform(0.1, 1.5 * seconds / kills + 1))
        try:
            process.wait(moments[-1])
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    subprocess.run(command(source, target, workers), check=True, **quiet)
    return moments


def main() -> None:
    parser = measure.plain_parser(__doc__, count=300_000, kills=10)
    parser.add_argument("--folder", type=Path, help="where to work, with 10 GB free; a temporary folder by default")
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        work = Path(name)
        make_images(work / "images", options.count)
        rates = {}
        for workers in dict.fromkeys((cores, 1)):
            seconds, memory = prepare(work / "images", work / f"workers_{workers}", workers)
            rates[workers] = options.count / seconds
            print(
                f"{workers} worker(s): {seconds:.1f} s, {rates[workers]:.0f} images/s, "
                f"{rates[workers] / workers:.0f} a worker, {memory:.0f} MB at most",
                flush=True,
            )
        print(f"{cores} workers are {rates[cores] / rates[1]:.2f} times as fast as one, {cores} would be ideal")
        same = hashes(work / f"workers_{cores}") == hashes(work / "workers_1")
        print(f"one worker and {cores} made the same bytes: {same}", flush=True)
        if cores > 1:
            shutil.rmtree(work / "workers_1")
        seconds = options.count / rates[cores]
        moments = prepare_with_kills(work / "images", work / "killed", cores, options.kills, seconds)
        same = hashes(work / "killed") == hashes(work / f"workers_{cores}")
        print(f"killed after {', '.join(f'{moment:.1f}' for moment in moments)} s: byte-identical at the end: {same}")


if __name__ == "__main__":
    main()
