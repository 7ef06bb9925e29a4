"""Work that is done in order: at once, or on accelerators in a thread, while they train on."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import jax

Work = Callable[[], None]

# Pieces that may wait their turn, each with a copy of the state on the device. Beyond, training waits for the first.
MAX_WAITING = 2


def suits() -> bool:
    """Whether such work should be done beside training.

    On a CPU both would share the cores. Several processes meet in collectives, in the same order on each of them.
    """
    return jax.default_backend() != "cpu" and jax.process_count() == 1


class Worker:
    """Does each piece of work after the one before.

    beside: in a thread. What a piece raises is then raised by the next call of any method; later pieces are not done.
    """

    def __init__(self, beside: bool):
        self.beside = beside
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="beside training") if beside else None
        self._waiting: deque[Future[None]] = deque()
        self._failed = False
        self._own_thread: int | None = None

    def do(self, work: Work) -> None:
        """Does the work, or takes it on; waits only if too much is waiting."""
        self.check()
        if self._thread is None:
            work()
            return
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._unless_failed, work, jax.config.values["jax_enable_x64"]))

    def check(self) -> None:
        """Raises what a finished piece has raised."""
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft().result()

    def wait(self) -> None:
        """Returns when everything is done; at once within a piece of work, before which all others are."""
        while self._waiting and threading.get_ident() != self._own_thread:
            self._waiting.popleft().result()

    def close(self) -> None:
        """Ends the thread when everything is done: what waits may be a checkpoint to be saved."""
        if self._thread:
            self._thread.shutdown()

    def _unless_failed(self, work: Work, wide: bool) -> None:
        if self._failed:
            return
        self._own_thread = threading.get_ident()
        try:
            with jax.enable_x64(wide):  # settings of a `with` hold in their own thread alone
                work()
        except BaseException:
            self._failed = True
            raise
