"""What was compiled once is read from a folder the next time: JAX's compilation cache, on without being asked for."""

import logging
import os
import stat
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax

log = logging.getLogger("dcgan_jax")

LIMIT = 2**30  # bytes in the folder when a process starts; a run adds about one megabyte
CHECKED = 32  # newest entries that are read at the start, to find half-written ones


def remember() -> None:
    """Lets JAX keep what it compiles in $XDG_CACHE_HOME/dcgan_jax/xla, or ~/.cache/dcgan_jax/xla.

    Nothing is done where the user chose a folder (JAX_COMPILATION_CACHE_DIR, or `jax.config`), or wants none
    (JAX_ENABLE_COMPILATION_CACHE=0). A folder that cannot be used is told in one line, and nothing is kept.
    """
    settings: Any = jax.config
    chosen = "JAX_COMPILATION_CACHE_DIR" in os.environ or settings.jax_compilation_cache_dir is not None
    if chosen or not settings.jax_enable_compilation_cache:
        return
    try:
        folder = _folder()
        _tidy(folder)
    except (OSError, RuntimeError) as error:
        log.info("what is compiled is not kept for the next start (%s)", error)
        return
    # All that a failing cache costs is time; JAX would tell of each entry in two lines.
    warnings.filterwarnings("ignore", r"Error (reading|writing) persistent compilation cache entry", UserWarning)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # Most of what runs before the first step compiles in less than JAX's threshold of a second.
        settings.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    settings.update("jax_compilation_cache_dir", str(folder))


def _folder() -> Path:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = caches.absolute() / "dcgan_jax" / "xla"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Entries are code that will be run: nobody else may have put them there.
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"others can write to {str(folder)!r}")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(f"{str(folder)!r} cannot be written to")
    return folder


def _tidy(folder: Path) -> None:
    """Removes what a killed process left half-written, and beyond LIMIT what was not used for longest.

    JAX can bound the folder itself, but needs another package for that, and never mends what is half-written.
    """
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # other processes tidy too
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    room = LIMIT
    for rank, (_, size, path) in enumerate(sorted(found, reverse=True)):
        room -= size
        if room < 0 or (rank < CHECKED and _half_written(path)):
            path.unlink(missing_ok=True)


def _half_written(path: Path) -> bool:
    try:
        entry = path.read_bytes()
    except FileNotFoundError:
        return False
    if not path.name.endswith("-cache") or entry[:1] not in (b"", b"x"):
        return False  # not an entry, or with zstd, which JAX takes where it is installed
    content = zlib.decompressobj()
    try:
        content.decompress(entry)
    except zlib.error:
        return True
    return not content.eof
