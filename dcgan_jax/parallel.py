"""The only file that knows pmap: processes joined, states replicated over devices, batches shared out, steps mapped.

A replicated state has a leading axis, one entry a local device, all of them equal.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from dcgan_jax.errors import TrainingError, UserError

log = logging.getLogger("dcgan_jax")

Tree = Any
AXIS = "replica"

# Seconds without a sign of life after which a process counts as dead, and the others end instead of waiting for it.
HEARTBEAT = 30
# What launchers of several processes set, and how many processes it says there are.
SIGNS: dict[str, Callable[[str], int]] = {
    "SLURM_STEP_NUM_TASKS": int,  # set by srun, not by sbatch or salloc
    "OMPI_COMM_WORLD_SIZE": int,  # Open MPI
    "PMI_SIZE": int,  # MPICH, Intel MPI
    "TPU_PROCESS_ADDRESSES": lambda addresses: len(addresses.split(",")),  # TPU slices on Kubernetes
    "TPU_WORKER_HOSTNAMES": lambda names: len(names.split(",")),
    "MEGASCALE_NUM_SLICES": int,  # several TPU slices
}


def start(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = 300,
) -> None:
    """Joins this process to the others of its job, before anything else is done with JAX.

    coordinator: HOST:PORT on process 0, which all processes reach; with the other two, for any cluster. Without them,
    TPU slices, Slurm and Open MPI are recognised by `jax.distributed`; where nothing speaks of several processes, this
    is the only one, and nothing is done. timeout: seconds within which all must have come.

    Raises UserError where the arguments do not fit together, or there may be other processes but nothing tells where,
    and TrainingError where joining them fails: a job never falls apart into single runs. Where not all processes come
    in time, the process ends with code 1 and one line.
    """
    given = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if num_processes == 1 and not coordinator:
        return
    if 0 < len(missing) < 3:
        raise UserError(f"{missing[0]}: missing, expected with the others of {', '.join(given)}; pass all or none")
    if not missing:
        _check_given(coordinator, num_processes, process_id)
    expected = num_processes or _expected_processes()
    if expected == 1 and not _on_tpu():
        return
    where = f"at {coordinator}" if coordinator else "as the environment says"
    failure = (
        f"error: this job did not come together {where} within {timeout} s: found no answer from the others, expected "
        f"{expected if expected > 1 else 'all'} processes, started with the same code and settings, and the port open; "
        "look into the logs of the others, or wait longer with --start_timeout\n"
    )
    with _deadline(timeout, failure):
        _join(coordinator, num_processes, process_id, timeout)
        _check_processes(expected)
        # The first meeting of all in each kind of collective has a time limit of its own (30 s in gloo), so it is here.
        multihost_utils.process_allgather(np.zeros(1, np.int32))
        jax.block_until_ready(jax.pmap(lambda x: jax.lax.psum(x, AXIS), axis_name=AXIS)(vote(False)))
    log.info(
        "process %d of %d: %s",
        jax.process_index(),
        jax.process_count(),
        ", ".join(f"{device.platform} {device.id}" for device in jax.local_devices()),
    )


def _check_given(coordinator: Any, num_processes: Any, process_id: Any) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator: found {coordinator!r}, expected HOST:PORT, such as 10.0.0.1:8476")
    if num_processes < 1:
        raise UserError(f"--num_processes: found {num_processes}, expected at least 1")
    if not 0 <= process_id < num_processes:
        raise UserError(f"--process_id: found {process_id}, expected a number from 0 to {num_processes - 1}")


def _expected_processes() -> int:
    counts = {}
    for name, count in SIGNS.items():
        try:
            counts[name] = count(os.environ[name]) if os.environ.get(name) else 1
        except ValueError:
            raise UserError(f"{name}: found {os.environ[name]!r} in the environment, expected a number") from None
    return max(counts.values())


def _on_tpu() -> bool:
    devices = any(map(os.path.exists, ("/dev/accel0", "/dev/vfio/0")))
    return devices and find_spec("libtpu") is not None and os.environ.get("JAX_PLATFORMS") != "cpu"


def _join(coordinator: str | None, num_processes: int | None, process_id: int | None, timeout: int) -> None:
    service = "jax_enable_preemption_service"
    if service.upper() not in os.environ and hasattr(jax.config, service):
        jax.config.update(service, False)  # it would take SIGTERM from us, and leave it lying until the first step
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            # Where all is given, nothing is guessed: Slurm's detection would take one GPU for each process.
            cluster_detection_method="deactivate" if coordinator else None,
            # JAX aborts with a stack trace at its own deadline; ours comes first.
            initialization_timeout=timeout + 60,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except ValueError as error:
        raise UserError(
            f"--coordinator: missing; there may be other processes, but nothing tells where ({error}); pass it with "
            "--num_processes and --process_id, or --num_processes=1 for a run of its own"
        ) from error
    except (RuntimeError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrainingError(f"joining the other processes failed ({reason[:200]}); start all of them again") from error


def _check_processes(expected: int) -> None:
    found = jax.process_count()
    if expected > 1 and found != expected:
        raise UserError(f"--num_processes: found {found} processes, expected {expected}; start all of them")
    owners = [device.process_index for device in jax.devices()]
    counts = [owners.count(process) for process in range(found)]
    if len(set(counts)) > 1:
        raise UserError(f"devices: found {counts} on the processes, expected as many on each; start each alike")


@contextmanager
def _deadline(seconds: float, message: str) -> Iterator[None]:
    """Ends the process with `message` and code 1 where the block takes longer, whatever it is waiting in."""

    def leave() -> None:
        os.write(2, message.encode())
        os._exit(1)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def check_batch_size(batch_size: int, *, synchronised: bool) -> None:
    """Raises UserError where the global batch does not divide among all devices of all processes, or leaves batch norm
    a single image to take its statistics over.
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


def shard(batch: Tree) -> Tree:
    """This process's share of a batch, arrays [B, ...], to [local devices, B / local devices, ...]."""
    devices = jax.local_device_count()
    return jax.tree.map(lambda x: x.reshape(devices, x.shape[0] // devices, *x.shape[1:]), batch)


def put(tree: Tree) -> Tree:
    """Arrays [local devices, ...] onto the local devices, each its entry, without waiting for the transfer."""
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS)))


def device_memory() -> int | None:
    """The bytes that JAX may use on a local device; None where it does not say, as on a CPU."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def map_step(step: Callable, *, donate: bool = True) -> Callable:
    """A step over all devices of all processes. Its first argument, the state, is donated if not said otherwise.

    Its arguments and results have the leading axis of a replicated state.
    """
    mapped = jax.pmap(step, axis_name=AXIS, donate_argnums=(0,) if donate else ())
    if jax.default_backend() != "cpu" or jax.local_device_count() == 1:
        return mapped

    def waiting(*arguments: Any) -> Any:
        # Virtual CPU devices share few cores; several steps in flight can starve one of a collective's participants.
        return jax.block_until_ready(mapped(*arguments))

    return waiting


def voting(step: Callable) -> Callable:
    """A step with one argument more, the second: this process's `vote`; and one result more: the largest of all votes.

    So the processes agree in the step itself, without waiting for one another between two steps.
    """

    def step_with_vote(state: Tree, vote: jax.Array, *arguments: Any) -> tuple[Tree, Tree, jax.Array]:
        state, results = step(state, *arguments)
        return state, results, jax.lax.pmax(vote, AXIS)

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
