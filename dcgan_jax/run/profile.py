"""A trace of some steps of training, by JAX's profiler, for TensorBoard and Perfetto: `config.profile=START:STEPS`."""

import logging
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import jax
from ml_collections import ConfigDict

from dcgan_jax.runtime.dispatch import Call
from dcgan_jax.runtime.errors import UserError

log = logging.getLogger("dcgan_jax")

FOLDER = "profile"


def steps(text: str) -> range:
    """The steps that 'START:STEPS' names: those from step START to step START + STEPS; none for ''."""
    start, _, count = text.partition(":")
    return range(int(start), int(start) + int(count)) if text else range(0)


def check(config: ConfigDict) -> None:
    """Raises UserError if the run ends before the steps that are to be traced."""
    wanted = steps(config.profile)
    if wanted.stop > config.num_steps:
        raise UserError(
            f"config.profile: found {config.profile!r}, the steps up to {wanted.stop}, expected at most num_steps "
            f"({config.num_steps})"
        )


def traced(
    calls: Iterable[Call], config: ConfigDict, workdir: Path, paused: Callable[[], AbstractContextManager[None]]
) -> Generator[Call]:
    """The same calls of the devices; those that make a wanted step are traced on process 0, into WORKDIR/profile.

    The trace ends one call later, when the results of the last one have been read and so are there. paused: for
    starting and ending it, which take seconds. To be closed, as the loop may end early.
    """
    wanted = steps(config.profile) if jax.process_index() == 0 else range(0)
    tracing, began, calls_after = False, False, 0
    try:
        for call in calls:
            calls_after += call.steps.start >= wanted.stop
            if tracing and calls_after == 2:
                tracing = _end(workdir, paused)
            if not began and calls_after == 0 and call.steps.stop > wanted.start:
                tracing, began = _begin(workdir, paused), True
            yield call
    finally:
        if tracing:
            _end(workdir, paused)
        if wanted and not began:
            log.warning("config.profile: there is no trace, as no step from %d on was made", wanted.start)


def _begin(workdir: Path, paused: Callable[[], AbstractContextManager[None]]) -> bool:
    with paused():
        try:
            jax.profiler.start_trace(workdir / FOLDER)
        except (OSError, RuntimeError, ValueError) as error:  # another profiler is at work, perhaps
            log.warning("config.profile: there is no trace (%s)", error)
            return False
    return True


def _end(workdir: Path, paused: Callable[[], AbstractContextManager[None]]) -> bool:
    with paused():
        try:
            jax.profiler.stop_trace()
            log.info("profile: %s, for TensorBoard and ui.perfetto.dev", workdir / FOLDER)
        except (OSError, RuntimeError, ValueError) as error:
            log.warning("config.profile: the trace could not be written (%s)", error)
    return False
