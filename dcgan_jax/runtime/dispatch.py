"""Sends steps to the devices: how many steps one call makes, by which compiled program, and on which images.

A call has a cost of its own, for small networks on accelerators more than a step: there one call makes several steps.
On a CPU it makes one, since convolutions inside a loop are many times slower there.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from dcgan_jax.runtime import devices
from dcgan_jax.runtime.errors import UserError

Tree = Any
Step = Callable[..., tuple[Tree, Tree]]

MAX_STEPS_PER_CALL = 16  # unless someone asks for more: a request to stop is seen after two calls at most


class Batches(Protocol):
    """This process's share of each step's batch."""

    def __call__(self, step: int) -> Tree:
        """Arrays [B, ...] by name."""

    def indices(self, step: int) -> np.ndarray:
        """Their indices in the whole data set, int [B]."""


class Call(NamedTuple):
    """One call of the devices: steps range(s, t), from step s to step t; its program, and the program's arguments."""

    steps: range
    program: Callable
    arguments: tuple


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


def from_device(step: Step) -> Step:
    """The step over a data set in the device's memory: (state, all images and labels, indices int [B])."""

    def step_on_indices(state: Tree, data_set: dict[str, jax.Array], indices: jax.Array) -> tuple[Tree, Tree]:
        return step(state, {name: array[indices] for name, array in data_set.items()})

    return step_on_indices


def several(step: Step) -> Step:
    """Several steps in one call: the last argument and the metrics have a leading axis, one entry a step."""

    def steps(state: Tree, *arguments: Tree) -> tuple[Tree, Tree]:
        *constant, each = arguments
        return jax.lax.scan(lambda state, inputs: step(state, *constant, inputs), state, each)

    return steps


class Dispatcher:
    """Prepares calls and makes them.

    step: (state, batch) -> (state, metrics), pure, over the axis `devices.AXIS`; it takes `batches_per_step` batches,
    each shared out over all devices, one after the other. data_set: all images and labels, to be kept in the devices'
    memory; None: each batch is sent there.
    """

    def __init__(
        self,
        step: Step,
        batches: Batches,
        *,
        batches_per_step: int = 1,
        data_set: dict[str, np.ndarray] | None = None,
    ):
        self._inputs: Callable[[int], Tree] = batches
        self._batches_per_step = batches_per_step
        self._constant: tuple = ()
        if data_set is not None:
            step, self._inputs = from_device(step), batches.indices
            self._constant = (devices.put(devices.replicate(data_set)),)
        # Compiled when they are called: often there is only one kind of call.
        self._one = devices.map_step(devices.voting(step))
        self._several = devices.map_step(devices.voting(several(step)))
        self._compiled: set[Callable] = set()

    @functools.cached_property
    def _votes(self) -> dict[bool, jax.Array]:
        return {asked: devices.vote(asked) for asked in (False, True)}

    def prepare(self, steps: range) -> Call:
        """Reads the inputs of a call and starts to send them; may run ahead, in another thread."""
        inputs = [self._inputs_of(step) for step in steps]
        if len(inputs) == 1:
            return Call(steps, self._one, (*self._constant, devices.put(inputs[0])))
        stacked = jax.tree.map(lambda *arrays: np.stack(arrays, axis=1), *inputs)
        return Call(steps, self._several, (*self._constant, devices.put(stacked)))

    def _inputs_of(self, step: int) -> Tree:
        """Arrays [local devices, batches a step * B / devices, ...]."""
        first = step * self._batches_per_step
        batches = [devices.shard(self._inputs(first + i)) for i in range(self._batches_per_step)]
        return jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=1), *batches) if batches[1:] else batches[0]

    def compiles(self, call: Call) -> bool:
        """Whether this is the first call of its program, which compiles it."""
        return call.program not in self._compiled

    def __call__(self, state: Tree, call: Call, stop: bool) -> tuple[Tree, Tree, jax.Array]:
        """The new state, the metrics (an entry for each of several steps), and whether any process asks to stop."""
        self._compiled.add(call.program)
        return call.program(state, self._votes[stop], *call.arguments)
