"""What all launchers share: flags and exit codes."""

import logging
import sys
from collections.abc import Callable

from absl import flags

from dcgan_jax.errors import TrainingError, UserError

USER_ERROR, FAILURE, STOPPED = 2, 1, 75
INTERRUPTED = 130  # as a shell says of a command that Ctrl-C ended


def run(main: Callable[[], int | None], usage: str, *, check: Callable[[list[str]], None] | None = None) -> None:
    """Parses the flags, calls `main`, and exits: 0 done; 2 a mistake of the user's, told in one line; 1 a failure of
    training; whatever else `main` returns. `check` sees the arguments before absl does.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("dcgan_jax").setLevel(logging.INFO)
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(usage + "\n" + flags.FLAGS.main_module_help())
        sys.exit(0)
    try:
        if check:
            check(sys.argv[1:])
        rest = flags.FLAGS(sys.argv)[1:]
        if rest:
            raise UserError(f"arguments: found {' '.join(rest)!r}, expected flags such as --NAME=VALUE; see --help")
        sys.exit(main() or 0)
    except (UserError, flags.Error) as error:
        sys.exit(_complain(error, USER_ERROR))
    except TrainingError as error:
        sys.exit(_complain(error, FAILURE))
    except KeyboardInterrupt:
        sys.exit(_complain(KeyboardInterrupt("interrupted"), INTERRUPTED))


def _complain(error: BaseException, code: int) -> int:
    # absl wraps what went wrong into several lines, the reason last.
    text = str(error).strip()
    print(
        "error: " + (text if isinstance(error, (UserError, TrainingError)) else " ".join(text.split())), file=sys.stderr
    )
    return code
