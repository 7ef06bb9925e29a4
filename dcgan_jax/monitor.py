"""What a run shows: metrics.jsonl, TensorBoard, a progress bar, grids of images. Only process 0 has one."""

import json
import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ml_collections import ConfigDict
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tqdm import tqdm

from dcgan_jax.data.images import grid

log = logging.getLogger("dcgan_jax")


class Monitor:
    """Writes to a run's folder, which it makes, from `start_step` on.

    Lines of metrics.jsonl beyond `start_step`, left by a run that ended without a checkpoint, are dropped: the same
    steps are about to be written again.
    """

    def __init__(self, workdir: Path, config: ConfigDict, *, start_step: int):
        workdir.mkdir(parents=True, exist_ok=True)
        _replace(workdir / "config.json", config.to_json(indent=2) + "\n")
        self._samples = workdir / "samples"
        self._samples.mkdir(parents=True, exist_ok=True)
        self._metrics = _open_metrics(workdir / "metrics.jsonl", start_step)
        self._tensorboard = _TensorBoard(workdir / "tensorboard", start_step)
        self._batch_size = config.batch_size
        self._num_steps = config.num_steps
        # On a terminal a bar, elsewhere a line at each log.
        self._bar = tqdm(total=config.num_steps, initial=start_step, unit="step", dynamic_ncols=True, disable=None)
        self._since = (start_step, time.perf_counter())

    def start_clock(self, step: int) -> None:
        """Rates count from here: called after the first step, when compilation is over."""
        self._since = (step, time.perf_counter())

    def advance(self) -> None:
        """One more step is done."""
        self._bar.update()

    def metrics(self, step: int, values: dict[str, float], *, waited: float) -> None:
        """Writes the metrics of one step, with the images a second since the last time, and the share of that time
        that the loop `waited` for data, given in seconds.
        """
        last_step, last_time = self._since
        now = time.perf_counter()
        rate = (step - last_step) * self._batch_size / (now - last_time) if step > last_step else 0.0
        record = {"step": step} | values | {"images_per_sec": rate, "data_wait": waited / (now - last_time)}
        self._since = (step, now)
        self._metrics.write(json.dumps(record) + "\n")
        self._metrics.flush()
        self._tensorboard.write(step, *(summary.scalar(name, record[name]) for name in record if name != "step"))
        shown = {"d_loss": f"{values['d_loss']:.3f}", "g_loss": f"{values['g_loss']:.3f}", "images/s": f"{rate:.0f}"}
        self._bar.set_postfix(shown)
        if self._bar.disable:
            left = (self._num_steps - step) * self._batch_size / rate if rate else float("nan")
            text = "  ".join(f"{name} {value}" for name, value in shown.items())
            remaining = f"  {tqdm.format_interval(left)} left" if rate else ""
            with suppress(OSError):  # a terminal that is gone is no reason to stop
                print(f"step {step}/{self._num_steps}  {text}{remaining}", file=sys.stderr, flush=True)

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Shows measures of quality: in TensorBoard, and as a line of the log. The clock does not count them."""
        self._tensorboard.write(step, *(summary.scalar(name, value) for name, value in values.items()))
        log.info("step %d: %s", step, "  ".join(f"{name} {value:.5g}" for name, value in values.items()))
        self._since = (self._since[0], self._since[1])

    def sync(self) -> None:
        """Returns when all metrics are on disk: a checkpoint must not outlive the record of its steps."""
        os.fsync(self._metrics.fileno())

    def images(self, name: str, images: np.ndarray, step: int) -> None:
        """Writes samples/NAME.png, a square grid of uint8 [N, H, W, C]."""
        picture = grid(images)
        picture.save(self._samples / f"{name}.png")
        tag = "reals" if name == "reals" else "samples"
        self._tensorboard.write(step, summary.image(tag, np.atleast_3d(np.asarray(picture)), dataformats="HWC"))

    def close(self) -> None:
        self._bar.close()
        self._metrics.close()
        self._tensorboard.close()


def add_scalars(folder: Path, step: int, values: dict[str, float]) -> None:
    """Adds values to the TensorBoard folder of a run, as a file of events of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    file = EventsWriter(str(folder / "events"), f".{os.getpid()}.{step}")
    for name, value in values.items():
        file.write_event(Event(wall_time=time.time(), step=step, summary=summary.scalar(name, value)))
    file.close()


class _TensorBoard:
    """A file of events, written at once: tensorboardX's own queue blocks for ever once the disk is full."""

    def __init__(self, folder: Path, start_step: int):
        folder.mkdir(exist_ok=True)
        self._file = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        # What an earlier process wrote beyond the step that this one goes on from is not shown.
        started = SessionLog(status=SessionLog.START)
        self._file.write_event(Event(wall_time=time.time(), step=start_step + 1, session_log=started))

    def write(self, step: int, *summaries: Any) -> None:
        for item in summaries:
            self._file.write_event(Event(wall_time=time.time(), step=step, summary=item))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def last_recorded_step(path: Path) -> int:
    """The last step in a metrics.jsonl, 0 if there is none."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return max((step for step in map(_step_of, lines) if step is not None), default=0)


def _open_metrics(path: Path, start_step: int) -> TextIO:
    if path.exists():
        lines = path.read_text(errors="replace").splitlines()
        kept = [line for line in lines if (step := _step_of(line)) is not None and step <= start_step]
        if len(kept) < len(lines):
            dropped = len(lines) - len(kept)
            log.info("%s: dropping %d lines after step %d, to be written again", path, dropped, start_step)
            _replace(path, "".join(line + "\n" for line in kept))
    return path.open("a")


def _step_of(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None  # a line cut short when the run was killed


def _replace(path: Path, text: str) -> None:
    """Writes a file so that a kill at any moment leaves the old one or the new one, whole."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.replace(path)
