"""Keeps Python's collector of cyclic garbage from imports and traces, which make many objects and hardly a cycle.

It walks through all young objects whenever some hundred more were made than freed, and now and then through all there
are. While JAX is imported and a training step is traced that is a sixth of the time (docs/performance.md).
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# So many more objects made than freed, so many times over for the two older generations: some ten megabytes.
THRESHOLDS = (50_000, 20, 20)
FROZEN = 1000  # Python 3.12 itself freezes some hundred objects at its start, which does not matter


def collect_rarely() -> None:
    """For the rest of the process; does nothing if the collector is off."""
    if gc.isenabled():
        gc.set_threshold(*THRESHOLDS)


@contextmanager
def paused_to_import(module: str) -> Iterator[None]:
    """Collects nothing inside, in a process that is the user's own, unless `module` is imported already.

    Afterwards all objects count as old, so that what was imported is not gone through at once. That may happen only
    once a module: garbage that is made old again and again is never found. What other threads tell the collector
    meanwhile is lost.
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() < FROZEN:  # more are the user's, and would be thawed
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        gc.enable()
