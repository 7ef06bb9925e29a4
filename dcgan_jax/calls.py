"""What the loop sends to the devices: how many steps a call makes, by which function, and on which images.

Sending a call costs time, for small networks on accelerators more than a step: there one call makes several. On a CPU
it makes one, since convolutions inside of a loop are many times slower there.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from dcgan_jax import data, parallel, steps
from dcgan_jax.config import DUE
from dcgan_jax.errors import UserError

LARGEST = 16  # steps a call, where nobody says: a request to stop is seen after two calls at most


def steps_per_call(config: ConfigDict) -> int:
    """The steps that a call makes: `config.steps_per_call`, or where that is 0, what suits the devices."""
    if config.steps_per_call:
        return config.steps_per_call
    if jax.default_backend() == "cpu":
        return 1
    every = math.gcd(*(config[name] for name in DUE))
    return max(count for count in range(1, LARGEST + 1) if every % count == 0)


def placement(config: ConfigDict, image_set: data.ImageSet) -> str:
    """'host' or 'device': where the images are while training reads them.

    Raises UserError where the configuration wants them on a device that they do not fit.
    """
    limit, size = parallel.device_memory(), image_set.images.nbytes
    if config.data.placement == "device" and limit and size > limit:
        raise UserError(
            f"config.data.placement: found 'device' for {size / 1e9:.1f} GB of images, expected at most the device's "
            f"{limit / 1e9:.1f} GB; pass --config.data.placement=host"
        )
    if config.data.placement == "auto":
        return "device" if limit and size <= config.data.device_share * limit else "host"
    return config.data.placement


def schedule(start: int, end: int, count: int) -> Iterator[range]:
    """The calls that lead from step `start` to step `end`: range(s, t) is the one from step s to step t.

    Calls of `count` steps begin at its multiples alone, so that they end where something is due; what lies before the
    first multiple and after the last one is made step by step.
    """
    while start < end:
        size = count if start % count == 0 and start + count <= end else 1
        yield range(start, start + size)
        start += size


class Calls:
    """Calling it with a range of `schedule` gives the function to call, and its arguments on the devices.

    The state and this process's vote come before these arguments. What is measured has an entry a step, where the call
    makes several.
    """

    def __init__(self, config: ConfigDict, image_set: data.ImageSet, placed: str):
        self._batches = data.Batches(
            image_set,
            config.batch_size,
            config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        step: Callable = steps.make_train_step(config, parallel.AXIS)
        self._inputs: Callable[[int], Any] = self._batches
        self._constant: tuple = ()
        if placed == "device":
            step, self._inputs = steps.from_device(step), self._batches.indices
            data_set = {"images": image_set.images, "labels": image_set.labels}
            data_set = {name: array for name, array in data_set.items() if array is not None}
            self._constant = (parallel.put(parallel.replicate(data_set)),)
        # Compiled when they are called: often there is only one kind of call.
        self._one = parallel.map_step(parallel.voting(step))
        self._several = parallel.map_step(parallel.voting(steps.several(step)))

    def __call__(self, made: range) -> tuple[Callable, tuple]:
        inputs = [parallel.shard(self._inputs(step)) for step in made]
        if len(inputs) == 1:
            return self._one, (*self._constant, parallel.put(inputs[0]))
        together = jax.tree.map(lambda *arrays: np.stack(arrays, axis=1), *inputs)
        return self._several, (*self._constant, parallel.put(together))
