"""Shows how far long work is: a bar on a terminal, elsewhere a line at least every ten seconds.

Work that is over within two seconds shows nothing, unless there was much of it without a line just before; and of
several processes the first alone shows any.
"""

import math
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from dcgan_jax.runtime.compile_times import Compilation

T = TypeVar("T")

QUIET = 2.0  # seconds before anything is shown
INTERVAL = 7.0  # seconds between lines: with QUIET less than ten, from one work's last line to the next one's first
REDRAW = 0.5  # seconds between drawings of a bar
WRITING = 1.0  # seconds that a line may take: nobody may read the stream

_running: "list[Progress]" = []  # the innermost last


class _Silence:
    """How long there has been work without a line, whoever did it."""

    def __init__(self) -> None:
        self.began = self.worked = -math.inf

    def begins(self) -> None:
        """Work begins. What nobody worked does not count; after a pause there is no silence to go on."""
        now = time.monotonic()
        if not _running:
            idle = now - self.worked
            self.began = now if idle > QUIET else self.began + idle
        self.worked = now

    def lasts(self) -> None:
        """There has been work until now."""
        self.worked = time.monotonic()

    def ends(self) -> None:
        """A line is printed."""
        self.began = self.worked = time.monotonic()

    def remaining(self) -> float:
        """Seconds after which work that begins now should print its first line."""
        return max(0.0, min(QUIET, self.began + INTERVAL - time.monotonic()))


silence = _Silence()


class Progress:
    """A block of work that is shown while it lasts; `update` tells how much of it is done.

    total: of the units, such as 'images'; None if nobody knows. done: of them before the block. compiles: what shapes
    the program that the first ones, or the whole block, wait for, such as its arguments: that it is compiled is then
    said, with the time it took the last time (`compile_times`). since: when it began, by `time.monotonic`, if that was
    earlier. shown: whether anybody has seen it yet.
    """

    def __init__(
        self,
        title: str,
        total: int | None = None,
        unit: str = "",
        *,
        done: int = 0,
        compiles: Any = None,
        since: float | None = None,
    ):
        self._title, self._total, self._unit = title, total, unit
        self._start, self._done = done, done
        self._counted: int | None = None  # done after the first update
        self._began = self._moved = time.monotonic() if since is None else since
        self._compilation = None if compiles is None else Compilation(title, compiles)
        self._over = threading.Event()
        self._bar: Any = None
        self.shown = False

    def update(self, count: int = 1) -> None:
        """`count` more are done."""
        if self._counted is None:  # the time of the first ones says nothing about the others
            self._moved, self._counted = time.monotonic(), self._done + count
            self._compiled()
        self._done += count

    @property
    def tells_left(self) -> bool:
        """Whether it can say how long the rest takes."""
        return bool(self._total) and self._counted is not None and self._done > self._counted

    def __enter__(self) -> "Progress":
        self._thread = threading.Thread(target=self._show, daemon=True)
        silence.begins()
        _running.append(self)
        if _is_first_process():
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        _running.remove(self)
        silence.lasts()
        if self._counted is None and error == (None, None, None):
            self._compiled()
        if self._thread.is_alive():
            self._thread.join(WRITING)  # or its last line might come after what is printed next

    def _compiled(self) -> None:
        if self._compilation:
            self._compilation.end()

    def __str__(self) -> str:
        """'preparing: 120/1000 images  00:20 left'."""
        last = self._compilation.last() if self._compilation and self._counted is None else None
        before = f", {_interval(last)} last time" if last else ""
        if not self._total:
            return f"{self._title}  {_interval(time.monotonic() - self._began)} so far{before}"
        text = f"{self._title}: {self._done}/{self._total} {self._unit}"
        if self._counted is None:
            return f"{text}, compiling{before}" if self._compilation else text
        if not self.tells_left:
            return text
        seconds = (time.monotonic() - self._moved) / (self._done - self._counted)
        return f"{text}  {_interval(seconds * (self._total - self._done))} left"

    def _show(self) -> None:
        """Runs beside the work, which may not come back for minutes."""
        wait = silence.remaining()
        while not self._over.wait(wait):
            with suppress(OSError, ValueError):  # a stream that is gone is no reason to stop
                if not self._tells_most():
                    wait = QUIET
                    continue
                wait = self._draw() if sys.stderr.isatty() else self._print()
                self.shown = True
        if self._bar is not None:
            self._bar.close()

    def _tells_most(self) -> bool:
        """Of works within one another the innermost is shown, unless one around it can say how long is left."""
        place = _running.index(self)
        around, within = _running[:place], _running[place + 1 :]
        if any(work.tells_left for work in around):
            return False
        return self.tells_left or not any(work.shown for work in within)

    def _print(self) -> float:
        print(self, file=sys.stderr, flush=True)
        silence.ends()
        return INTERVAL

    def _draw(self) -> float:
        if self._bar is None:
            from tqdm import tqdm

            form = "{desc}  |{bar}| {percentage:.0f}%" if self._total else "{desc}"
            self._bar = tqdm(desc=str(self), total=self._total, bar_format=form, leave=False, dynamic_ncols=True)
        silence.ends()
        self._bar.n = self._done
        self._bar.set_description_str(str(self))
        return REDRAW


def progress(
    work: Iterable[T], title: str, unit: str, total: int | None = None, *, compiles: Any = None
) -> Iterator[T]:
    """The items of `work`, with a `Progress` of them. total: their number, if they do not tell it."""
    if total is None and hasattr(work, "__len__"):
        total = len(work)  # type: ignore[arg-type]
    with Progress(title, total, unit, compiles=compiles) as shown:
        for item in work:
            yield item
            shown.update()


def _interval(seconds: float) -> str:
    from tqdm import tqdm  # imported late: loading a network should not wait for it

    return tqdm.format_interval(seconds)


def _is_first_process() -> bool:
    jax = sys.modules.get("jax")  # which preparing images does without
    return not (jax and jax.distributed.is_initialized()) or jax.process_index() == 0
