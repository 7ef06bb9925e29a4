"""What a run shows: metrics.jsonl, TensorBoard, a progress bar, grids of images; on process 0 alone."""

import json
import logging
import os
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar

import numpy as np
from ml_collections import ConfigDict
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tqdm import tqdm

from dcgan_jax.data.images import grid
from dcgan_jax.run import tags
from dcgan_jax.run.trackers import Tracker
from dcgan_jax.runtime import files
from dcgan_jax.runtime.progress import INTERVAL, silence

log = logging.getLogger("dcgan_jax")

T = TypeVar("T")


class Lap(NamedTuple):
    """Steps a second of training alone; shares of this time waiting for data, and of all time not training."""

    steps_per_second: float
    data_wait: float
    overhead: float


class Clock:
    """Measures the rate of training alone: what happens in `paused` does not count, nor do steps in it."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Forgets what was measured so far."""
        self._began = time.perf_counter()
        self._paused = self._waited = 0.0
        self._steps = self._steps_in_pauses = 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """For compiling, sampling, evaluating and saving."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - began

    def timing_waits(self, iterator: Iterator[T]) -> Iterator[T]:
        """The same items; the time until each is there counts as waiting for data."""
        while True:
            began = time.perf_counter()
            item = next(iterator, None)
            self._waited += time.perf_counter() - began
            if item is None:
                return
            yield item

    def count(self, steps: int, *, in_pause: bool) -> None:
        """So many steps were made, in a pause (by a call that was compiled first) or not."""
        if in_pause:
            self._steps_in_pauses += steps
        else:
            self._steps += steps

    def lap(self) -> Lap:
        """What was measured since the last lap.

        If all of these steps were in pauses, the pauses count: the rate includes compiling.
        """
        seconds = time.perf_counter() - self._began
        overhead = self._paused / seconds if seconds else 0.0
        if self._steps:
            rate, seconds = self._steps / (seconds - self._paused), seconds - self._paused
        else:
            rate = self._steps_in_pauses / seconds
        waited = min(self._waited / seconds, 1.0)
        self.start()
        return Lap(rate, waited, overhead)


class Monitor:
    """Writes to the run directory, which it creates, from `start_step` on.

    Lines of metrics.jsonl beyond `start_step`, left by a run that ended without a checkpoint, are dropped: the same
    steps are about to be written again.
    """

    def __init__(self, workdir: Path, config: ConfigDict, *, start_step: int):
        workdir.mkdir(parents=True, exist_ok=True)
        files.write_text(workdir / "config.json", config.to_json(indent=2) + "\n")
        self._samples = workdir / "samples"
        self._samples.mkdir(parents=True, exist_ok=True)
        self._path = workdir / "metrics.jsonl"
        self._metrics = _open_metrics(self._path, start_step)
        self._tensorboard = _TensorBoard(workdir / "tensorboard", config, start_step)
        self._tracker = Tracker(config, workdir)
        self._images_per_step = config.batch_size * config.discriminator_steps
        self._num_steps = config.num_steps
        self._quality: dict[str, str] = {}  # as it was last measured
        # A bar on a terminal; elsewhere a line at each log, and every ten seconds if these are rarer.
        self._bar = tqdm(total=config.num_steps, initial=start_step, unit="step", dynamic_ncols=True, disable=None)
        self._step, self._told = start_step, time.monotonic()
        self._first: tuple[int, float] | None = None  # the first step that was done here, and when

    def advance(self) -> None:
        """One more step is done."""
        self._bar.update()
        silence.lasts() if self._bar.disable else silence.ends()
        self._step, now = self._step + 1, time.monotonic()
        first, began = self._first = self._first or (self._step, now)
        if self._bar.disable and now - self._told > INTERVAL:
            done = self._step - first  # of the first step nobody knows when it began: it waited for the compiler
            left = (now - began) / done * (self._num_steps - self._step) if done else None
            self._tell(f"step {self._step}/{self._num_steps}", self._step, left)

    def write_metrics(self, step: int, values: dict[str, float], lap: Lap) -> None:
        """Writes the metrics of one step, with what `Clock` measured since the last time."""
        rate = lap.steps_per_second * self._images_per_step
        record = {"step": step} | values
        record |= {"images_per_sec": rate, "data_wait": lap.data_wait, "overhead": round(lap.overhead, 4)}
        self._metrics.write(json.dumps(record) + "\n")
        self._metrics.flush()
        self._tensorboard.write(step, *(summary.scalar(*item) for item in tags.scalars(record).items()))
        self._tracker.write(step, record)
        if "quality" in values:
            self._quality = {"quality": f"{values['quality']:.4g}"}
        shown = {"d_loss": f"{values['d_loss']:.3f}", "g_loss": f"{values['g_loss']:.3f}", "images/s": f"{rate:.0f}"}
        shown |= self._quality
        self._bar.set_postfix(shown)
        if self._bar.disable:
            left = (self._num_steps - step) / lap.steps_per_second
            text = "  ".join(f"{name} {value}" for name, value in shown.items())
            self._tell(f"step {step}/{self._num_steps}  {text}", step, left)

    def _tell(self, line: str, step: int, left: float | None) -> None:
        """Prints a line, with the time left if it is known; not at the last step, after which there is more to do."""
        self._told = time.monotonic()
        silence.ends()
        ending = "" if left is None or step == self._num_steps else f"  {tqdm.format_interval(left)} left"
        with suppress(OSError):  # a terminal that is gone is no reason to stop
            print(line + ending, file=sys.stderr, flush=True)

    def lines(self) -> list[dict[str, Any]]:
        """What metrics.jsonl holds so far."""
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def sync(self) -> None:
        """Returns when all metrics are on disk: no checkpoint may be newer than metrics.jsonl."""
        os.fsync(self._metrics.fileno())

    def write_images(self, name: str, images: np.ndarray, step: int) -> None:
        """Writes samples/NAME.png, a square grid of uint8 [N, H, W, C]."""
        picture = grid(images)
        picture.save(self._samples / f"{name}.png")
        tag = "reals" if name == "reals" else "samples"
        self._tensorboard.write(step, summary.image(tag, np.atleast_3d(np.asarray(picture)), dataformats="HWC"))
        self._tracker.show(tag, picture, step)

    def close(self) -> None:
        """Closes all files."""
        self._bar.close()
        self._metrics.close()
        self._tensorboard.close()
        self._tracker.close()


def add_scalars(folder: Path, step: int, values: dict[str, float]) -> None:
    """Adds values to the TensorBoard folder of a run, as an event file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    file = EventsWriter(str(folder / "events"), f".{os.getpid()}.{step}")
    for name, value in tags.scalars(values).items():
        file.write_event(Event(wall_time=time.time(), step=step, summary=summary.scalar(name, value)))
    file.close()


class _TensorBoard:
    """An event file, written at once: tensorboardX's own queue blocks for ever once the disk is full."""

    def __init__(self, folder: Path, config: ConfigDict, start_step: int):
        folder.mkdir(exist_ok=True)
        self._file = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        # TensorBoard then hides what an earlier process wrote beyond the step that this one starts from.
        started = SessionLog(status=SessionLog.START)
        self._file.write_event(Event(wall_time=time.time(), step=start_step + 1, session_log=started))
        # For the tabs of text and of hyperparameters. tensorboardX tells the results' names by the keys of a dict.
        results = dict.fromkeys(tags.results(config))
        self.write(start_step, *summary.hparams(tags.hyperparameters(config), results)[:2])
        self.write(start_step, summary.text("config", textwrap.indent(config.to_json(indent=2), "    ")))

    def write(self, step: int, *summaries: Any) -> None:
        for item in summaries:
            self._file.write_event(Event(wall_time=time.time(), step=step, summary=item))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def has_line(config: ConfigDict, step: int) -> bool:
    """Whether metrics.jsonl has a line of this step, however long the run is. (That of the last step depends on it.)"""
    intervals = (config.log_every, config.checkpoint_every, config.eval_every)
    return any(every and step % every == 0 for every in intervals)


def last_recorded_step(path: Path) -> int:
    """The last step in a metrics.jsonl, 0 if there is none."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return max((step for step in map(_step_of, lines) if step is not None), default=0)


def drop_lines(path: Path, step: int) -> int:
    """Removes the lines of a record, such as metrics.jsonl, beyond a step, and any cut short. Returns their number."""
    lines = path.read_text(errors="replace").splitlines()
    kept = [line for line in lines if (own := _step_of(line)) is not None and own <= step]
    if len(kept) < len(lines):
        files.write_text(path, "".join(line + "\n" for line in kept))
    return len(lines) - len(kept)


def _open_metrics(path: Path, start_step: int) -> TextIO:
    if path.exists() and (dropped := drop_lines(path, start_step)):
        log.info("%s: dropping %d lines after step %d, to be written again", path, dropped, start_step)
    return path.open("a")


def _step_of(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None  # a line cut short when the run was killed
