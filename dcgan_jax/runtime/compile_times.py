"""How long programs took to compile the last time: a small file beside the compilation cache, for who waits again.

What is in the cache is there at once. A program is compiled again after a change of the code, of a package or of a
number in it, such as a learning rate; so programs are told apart by their kind alone.
"""

import contextlib
import json
import math
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

NAME = "compile_seconds.json"
WORTH = 2.0  # seconds that a compilation must take to be remembered
MOST = 200  # kinds that are remembered, the newest ones
_EVENTS = {"/jax/core/compile/backend_compile_duration": 1, "/jax/compilation_cache/cache_retrieval_time_sec": -1}

_thread = threading.local()
_listening = threading.Lock()


class Compilation:
    """One wait for the compiler, from now on, in this thread.

    Kinds are told apart by a title, the sizes of arguments and the device. shapes: a tree of arrays, or of whatever
    else shapes the program.
    """

    def __init__(self, title: str, shapes: Any):
        import jax  # which preparing images does without

        leaves = jax.tree.leaves(shapes)
        arrays = [x.shape for x in leaves if hasattr(x, "shape")]
        others = [x for x in leaves if not hasattr(x, "shape")]
        numbers, device = sum(map(math.prod, arrays)), jax.devices()[0].device_kind
        self._kind = f"{title}: {len(arrays)} arrays of {numbers} numbers, {others}, {device}"
        _listen()
        self._began, self._before = time.monotonic(), _compiled()

    def last(self) -> float | None:
        """The seconds that it took the last time; None if nobody knows."""
        seconds = _read().get(self._kind)
        return float(seconds) if isinstance(seconds, int | float) else None

    def end(self) -> None:
        """Remembers the seconds that it took, unless the program was read from the cache."""
        if _compiled() - self._before >= WORTH:
            _keep(self._kind, time.monotonic() - self._began)


def _listen() -> None:
    """Counts from now on what this process compiles."""
    import jax

    if _listening.acquire(blocking=False):  # once, and never released
        jax.monitoring.register_event_duration_secs_listener(_count)


def _compiled() -> float:
    """The seconds that this thread has compiled so far, without those in which it read from the cache."""
    return getattr(_thread, "seconds", 0.0)


def _count(event: str, duration_secs: float, **_: str | int) -> None:
    _thread.seconds = _compiled() + _EVENTS.get(event, 0) * duration_secs


def _keep(kind: str, seconds: float) -> None:
    """Writes the seconds of a kind, if there is a cache; if the file cannot be written, nobody will know."""
    if (file := _file()) is None:
        return
    known = {other: value for other, value in _read().items() if other != kind} | {kind: round(seconds, 1)}
    # Threads may write at once, unlike those of `files.atomic_write`, which imports this file by way of `progress`.
    partial = file.with_name(f"{NAME}.{os.getpid()}.{threading.get_ident()}.partial")
    with contextlib.suppress(OSError):
        partial.write_text(json.dumps(dict(list(known.items())[-MOST:])))
        partial.replace(file)


def _file() -> Path | None:
    """The file; None without a cache in a folder of this machine."""
    jax: Any = sys.modules.get("jax")
    folder = jax and jax.config.jax_compilation_cache_dir
    return Path(folder) / NAME if folder and Path(folder).is_dir() else None


def _read() -> dict[str, Any]:
    file = _file()
    try:
        known = json.loads(file.read_text()) if file else {}
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
