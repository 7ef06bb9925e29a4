"""Locks between processes: a file that one process at a time holds, until it closes it or ends, however it ends."""

import fcntl
from pathlib import Path
from typing import TextIO


def acquire(path: Path, *, wait: bool) -> TextIO | None:
    """The open file, whose closing gives the lock back; None where another process holds it and `wait` is False.

    The folder of `path` must exist, on a file system whose locks (flock) reach all processes that matter. POSIX only.
    """
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        return None
    except BaseException:
        file.close()
        raise
    return file
