"""Stopping on request: SIGTERM from a scheduler, Ctrl-C from a person; and how the processes of a job agree on it."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

log = logging.getLogger("dcgan_jax")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOPPED = 75  # exit code of a run that stopped on request: EX_TEMPFAIL, the same command resumes
INTERRUPTED = 130  # exit code of a command that Ctrl-C ended, as shells have it


class Preempted(Exception):
    """Training was asked to stop and has saved everything; launchers exit with code 75."""


class StopRequests:
    """SIGTERM and SIGINT, noted in `name` for the training loop to act on. A second Ctrl-C ends at once.

    exits: for launchers. Until `hold` is called there is nothing to save, and a request ends the process at once with
    code 75, even during a compilation, when Python's own handlers would have to wait for minutes.

    Signals reach the main thread only: in another one, such as a notebook's, there are no requests.
    """

    def __init__(self, *, exits: bool = False):
        self.name: str | None = None
        self._exits = exits
        self._held = False
        self._previous: dict[signal.Signals, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            return
        if exits:
            read, write = os.pipe()
            os.set_blocking(write, False)
            threading.Thread(target=self._watch, args=(read,), name="stop requests", daemon=True).start()
            # The C part of a handler writes the signal's number here at once.
            signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    def hold(self) -> None:
        """From now on there is something to save: requests wait until the training loop has seen `name`."""
        self._held = True

    def close(self) -> None:
        """Restores the signals' earlier handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _note(self, number: int, frame: Any) -> None:
        if self.name and number == signal.SIGINT and not self._exits:
            raise KeyboardInterrupt
        if self.name is None:
            self.name = signal.Signals(number).name
            log.info("%s: stopping after this step, with all of it saved; Ctrl-C now ends at once", self.name)

    def _watch(self, read: int) -> None:
        """Runs in a thread of its own; every byte is the number of a signal."""
        asked = False
        while number := os.read(read, 1):
            if number[0] not in SIGNALS:
                continue
            if not self._held:
                _leave(f"stopped on {signal.Signals(number[0]).name} before the first step", STOPPED)
            if asked and number[0] == signal.SIGINT:
                _leave("interrupted; the same command goes on from the last checkpoint", INTERRUPTED)
            asked = True


class StopVote:
    """Whether the run stops, decided alike on all processes: each votes in the step itself (`devices.voting`).

    preempted: asks the scheduler's own service, by the number of the call: 1, 2, 3 and so on.
    """

    def __init__(self, requests: StopRequests, processes: int, preempted: Callable[[int], bool]):
        self._requests, self._alone, self._preempted = requests, processes == 1, preempted
        self._agreed = False

    def vote(self, call: int) -> bool:
        """Whether this process wants to stop."""
        return self._requests.name is not None or (not self._alone and self._preempted(call))

    def record(self, any_asked: bool) -> None:
        """Takes the result of an earlier call's vote, which is the same on all processes."""
        self._agreed |= any_asked

    @property
    def decided(self) -> bool:
        """Whether the run stops after this call. A single process need not wait for the result of a vote."""
        return self._agreed or (self._alone and self._requests.name is not None)

    @property
    def reason(self) -> str:
        """Who asked."""
        return self._requests.name or "a request to another process"


def _leave(text: str, code: int) -> None:
    try:
        os.write(sys.stderr.fileno(), (text + "\n").encode())
    finally:  # nobody may be reading any more
        os._exit(code)
