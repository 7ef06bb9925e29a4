"""Requests to stop: SIGTERM from a scheduler, Ctrl-C from a person."""

import logging
import os
import signal
import sys
import threading
from typing import Any

log = logging.getLogger("dcgan_jax")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOPPED = 75  # the exit code of a run that was asked to stop: EX_TEMPFAIL, the same command goes on
INTERRUPTED = 130  # as a shell says of a command that Ctrl-C ended


class Preempted(Exception):
    """Training was asked to stop and has saved everything; launchers exit with code 75."""


class StopRequests:
    """SIGTERM and SIGINT, noted in `name` for the training loop to act on. A second Ctrl-C ends at once.

    `exits` is for launchers: until `hold` is called there is nothing to save, and a request ends the process at once
    with code 75, even in the middle of a compilation, where Python's own handlers would wait minutes for their turn.

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
            # The C part of a handler writes the signal's number here the moment that it comes.
            signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    def hold(self) -> None:
        """From here on there is something to save: requests wait until the loop has seen `name`."""
        self._held = True

    def close(self) -> None:
        """Gives the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _note(self, number: int, frame: Any) -> None:
        if self.name and number == signal.SIGINT and not self._exits:
            raise KeyboardInterrupt
        if self.name is None:
            self.name = signal.Signals(number).name
            log.info("%s: saving after this step; Ctrl-C now ends at once", self.name)

    def _watch(self, read: int) -> None:
        """Runs beside the main thread; every byte is the number of a signal."""
        asked = False
        while number := os.read(read, 1):
            if number[0] not in SIGNALS:
                continue
            if not self._held:
                _leave(f"stopped on {signal.Signals(number[0]).name} before the first step", STOPPED)
            if asked and number[0] == signal.SIGINT:
                _leave("interrupted; the same command goes on from the last checkpoint", INTERRUPTED)
            asked = True


def _leave(text: str, code: int) -> None:
    try:
        os.write(sys.stderr.fileno(), (text + "\n").encode())
    finally:  # nobody may be reading any more
        os._exit(code)
