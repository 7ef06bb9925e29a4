"""Folders for the files that the page shows: the newest few, so that a long session does not fill the disk."""

import shutil
import tempfile
import threading
from collections import deque
from pathlib import Path

KEPT = 400  # of the newest results, of some 100 kB each


class Results:
    """New folders below one; the oldest go as new ones come. Any number of threads may use it."""

    def __init__(self, root: Path):
        self._root = root
        self._lock = threading.Lock()
        self._folders: deque[Path] = deque()

    def new(self) -> Path:
        """An empty folder."""
        folder = Path(tempfile.mkdtemp(dir=self._root))
        with self._lock:
            self._folders.append(folder)
            old = [self._folders.popleft() for _ in range(len(self._folders) - KEPT)]
        for each in old:
            shutil.rmtree(each, ignore_errors=True)
        return folder
