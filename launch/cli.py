"""What all launchers share: flags and exit codes."""

import errno
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from absl import flags

from dcgan_jax import fields
from dcgan_jax.runtime import collector, command, streams
from dcgan_jax.runtime.errors import TrainingError, UserError, writable_path
from dcgan_jax.runtime.signals import INTERRUPTED

USER_ERROR, FAILURE = 2, 1
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
LARGEST_SEED = 2**31 - 1
# What Python and absl say of a flag's text that is no number, and what they expected.
_EXPECTED = {
    "invalid literal for int()": "a whole number",
    "could not convert string to float": "a number",
    "Non-boolean argument": "true or false",
}


def run(
    main: Callable[..., int | None],
    usage: str,
    *,
    read: Callable[[list[str]], list[str]] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    unused: Sequence[str] = (),
) -> None:
    """Parses the flags, calls `main`, and exits with a code.

    0: done. 2: a mistake of the user's, printed in one line. 1: a failure of training, or a full disk. Otherwise: what
    `main` returns. read: checks the arguments before absl parses them, and returns those to parse. names: the
    first argument must be one of them, and is passed to `main`; each has those flags of its own that not all of them
    use, and `NAME --help` leaves out those of the others, and `unused` ones. Nobody needs to read what is printed: a
    closed stream changes no code.
    """
    collector.collect_rarely()
    streams.open_closed()
    streams.forgive_closed_pipes()
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(_AsTyped())
    logging.basicConfig(level=logging.WARNING, handlers=[to_stderr])
    logging.getLogger("dcgan_jax").setLevel(logging.INFO)
    try:
        _help(sys.argv[1:], usage, names or {}, unused)
        if read:
            sys.argv[1:] = read(sys.argv[1:])
        rest = _parsed(sys.argv)[1:]
        chosen = [rest.pop(0)] if names and rest else []
        if names and (not chosen or chosen[0] not in names):
            raise UserError(f"NAME: found {chosen[0] if chosen else 'none'}, expected one of {', '.join(names)}")
        if rest:
            raise UserError(f"arguments: found {' '.join(rest)!r}, expected flags such as --NAME=VALUE; see --help")
        sys.exit(main(*chosen) or 0)
    except flags.IllegalFlagValueError as error:
        _leave(_plain(error), USER_ERROR)
    except (UserError, flags.Error) as error:
        _leave(error, USER_ERROR)
    except TrainingError as error:
        _leave(error, FAILURE)
    except KeyboardInterrupt:
        _leave(KeyboardInterrupt("interrupted"), INTERRUPTED)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            _leave(error, FAILURE)
        traceback.print_exc()
        leave(FAILURE)


def _help(arguments: list[str], usage: str, names: Mapping[str, Sequence[str]], unused: Sequence[str]) -> None:
    """Answers --help and, with a configuration, --help_config, and exits; JAX is not imported for them."""
    with_fields = "configuration" in sys.modules
    if with_fields and "--help_config" in arguments:
        print(f"Fields of a configuration, with their defaults:\n\n{fields.help_text()}")
        sys.exit(0)
    if {"-h", "--help"} & set(arguments):
        shared = [name for name in ("configuration", "image_sets", "processes") if name in sys.modules]
        left_out = set(unused)
        if chosen := next((name for name in arguments if name in names), None):
            left_out |= set().union(*names.values()) - set(names[chosen])
        for flag in left_out:
            delattr(flags.FLAGS, flag)
        texts = (usage, flags.FLAGS.main_module_help(), *map(flags.FLAGS.module_help, shared))
        print(*map(command.as_typed, texts), sep="\n")
        if with_fields:
            print(f"\n{fields.names_text()}")
        sys.exit(0)


def _parsed(arguments: list[str]) -> list[str]:
    """What absl leaves of the arguments. Raises UserError for a field of the configuration without --config."""
    try:
        return flags.FLAGS(arguments)
    except flags.UnrecognizedFlagError as error:
        name = error.flagname.replace("-", "_")
        known = [path for path in fields.flatten(fields.defaults()) if name in (path, path.rpartition(".")[2])]
        if not known or "configuration" not in sys.modules:
            raise
        advice = " or ".join(f"--config.{path}" for path in known)
        raise UserError(
            f"flags: {error.flagname!r} is unknown, expected {advice}, a field of the configuration"
        ) from None


def _plain(error: flags.IllegalFlagValueError) -> Exception:
    """The error in the words of all others, where it is one of Python's about numbers."""
    for reason, expected in _EXPECTED.items():
        if found := re.match(rf"flag (--[\w.]+)=(.*): \W*{re.escape(reason)}", str(error), re.DOTALL):
            return UserError(f"{found[1]}: found {found[2]!r}, expected {expected}")
    return error


class _AsTyped(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return command.as_typed(super().format(record))


def run_directory(workdir: str | None, example: str) -> Path:
    """The run directory that --workdir names, to append results to its evaluation.jsonl.

    Raises UserError, before anything is measured, if the flag is missing or nothing can be written there.
    """
    if workdir is None:
        raise UserError(f"--workdir: missing, expected a run directory, such as {example}")
    if _is_shared(workdir):
        raise UserError(
            f"--workdir: found {workdir!r}, expected a folder of yours, as results are written there: python "
            f"launch/export_weights.py --format=hub --workdir={workdir} --out=FOLDER makes one of it"
        )
    folder = writable_path(workdir, "--workdir")
    results = folder / "evaluation.jsonl"
    if results.exists() and not (results.is_file() and os.access(results, os.W_OK)):
        raise UserError(f"--workdir: {str(results)!r} cannot be written to, expected a file for results; move it away")
    return folder


def output(out: str | None, workdir: str, *default: str) -> Path:
    """Where a launcher writes: --out, or the default in the run directory.

    Raises UserError if nothing can be written there, or networks that are not in a folder of the user's need an --out.
    """
    if out is None and _is_shared(workdir):
        raise UserError(f"--out: missing, expected a path, as nothing is written into {workdir!r}")
    return writable_path(out or Path(workdir).joinpath(*default), "--out")


def _is_shared(workdir: str) -> bool:
    from dcgan_jax.run import places  # imports JAX

    return places.is_shared(workdir)


class StepParser(flags.ArgumentParser):
    """A flag's value that names a checkpoint: its step, or 'best'."""

    syntactic_help = "a step, or 'best'"

    def parse(self, argument: str | int) -> str | int:
        """Raises ValueError, which absl reports, for anything else."""
        if argument == "best":
            return argument
        if not str(argument).isdecimal():
            raise ValueError("expected a checkpoint's step, or 'best'")
        return int(argument)


def is_count(text: str) -> bool:
    """Whether a flag's text is a whole number above 0 that fits into int32."""
    return text.isdecimal() and len(text) < 10 and int(text) > 0


def _leave(error: BaseException, code: int) -> NoReturn:
    # absl's messages have several lines.
    text = command.as_typed(str(error).strip())
    text = text if isinstance(error, (UserError, TrainingError)) else " ".join(text.split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    print(f"error: {line}", file=sys.stderr)
    leave(code)


def leave(code: int) -> NoReturn:
    """Ends the process. One of several ends at once: by default it would wait for the others to end too.

    So does one that still compiles, or learns features: it would wait for that.
    """
    jax = sys.modules.get("jax")
    if jax and jax.distributed.is_initialized():
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        if jax.process_index() == 0:
            time.sleep(2)  # the others end with it, and may have an error to print as well
        os._exit(code)
    devices = sys.modules.get("dcgan_jax.runtime.devices")
    if devices and any(thread.name == devices.AHEAD for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
