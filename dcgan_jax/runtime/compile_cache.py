"""How programs are compiled: JAX's persistent compilation cache, in a folder below the user's cache folder; options."""

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

MAX_BYTES = 2**30  # in the folder when a process starts; a run adds about one megabyte
# Options for programs that run for seconds at most, such as what draws the first parameters. Compiling takes longer
# than running them, and less long at this level. The same bits come out. Training steps would take some percent longer.
QUICKLY: dict[str, Any] = {"xla_backend_optimization_level": 1}
CHECKED = 32  # newest entries that are read at the start, to find half-written ones


def enable() -> None:
    """Enables the cache in $XDG_CACHE_HOME/dcgan_jax/xla, or ~/.cache/dcgan_jax/xla.

    Does nothing if the user chose a folder (JAX_COMPILATION_CACHE_DIR, or `jax.config`), or wants none
    (JAX_ENABLE_COMPILATION_CACHE=0). If the folder cannot be used, one line of the log says so.
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
    # A failing cache only costs time; JAX would print two lines for each entry.
    warnings.filterwarnings("ignore", r"Error (reading|writing) persistent compilation cache entry", UserWarning)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # Most of what runs before the first step compiles faster than JAX's threshold of a second.
        settings.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    settings.update("jax_compilation_cache_dir", str(folder))


def _folder() -> Path:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = caches.absolute() / "dcgan_jax" / "xla"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Entries are code that will be run: nobody else may be able to put them there.
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"others can write to {str(folder)!r}")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(f"{str(folder)!r} cannot be written to")
    return folder


def _tidy(folder: Path) -> None:
    """Removes what a killed process left half-written, and beyond MAX_BYTES what was unused for longest.

    JAX can bound the folder itself, but needs another package for that, and never removes half-written entries.
    """
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # other processes tidy too
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    room = MAX_BYTES
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
