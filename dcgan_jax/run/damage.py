"""What counts as damage of a checkpoint: what can be shown to be wrong with its bytes, and nothing else.

Whatever else goes wrong while a checkpoint is read (the system's errors, missing memory, a fault in a program) is told
as what it is: it would meet every other checkpoint as well, and nothing may be set aside for it.
"""

import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.versions import versions

# Orbax writes JSON: our meta, and the tree of arrays, whose keys are those of dictionaries (2) and whose leaves are
# arrays or empty dictionaries.
META, DESCRIPTION = "meta/metadata", "state/_METADATA"
OLD_ARRAYS = "state/checkpoint"  # where formats older than ours have arrays; orbax reads it if it is there
DICTIONARY_KEY, LEAVES = 2, {"np.ndarray", "Dict"}
# Tensorstore's errors are ValueErrors with a status (none is INVALID_ARGUMENT), what it was doing and, if the system
# has refused something, the system's number.
STATUS = re.compile(r"([A-Z]+(?:_[A-Z]+)*): ")
SYSTEM_ERROR = re.compile(r"\[os_error_code='(\d+)'\]")
DETAILS = re.compile(r" \[\w+='.*")
DOING = re.compile(r"Error (?:reading|decoding|opening) ")
READING = re.compile(r"Error (?:reading|decoding) |Metadata at .* does not exist")
ABOUT_BYTES = ("DATA_LOSS", "FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND", "OUT_OF_RANGE")
ABOUT_THE_SYSTEM = ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAVAILABLE")
MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


class Damaged(UserError):
    """A checkpoint that is not what was written."""

    def __init__(self, place: Path, reason: str):
        super().__init__(
            f"checkpoint: {str(place)!r} is damaged ({reason}); move that folder away to use the one before"
        )


@contextmanager
def told(place: Path) -> Iterator[None]:
    """Tells errors from the block, which reads the checkpoint in the folder `place`.

    Raises Damaged if its bytes are wrong, UserError if the system cannot read them or another version of orbax is
    needed, and all else as it is.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if fault := _fault_of_arrays(error):
            raise Damaged(place, fault) from error
        if not _is_of_the_system(error):
            _check_files(place)
        if _is_of_the_system(error) or isinstance(error, OSError):
            raise UserError(
                f"checkpoint: {str(place)!r} cannot be read ({reason(error)}); mend that, and start again"
            ) from error
        raise


def read_json(place: Path, name: str) -> dict[str, Any]:
    """The content of one of the JSON files, META or DESCRIPTION. Raises Damaged if there is none, and OSError."""
    try:
        content = json.loads((place / name).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise Damaged(place, f"its file {name} is missing") from None
    except (ValueError, RecursionError) as error:
        raise Damaged(place, f"its file {name} is no JSON: {reason(error)}") from error
    if not isinstance(content, dict):
        raise Damaged(place, f"its file {name} holds no JSON object")
    return content


def reason(error: BaseException) -> str:
    """The reason of an error on one line, in at most 200 characters."""
    text = DETAILS.sub("", (str(error).strip().splitlines() or [type(error).__name__])[0])
    return text if len(text) <= 200 else f"{text[:90]} ... {text[-100:]}"  # the end holds the system's own words


def _status(error: Exception) -> str:
    """Tensorstore's status; '' for an error of another library."""
    if not isinstance(error, ValueError):
        return ""
    if found := STATUS.match(str(error)):
        return found[1]
    return "INVALID_ARGUMENT" if DOING.match(str(error)) else ""


def _system_error(error: Exception) -> int | None:
    """The number of the system's error behind an error, if there is one."""
    if isinstance(error, OSError):
        return error.errno
    found = SYSTEM_ERROR.search(str(error)) if _status(error) else None
    return int(found[1]) if found else None


def _is_of_the_system(error: Exception) -> bool:
    return _system_error(error) not in (None, *MISSING) or _status(error) in ABOUT_THE_SYSTEM


def _fault_of_arrays(error: Exception) -> str | None:
    """What tensorstore found wrong with the bytes of the arrays, if the error is about that."""
    about_bytes = _status(error) in ABOUT_BYTES and not _is_of_the_system(error)
    return reason(error) if about_bytes and READING.search(str(error)) else None


def _check_files(place: Path) -> None:
    """Raises Damaged if the files that say what to read are not what was written: then orbax may raise anything.

    Raises UserError if it may only be that another version of orbax has written them.
    """
    if (place / OLD_ARRAYS).exists():
        raise Damaged(place, f"somebody has added {OLD_ARRAYS}")
    try:
        versions_there = read_json(place, META).get("versions")
        odd = _odd_entry(read_json(place, DESCRIPTION).get("tree_metadata"))
    except OSError:
        return
    if odd is None:
        return
    package = "orbax-checkpoint"
    here = versions()[package]
    there = versions_there.get(package, here) if isinstance(versions_there, dict) else here
    if there != here:
        raise UserError(
            f"checkpoint: {str(place)!r} cannot be read by {package} {here}, and was written by {there}; install that"
        )
    raise Damaged(place, f"its file {DESCRIPTION} holds {odd}")


def _odd_entry(entries: Any) -> str | None:
    if not isinstance(entries, dict) or not entries:
        return "no leaves"
    for name, entry in entries.items():
        try:
            names = tuple(key["key"] for key in entry["key_metadata"])
            types = {key["key_type"] for key in entry["key_metadata"]}
            leaf, skipped = entry["value_metadata"]["value_type"], entry["value_metadata"]["skip_deserialize"]
        except (KeyError, TypeError):
            return f"no key or value of {name}"
        if name != str(names) or types != {DICTIONARY_KEY} or leaf not in LEAVES or skipped != (leaf == "Dict"):
            return f"another key or value of {name} than was written"
    return None
