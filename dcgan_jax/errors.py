"""The two ways a run ends badly: a mistake of the user's, and a failure of training."""

import os
from pathlib import Path


class UserError(Exception):
    """A mistake that the user can mend: one line that says what, where, found, expected, and what to do.

    Launchers print it and exit with code 2.
    """


class TrainingError(Exception):
    """Training cannot go on (a loss that is not finite, say). Launchers print it and exit with code 1."""


def check_writable(path: str | Path, name: str) -> Path:
    """The path with `~` expanded. Raises UserError unless it can be created or written below; `name` is the flag's."""
    if "://" in str(path):
        raise UserError(f"{name}: found {str(path)!r}, expected a local path; remote ones are not supported")
    path = Path(path).expanduser()
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    if existing != path and not existing.is_dir():
        raise UserError(f"{name}: {str(existing)!r} is a file, expected a folder; pass another {name}")
    if not os.access(existing, os.W_OK):
        raise UserError(f"{name}: {str(existing)!r} cannot be written to; pass another {name}")
    return path
