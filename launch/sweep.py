"""Trains a grid of settings, or random ones: python launch/sweep.py --config=configs/NAME.py --set FIELD=VALUE,VALUE

    python launch/sweep.py --config=configs/digits.py --set generator_lr=1e-4,5e-4 --set seed=0,1
    python launch/sweep.py --config=configs/digits.py --set 'generator_lr=1e-4..1e-2 log' --random=8 --run

Prints a command of launch/train.py for each point; --run runs them one after the other. The first makes a grid of four.
A range needs --random=N, which draws N points. Values that hold commas are separated by semicolons, in quotes:
--set 'image_size=32,64;64,64'. --config.KEY=VALUE holds for all points.

Each point has a run directory named by its values, in --workdir. The same command again skips the finished ones and
resumes the others. If a point fails, the rest still run, and the exit code is 1. At the end there is a table, the best
point first, by its configuration's best_metric. --table=markdown prints it without running anything, of any folder of
runs: python launch/sweep.py --workdir=runs --table=csv
"""

import logging
import shlex
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cli
import configuration
from absl import flags

from dcgan_jax.runtime import command
from dcgan_jax.runtime.errors import UserError, local_path, writable_path
from dcgan_jax.runtime.signals import STOPPED

if TYPE_CHECKING:
    from ml_collections import ConfigDict

log = logging.getLogger("dcgan_jax")

SET = flags.DEFINE_multi_string("set", [], "FIELD=VALUE,VALUE,..., or FIELD=LOW..HIGH, also with ' log'; once a field")
RANDOM = flags.DEFINE_integer("random", None, "draw so many points at random, in place of a grid", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "seed of the points of --random", 0, cli.LARGEST_SEED)
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the runs; sweeps/NAME by default")
RUN = flags.DEFINE_bool("run", False, "run the commands, one after the other")
TABLE = flags.DEFINE_enum(
    "table", None, ["markdown", "csv", "json"], "print a table of the runs so far; with --run, the kind of its table"
)


class Planned(NamedTuple):
    """A point of the sweep: its run directory, its flags for launch/train.py, and its checked configuration."""

    workdir: Path
    flags: list[str]
    config: "ConfigDict"


def main() -> int:
    if SEED.present and RANDOM.value is None:
        raise UserError(f"--seed: found {SEED.value} without --random; --set seed={SEED.value} is the networks' seed")
    if TABLE.value and not RUN.value and not SET.value:
        return _print_table([])
    planned = _plan()
    if RUN.value:
        return _run_all(planned)
    if TABLE.value:
        return _print_table(planned)
    for point in planned:
        print(shlex.join([*command.typed("train"), *point.flags]))
    return 0


def _plan() -> list[Planned]:
    """All points. Raises UserError for the first mistake in one of them."""
    from dcgan_jax.config import validate
    from dcgan_jax.fields import shown
    from dcgan_jax.run import points

    config, name = configuration.from_flags()
    choices, given = points.parse(SET.value), configuration.given()
    if twice := sorted(given.keys() & choices.keys()):
        raise UserError(f"--set: found {twice[0]}, which --config.{twice[0]} gives too; remove one")
    found = points.random(choices, RANDOM.value, SEED.value) if RANDOM.value else points.grid(choices)
    folder = writable_path(_folder(f"sweeps/{name}"), "--workdir")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--workdir: {str(folder)!r} is a file, expected a folder; pass another --workdir")
    planned = []
    for point in found:
        values = [f"--config.{field}={shown(value)}" for field, value in (given | point).items()]
        workdir = folder / points.name_of(point)
        arguments = [f"--config={configuration.typed()}", *values, f"--workdir={workdir}"]
        planned.append(Planned(workdir, arguments, validate(points.applied(config, point))))
    for one in planned:
        _check_recorded(one)
    return planned


def _check_recorded(point: Planned) -> None:
    """Raises UserError if there is another run in the point's directory."""
    from dcgan_jax.config import differences
    from dcgan_jax.run import comparison

    old = comparison.recorded(point.workdir)
    if old and (differing := differences(old, point.config.to_dict())):
        raise UserError(
            f"--workdir: {str(point.workdir)!r} was written by another configuration ({'; '.join(differing)}); "
            "pass another --workdir, or the old values"
        )


def _folder(default: str | None = None) -> Path:
    if WORKDIR.value == "" or (WORKDIR.value is None and default is None):
        raise UserError("--workdir: missing, expected a folder of runs, such as sweeps/digits")
    return local_path(WORKDIR.value or default or "", "--workdir")


def _run_all(planned: list[Planned]) -> int:
    from dcgan_jax.run import comparison

    folder = planned[0].workdir.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--workdir: {str(folder)!r} cannot be made ({error.strerror}); pass another --workdir"
        ) from error
    failed = []
    for number, point in enumerate(planned, 1):
        done = comparison.last_checkpoint(point.workdir) >= point.config.num_steps
        log.info("point %d of %d%s: %s", number, len(planned), ", finished" if done else "", point.workdir)
        if done:
            continue
        code, stopped = _run(point)
        if stopped:
            log.warning("stopped at point %d of %d; the same command goes on", number, len(planned))
            return STOPPED
        if code:
            log.warning("point %d of %d failed with exit code %d: %s", number, len(planned), code, point.workdir)
            failed.append(str(point.workdir))
    if failed:
        log.warning("%d of %d points failed: %s", len(failed), len(planned), ", ".join(failed))
    _print_table(planned, write=True)
    return cli.FAILURE if failed else 0


def _run(point: Planned) -> tuple[int, bool]:
    """Trains a point in a process of its own. Returns its exit code, and whether the sweep is to stop."""
    asked = []
    with subprocess.Popen([*command.started("train"), *point.flags]) as child:

        def stop(number: int, frame: object) -> None:
            asked.append(number)
            if number == signal.SIGTERM:  # Ctrl-C reaches the child by itself
                child.terminate()

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            code = child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return code, bool(asked) or code == STOPPED


def _print_table(planned: list[Planned], *, write: bool = False) -> int:
    """Prints the table of these points and of all other runs in the folder. write: also into a file, named last."""
    from dcgan_jax.run import comparison
    from dcgan_jax.runtime import files

    folder = planned[0].workdir.parent if planned else _folder()
    runs = {path for path in folder.glob("*") if comparison.recorded(path)} | {point.workdir for point in planned}
    if not runs:
        raise UserError(f"--workdir: {str(folder)!r} holds no runs, expected a folder of run directories")
    kind = TABLE.value or "markdown"
    text = comparison.table(comparison.rows(sorted(runs)), kind)
    print(text, end="")
    if write:
        file = folder / f"table.{comparison.FORMATS[kind]}"
        files.write_text(file, text)
        print(file)
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, read=configuration.read)
