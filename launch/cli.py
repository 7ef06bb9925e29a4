"""What all launchers share: flags and exit codes."""

import errno
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from absl import flags

from dcgan_jax.errors import TrainingError, UserError, writable_path
from dcgan_jax.stop import INTERRUPTED

USER_ERROR, FAILURE = 2, 1
FULL = (errno.ENOSPC, errno.EDQUOT)  # disks
LARGEST_SEED = 2**31 - 1


def run(
    main: Callable[..., int | None],
    usage: str,
    *,
    check: Callable[[list[str]], None] | None = None,
    names: Sequence[str] = (),
) -> None:
    """Parses the flags, calls `main`, and exits: 0 done; 2 a mistake of the user's, told in one line; 1 a failure of
    training, or a full disk; whatever else `main` returns. `check` sees the arguments before absl does. Where there are
    `names`, one of them is the first argument, and `main` gets it.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("dcgan_jax").setLevel(logging.INFO)
    if {"-h", "--help"} & set(sys.argv[1:]):
        shared = [name for name in ("configuration", "image_sets", "processes") if name in sys.modules]
        print(usage, flags.FLAGS.main_module_help(), *map(flags.FLAGS.module_help, shared), sep="\n")
        sys.exit(0)
    try:
        if check:
            check(sys.argv[1:])
        rest = flags.FLAGS(sys.argv)[1:]
        chosen = [rest.pop(0)] if names and rest else []
        if names and (not chosen or chosen[0] not in names):
            raise UserError(f"NAME: found {chosen[0] if chosen else 'none'}, expected one of {', '.join(names)}")
        if rest:
            raise UserError(f"arguments: found {' '.join(rest)!r}, expected flags such as --NAME=VALUE; see --help")
        sys.exit(main(*chosen) or 0)
    except (UserError, flags.Error) as error:
        _leave(error, USER_ERROR)
    except TrainingError as error:
        _leave(error, FAILURE)
    except KeyboardInterrupt:
        _leave(KeyboardInterrupt("interrupted"), INTERRUPTED)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            _leave(error, FAILURE)
        traceback.print_exc()
        leave(FAILURE)


def run_to_add_to(workdir: str | None, example: str) -> Path:
    """The folder that --workdir names, for results to be added to.

    Raises UserError, before anything is measured, where the flag is missing or nothing can be written there.
    """
    if workdir is None:
        raise UserError(f"--workdir: missing, expected the folder of a run, such as {example}")
    folder = writable_path(workdir, "--workdir")
    results = folder / "evaluation.jsonl"
    if results.exists() and not (results.is_file() and os.access(results, os.W_OK)):
        raise UserError(f"--workdir: {str(results)!r} cannot be written to, expected a file for results; move it away")
    return folder


def is_count(text: str) -> bool:
    """Whether a flag's text is a whole number above 0 that int32 holds."""
    return text.isdecimal() and len(text) < 10 and int(text) > 0


def _leave(error: BaseException, code: int) -> NoReturn:
    # absl wraps what went wrong into several lines, the reason last.
    text = str(error).strip()
    text = text if isinstance(error, (UserError, TrainingError)) else " ".join(text.split())
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    print(f"error: {line}", file=sys.stderr)
    leave(code)


def leave(code: int) -> NoReturn:
    """Ends the process; one of several ends without waiting, as it otherwise would, for the others to end too."""
    jax = sys.modules.get("jax")
    if jax and jax.distributed.is_initialized():
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        if jax.process_index() == 0:
            time.sleep(2)  # its end is the end of the others, who may have the same to tell
        os._exit(code)
    sys.exit(code)
