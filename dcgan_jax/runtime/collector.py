"""Keeps Python's collector of cyclic garbage from the imports and from tracing, where it finds next to nothing.

It walks through all young objects whenever 700 more were made than freed, and now and then through all there are: while
JAX is imported and a training step is traced that is a fifth of the time (docs/performance.md).
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# So many more objects made than freed, so many times over for the two older generations: some ten megabytes.
THRESHOLDS = (50_000, 20, 20)


def collect_rarely() -> None:
    """For the rest of the process; does nothing if the collector is off."""
    if gc.isenabled():
        gc.set_threshold(*THRESHOLDS)


@contextmanager
def paused() -> Iterator[None]:
    """Collects nothing inside, and does not go through all that was made there when it ends, but counts it as old.

    For moments in a process that is the user's own: nothing is exempt from later collections.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # which the user may have done, and which would be undone
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        gc.enable()
