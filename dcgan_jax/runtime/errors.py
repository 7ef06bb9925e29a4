"""The two ways a run ends badly, a mistake of the user's and a failure of training; and paths that users give."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """A mistake that the user can correct: one line that says what, where, found, expected, and what to do.

    Launchers print it and exit with code 2.
    """


class TrainingError(Exception):
    """Training cannot go on, because a loss is not finite, say. Launchers print it and exit with code 1."""


# A command of another launcher, which has flags of its own.
_COMMAND = re.compile(r"(python launch/\S+(?: --\S+)*)")


@contextmanager
def rename_fields(names: Mapping[str, str]) -> Iterator[None]:
    """Replaces fields by what the user gave in their place, flags or other fields, in error messages from the block.

    names: such as {"config.data.path": "--data"}. '' is for a field in whose place there is nothing to give: advice to
    set it, --config.FIELD=VALUE, is left out. Commands, `python launch/...`, stay as they are.
    """
    fields = "|".join(re.escape(field) for field in sorted(names, key=len, reverse=True))
    named = re.compile(rf"(--)?({fields})(?!\.?\w)(=\S+ ?)?")

    def rename(match: re.Match[str]) -> str:
        dashes, field, value = match.group(1) or "", match.group(2), match.group(3) or ""
        name = names[field]
        if not name:
            return "" if dashes and value else match.group()
        return f"{'' if name.startswith('--') else dashes}{name}{value}"

    try:
        yield
    except UserError as error:
        parts = _COMMAND.split(str(error))
        parts[::2] = [named.sub(rename, part) for part in parts[::2]]
        raise UserError("".join(parts)) from error


def local_path(path: str | Path, name: str) -> Path:
    """The path with `~` expanded; `name` is the flag's or field's.

    Raises UserError for one that cannot exist here: remote, of an unknown user, too long, behind a closed folder, or a
    link to something that is not there.
    """
    if "://" in str(path):
        raise UserError(f"{name}: found {str(path)!r}, expected a local path; remote ones are not supported")
    try:
        expanded = Path(path).expanduser()
        expanded.stat()
    except FileNotFoundError:
        broken = next(
            (place for place in (expanded, *expanded.parents) if place.is_symlink() and not place.exists()), None
        )
        if broken:
            link = f"{str(broken)!r} is a link to {str(broken.readlink())!r}, which is not there"
            raise UserError(f"{name}: {link}; mend the link, or pass another path") from None
        return expanded
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{name}: {str(path)!r} cannot be used ({error}); pass another path") from error
    return expanded


def writable_path(path: str | Path, name: str) -> Path:
    """`local_path`, which can be created or written to. Raises UserError otherwise."""
    path = local_path(path, name)
    existing = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    if existing != path and not existing.is_dir():
        raise UserError(f"{name}: {str(existing)!r} is a file, expected a folder; pass another {name}")
    if not os.access(existing, os.W_OK):
        raise UserError(f"{name}: {str(existing)!r} cannot be written to; pass another {name}")
    return path
