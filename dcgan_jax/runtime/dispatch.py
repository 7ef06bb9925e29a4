"""Sends steps to the devices: how many steps one call makes, by which compiled program, and on which images.

A call has a cost of its own, for small networks on accelerators more than a step: there one call makes several steps.
On a CPU it makes one, since convolutions inside a loop are many times slower there.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from dcgan_jax.runtime import devices
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.runtime.progress import Progress

Tree = Any
Step = Callable[..., tuple[Tree, Tree]]

TITLE = "compiling the training step, kept for the next start"
MAX_STEPS_PER_CALL = 16  # unless someone asks for more: a request to stop is seen after two calls at most


class Batches(Protocol):
    """This process's share of each step's batch."""

    def __call__(self, step: int) -> Tree:
        """Arrays [B, ...] by name."""

    def indices(self, step: int) -> np.ndarray:
        """Their indices in the whole data set, int [B]."""


class Call(NamedTuple):
    """One call of the devices: steps range(s, t), from step s to step t, and what they read, on the devices."""

    steps: range
    inputs: Tree


def steps_per_call(wanted: int, intervals: Sequence[int]) -> int:
    """The steps of one call: `wanted`, or if that is 0, what suits the devices.

    intervals: numbers of steps at whose multiples a call must end; 0 is none.
    """
    if wanted:
        return wanted
    if jax.default_backend() == "cpu":
        return 1
    every = math.gcd(*intervals)
    return max(count for count in range(1, MAX_STEPS_PER_CALL + 1) if every % count == 0)


def placement(wanted: str, nbytes: int, share: float) -> str:
    """'host' or 'device': where images of `nbytes` are while training reads them.

    wanted: 'host', 'device', or 'auto': 'device' on an accelerator if they fit in this share of its memory.
    Raises UserError if they are wanted on a device that they do not fit in.
    """
    limit = devices.device_memory()
    if wanted == "device" and limit and nbytes > limit:
        raise UserError(
            f"config.data.placement: found 'device' for {nbytes / 1e9:.1f} GB of images, expected at most the device's "
            f"{limit / 1e9:.1f} GB; pass --config.data.placement=host"
        )
    if wanted == "auto":
        return "device" if limit and nbytes <= share * limit else "host"
    return wanted


def schedule(start: int, end: int, count: int) -> Iterator[range]:
    """The steps of each call from step `start` to step `end`.

    Calls of `count` steps begin at multiples of it, so that they end when something is due; what lies before the first
    multiple and after the last one is made step by step.
    """
    while start < end:
        size = count if start % count == 0 and start + count <= end else 1
        yield range(start, start + size)
        start += size


def sizes(start: int, end: int, count: int) -> list[int]:
    """How many steps the calls of `schedule` make: one, `count`, or both, in the order in which they come first."""
    first, last = -(-start // count) * count, end // count * count  # between these calls make `count`
    if first >= last:
        return [1]
    found = [1] * (start < first) + [count] + [1] * (last < end)
    return list(dict.fromkeys(found))


def several(step: Step) -> Step:
    """Several steps in one call: batches, votes' results and metrics have a leading axis, one entry a step."""

    def steps(state: Tree, batches: Tree) -> tuple[Tree, Tree]:
        return jax.lax.scan(step, state, batches)

    return steps


class Programs:
    """The programs of a run's steps, by how many one call makes; they are compiled in threads from now on.

    step: (state, batch) -> (state, metrics), pure, over the axis `devices.AXIS`. state, batch: shapes and dtypes on the
    devices of this process, with their leading axis. sizes: of the calls that there will be: nothing else is compiled.
    """

    def __init__(self, step: Step, state: Tree, batch: Tree, sizes: Sequence[int]):
        vote = jax.ShapeDtypeStruct((jax.local_device_count(),), np.int32)
        self._compiling: dict[int, Future[Callable]] = {}
        self._arguments, self._began = {}, time.monotonic()
        for size in sizes:
            mapped = step if size == 1 else several(step)
            inputs = batch if size == 1 else jax.tree.map(lambda x, size=size: _with_axis(x, size), batch)
            self._arguments[size] = state, vote, inputs
            with Progress("tracing the training step"):
                self._compiling[size] = devices.compile_in_thread(TITLE, devices.voting(mapped), state, vote, inputs)

    def __getitem__(self, size: int) -> Callable:
        """The program of calls of so many steps, when it is compiled."""
        return self._compiling[size].result()

    def wait(self) -> None:
        """Returns when all are compiled, or cannot be."""
        for compiling in self._compiling.values():
            compiling.exception()

    def waiting(self, size: int) -> Progress:
        """Shows the wait for the compiler, which has been at work since these programs were made."""
        return Progress(TITLE, compiles=self._arguments[size], since=self._began)


def _with_axis(x: jax.ShapeDtypeStruct, size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((x.shape[0], size, *x.shape[1:]), x.dtype)


def _gather(data_set: dict[str, jax.Array], indices: jax.Array) -> dict[str, jax.Array]:
    return {name: array[indices] for name, array in data_set.items()}


class Dispatcher:
    """Prepares calls and makes them.

    programs: of a step that takes `batches_per_step` batches, each shared out over all devices, one after the other.
    data_set: all images and labels, to be kept in the devices' memory; None: each batch is sent there. Batches are
    gathered by a program of their own, so that those of the steps depend on no data set.
    """

    def __init__(
        self,
        programs: Programs,
        batches: Batches,
        *,
        batches_per_step: int = 1,
        data_set: dict[str, np.ndarray] | None = None,
    ):
        self._programs, self._batches_per_step = programs, batches_per_step
        self._inputs: Callable[[int], Tree] = batches
        self._to_batch: Callable[[Tree], Tree] = lambda inputs: inputs
        if data_set is not None:
            self._inputs = batches.indices
            gather = devices.map_step(_gather, donate=False)
            self._to_batch = functools.partial(gather, devices.put(devices.replicate(data_set)))
        self._called: set[int] = set()

    @functools.cached_property
    def _votes(self) -> dict[bool, jax.Array]:
        return {asked: devices.vote(asked) for asked in (False, True)}

    def prepare(self, steps: range) -> Call:
        """Reads the inputs of a call and starts to send them; may run ahead, in another thread."""
        inputs = [self._inputs_of(step) for step in steps]
        if len(inputs) == 1:
            return Call(steps, devices.put(inputs[0]))
        return Call(steps, devices.put(jax.tree.map(lambda *arrays: np.stack(arrays, axis=1), *inputs)))

    def _inputs_of(self, step: int) -> Tree:
        """Arrays [local devices, batches a step * B / devices, ...]."""
        first = step * self._batches_per_step
        batches = [devices.shard(self._inputs(first + i)) for i in range(self._batches_per_step)]
        return jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=1), *batches) if batches[1:] else batches[0]

    def compiles(self, call: Call) -> bool:
        """Whether this is the first call of its program, which may have to wait for the compiler."""
        return len(call.steps) not in self._called

    def __call__(self, state: Tree, call: Call, stop: bool) -> tuple[Tree, Tree, jax.Array]:
        """The new state, the metrics (an entry for each of several steps), and whether any process asks to stop."""
        size, inputs = len(call.steps), self._to_batch(call.inputs)
        with self._programs.waiting(size) if self.compiles(call) else nullcontext():
            self._called.add(size)
            return self._programs[size](state, self._votes[stop], inputs)
