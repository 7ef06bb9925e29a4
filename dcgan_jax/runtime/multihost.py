"""What the processes of a job exchange outside the training step: errors, settings, states, arrays.

With a single process all of it costs nothing.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from dcgan_jax.runtime.errors import TrainingError, UserError

Tree = Any
T = TypeVar("T")

KEEP_ALIVE = 60  # seconds between messages while a process works longer than the others


@contextmanager
def fail_on_all() -> Iterator[None]:
    """If the block fails on one process, it fails on all, so that nobody waits for one that has left.

    All raise UserError if that is what one has raised, with the number of the process; otherwise the others raise
    TrainingError.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    if jax.process_count() == 1:
        if failure:
            raise failure
        return
    text = "" if failure is None else str(failure).strip() or type(failure).__name__
    kind = "" if failure is None else "user" if isinstance(failure, UserError) else "training"
    told = gather(f"{kind} {text}" if failure else "")
    failed = [process for process, line in enumerate(told) if line]
    if not failed:
        return
    kind, _, text = told[failed[0]].partition(" ")
    if failure and failed[0] == jax.process_index():
        raise failure
    where = "" if len(failed) == len(told) else f"process {failed[0]}: "
    raise (UserError if kind == "user" else TrainingError)(where + text) from failure


def run_on_all(work: Callable[[], T]) -> T:
    """The result of `work` on this process, once all processes have finished theirs, however long that takes.

    If it fails on one, it fails on all (`fail_on_all`).
    """
    if jax.process_count() == 1:
        return work()
    with ThreadPoolExecutor(1) as pool, fail_on_all():
        future = pool.submit(work)
        # A collective that waits for longer than half an hour would give up.
        working = True
        while working:
            wait([future], timeout=KEEP_ALIVE)
            working = "working" in gather("" if future.done() else "working")
        return future.result()


@contextmanager
def report_lost_processes() -> Iterator[None]:
    """Raises TrainingError, one line, if a step of several processes fails: most often one of them is gone."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"process {jax.process_index()}: the other processes are gone, or a step failed ({reason[:200]}); the same "
            "command, on all of them, resumes"
        ) from error


def check_equal(settings: dict[str, Any]) -> None:
    """Raises UserError, on all processes, that names each setting whose values (JSON) differ between them."""
    told = [json.loads(text) for text in gather(json.dumps(settings))]
    differing = []
    for name in sorted(set().union(*told)):
        values = [settings.get(name) for settings in told]
        other = next((process for process, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            differing.append(f"{name}: {values[0]!r} on process 0, {values[other]!r} on process {other}")
    if differing:
        raise UserError(f"the processes of this job differ ({'; '.join(differing)}); start all of them alike")


def gather(text: str) -> list[str]:
    """The texts of all processes, in their order, on every process."""
    if jax.process_count() == 1:
        return [text]
    encoded = np.frombuffer(text.encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.array([len(encoded)], np.int32)).ravel()
    padded = np.zeros(max(1, lengths.max()), np.uint8)
    padded[: len(encoded)] = encoded
    rows = multihost_utils.process_allgather(padded)
    return [rows[process, :length].tobytes().decode() for process, length in enumerate(lengths)]


def broadcast(tree: Tree) -> Tree:
    """The numpy arrays of process 0, bit for bit, on every process; all have the same shapes and dtypes."""
    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    # One vector of bits: many small collectives are slow, and a sum of floats would lose the sign of zeros.
    flat = np.concatenate([np.ascontiguousarray(leaf).reshape(-1).view(np.uint8) for leaf in leaves])
    words = np.pad(flat, (0, -len(flat) % 4)).view(np.uint32)
    flat = np.asarray(multihost_utils.broadcast_one_to_all(words)).view(np.uint8)[: len(flat)]
    pieces = np.split(flat, np.cumsum([leaf.nbytes for leaf in leaves])[:-1])
    pieces = [piece.copy().view(leaf.dtype).reshape(leaf.shape) for piece, leaf in zip(pieces, leaves, strict=True)]
    return jax.tree.unflatten(structure, pieces)


def gather_arrays(array: np.ndarray) -> list[np.ndarray]:
    """The arrays of all processes, bit for bit, in their order, on every process. Only their lengths may differ."""
    if jax.process_count() == 1:
        return [array]
    lengths = [int(text) for text in gather(str(len(array)))]
    padded = np.zeros((max(lengths), *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    # As words: JAX would make float32 of float64.
    words = np.pad(padded.reshape(-1).view(np.uint8), (0, -padded.nbytes % 4)).view(np.uint32)
    rows = np.asarray(multihost_utils.process_allgather(words))
    arrays = [row.view(np.uint8)[: padded.nbytes].view(array.dtype).reshape(padded.shape) for row in rows]
    return [array[:length] for array, length in zip(arrays, lengths, strict=True)]
