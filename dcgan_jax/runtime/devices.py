"""The only file that knows pmap: states replicated over devices, batches shared out, steps mapped.

A replicated state has a leading axis, one entry a local device, all of them equal.
"""

import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.extend import backend

from dcgan_jax.runtime.compile_times import Compilation
from dcgan_jax.runtime.errors import UserError

T = TypeVar("T")
Tree = Any
AXIS = "replica"
AHEAD = "ahead of training"  # the name of threads that a process which ends does not wait for
# What the user asks JAX for, by the names of the environment variables.
ASKED = {"JAX_PLATFORMS": "jax_platforms", "JAX_PLATFORM_NAME": "jax_platform_name"}


def check() -> None:
    """Raises UserError unless JAX has a device of the kind that was asked for; costs nothing once it has one.

    Of several processes each must have joined the others before.
    """
    try:
        jax.local_devices()
    except (RuntimeError, AssertionError, ValueError) as error:  # AssertionError: nothing was tried at all
        raise UserError(_missing(str(error).strip())) from error


def _missing(reason: str) -> str:
    reason = re.sub(r"\n.*| \((set|you may) .*", "", reason, flags=re.DOTALL)  # JAX's own advice
    told = f" ({reason[:200]})" if reason else ""
    asked = {name: value for name, setting in ASKED.items() if (value := jax.config.values.get(setting))}
    if not asked:
        return f"devices: JAX finds none{told}; mend that, or set JAX_PLATFORMS=cpu to compute on the CPU"
    there = _platforms()
    name, value = next(iter(asked.items()))
    expected = f"expected {' or '.join(there)}, which is all that JAX finds here" if there else "which JAX cannot use"
    return f"{name}: found {value!r}, {expected}{told}; unset {name}, or set it to cpu to compute on the CPU"


def _platforms() -> list[str]:
    """The kinds of devices that JAX finds if it is asked for none."""
    asked = {setting: jax.config.values.get(setting) for setting in ASKED.values()}
    try:
        for setting in asked:
            jax.config.update(setting, "")
        backend.clear_backends()
        return sorted({device.platform for device in jax.local_devices()})
    except Exception:  # a broken plugin may raise anything
        return []
    finally:  # nobody goes on with another device than was asked for
        for setting, value in asked.items():
            jax.config.update(setting, value)
        backend.clear_backends()


def meet() -> None:
    """Returns when all devices of all processes have taken part in each kind of collective."""
    multihost_utils.process_allgather(np.zeros(1, np.int32))
    jax.block_until_ready(jax.pmap(lambda x: jax.lax.psum(x, AXIS), axis_name=AXIS)(vote(False)))


def check_batch_size(batch_size: int, *, synchronised: bool) -> None:
    """Raises UserError unless the global batch divides among all devices of all processes, with at least two images on
    each if batch norm takes its statistics there.
    """
    devices = jax.device_count()
    if batch_size % devices:
        above = (batch_size // devices + 1) * devices
        raise UserError(
            f"config.batch_size: found {batch_size}, expected a multiple of the {devices} devices; try {above}"
        )
    if not synchronised and batch_size < 2 * devices:
        raise UserError(
            f"config.batch_size: found {batch_size} for {devices} devices with sync_batch_norm=False, expected at "
            f"least 2 images a device; try {2 * devices}"
        )


def replicate(tree: Tree) -> Tree:
    """Arrays [...] to [local devices, ...], ready for a mapped step."""
    devices = jax.local_device_count()
    return jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (devices, *np.shape(x))), tree)


def first_replica(tree: Tree) -> Tree:
    """The first local replica as numpy arrays of their own, which no later step's donation can touch."""
    # Copied whole and indexed in numpy: indexed in JAX it would queue behind the step that was just dispatched.
    return jax.tree.map(lambda x: np.array(x.addressable_data(0))[0], tree)


@jax.jit
def _without_axis(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: x[0], tree)


def copy_of_replica(tree: Tree) -> Tree:
    """The first local replica in the memory of its device, copied after the steps that were called before.

    Returns at once; no later step's donation can touch the copy.
    """
    return _without_axis(jax.tree.map(lambda x: x.addressable_data(0), tree))


def shard(batch: Tree) -> Tree:
    """This process's share of a batch, arrays [B, ...], to [local devices, B / local devices, ...]."""
    devices = jax.local_device_count()
    return jax.tree.map(lambda x: x.reshape(devices, x.shape[0] // devices, *x.shape[1:]), batch)


def put(tree: Tree) -> Tree:
    """Arrays [local devices, ...] onto the local devices, each its entry, without waiting for the transfer."""
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS)))


def device_memory() -> int | None:
    """The bytes that JAX may use on a local device; None if it does not say, as on a CPU."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def map_step(step: Callable, *, donate: bool = True) -> Callable:
    """A step over all devices of all processes; its first argument, the state, is donated by default.

    Arguments and results have the leading axis of a replicated state.
    """
    return _patient(jax.pmap(step, axis_name=AXIS, donate_argnums=(0,) if donate else ()))


def compile_in_thread(title: str, step: Callable, *arguments: Tree) -> Future[Callable]:
    """`map_step` for arguments of these shapes and dtypes; traced now, and compiled in a thread that goes on by itself.

    title: under which the time that it takes is remembered.

    Of several processes each compiles when it calls: JAX compiles ahead for those of one process alone.
    """
    if jax.process_count() > 1:
        ready: Future[Callable] = Future()
        ready.set_result(map_step(step))
        return ready
    lowered = jax.pmap(step, axis_name=AXIS, donate_argnums=0).lower(*arguments)

    def compiled() -> Callable:
        compilation = Compilation(title, arguments)
        program = lowered.compile()
        compilation.end()
        return _patient(program)

    return in_thread(compiled)


def in_thread(work: Callable[[], T]) -> Future[T]:
    """What the work returns or raises; it is done in a thread that goes on by itself."""
    ready: Future[T] = Future()
    wide = jax.config.values["jax_enable_x64"]  # settings of a `with` hold in their own thread alone

    def do() -> None:
        try:
            with jax.enable_x64(wide):
                ready.set_result(work())
        except BaseException as error:
            ready.set_exception(error)

    threading.Thread(target=do, name=AHEAD).start()
    return ready


def _patient(mapped: Callable) -> Callable:
    if jax.default_backend() != "cpu" or jax.local_device_count() == 1:
        return mapped

    def waiting(*arguments: Any) -> Any:
        # Virtual CPU devices share few cores; several steps in flight can starve one of a collective's participants.
        return jax.block_until_ready(mapped(*arguments))

    return waiting


def voting(step: Callable) -> Callable:
    """A step with another argument, the second: this process's `vote`; and another result: the largest of all votes.

    So the processes agree within the step, without waiting for one another between two steps.
    """

    def step_with_vote(state: Tree, vote: jax.Array, *arguments: Any) -> tuple[Tree, Tree, jax.Array]:
        state, results = step(state, *arguments)
        # Alone there is nobody to agree with, and one collective less to wait for.
        return state, results, jax.lax.pmax(vote, AXIS) if jax.process_count() > 1 else vote

    return step_with_vote


def vote(value: bool) -> jax.Array:
    """A vote for a step with `voting`, on the devices."""
    return put(np.full(jax.local_device_count(), value, np.int32))


def over_devices(function: Callable, constant: Tree) -> Callable[[Tree], Tree]:
    """function(constant, x) for each entry of arrays [local devices, ...], each on a device, for this process alone."""
    devices = jax.local_devices()
    mapped = jax.pmap(function, devices=devices)
    replicated = put(replicate(constant))
    return lambda x: mapped(replicated, x)
