"""What is moved out of the way, and never lost: damaged checkpoints, and all that a run wrote after a step."""

import logging
import re
import shutil
from pathlib import Path

from dcgan_jax.evaluation import report
from dcgan_jax.run import checkpoint
from dcgan_jax.run.monitor import drop_lines
from dcgan_jax.runtime import files

log = logging.getLogger("dcgan_jax")

SAMPLES = re.compile(r"step_(\d+)\.png")


def set_damaged_aside(workdir: Path, newer_than: int) -> None:
    """Moves the checkpoints newer than a step, which are damaged, to `damaged`."""
    for step in _newer(workdir, newer_than):
        place = _move(workdir / "checkpoints" / str(step), workdir / "damaged")
        log.warning("checkpoint: the damaged one of step %d is now %s", step, place)


def set_aside(workdir: Path, newer_than: int, folder: Path) -> None:
    """Moves all that a run wrote after a step to a new folder: checkpoints, grids of samples, lines of its records.

    The records are copied whole, before anything else: wherever this is killed, nothing is lost.
    """
    folder.mkdir(parents=True)
    records = [path for path in (workdir / "metrics.jsonl", workdir / report.NAME) if path.exists()]
    for record in records:
        shutil.copy2(record, folder)
    for step in reversed(_newer(workdir, newer_than)):
        _move(workdir / "checkpoints" / str(step), folder)
    for picture in sorted((workdir / "samples").glob("step_*.png")):
        match = SAMPLES.fullmatch(picture.name)
        if match and int(match[1]) > newer_than:
            _move(picture, folder / "samples")
    for record in records:
        drop_lines(record, newer_than)


def _newer(workdir: Path, step: int) -> list[int]:
    return [later for later in checkpoint.steps(workdir) if later > step]


def _move(path: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    free = files.free_path(folder / path.name)
    path.rename(free)
    return free
