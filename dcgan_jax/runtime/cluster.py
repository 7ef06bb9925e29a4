"""Joins the processes of one job: TPU slices, Slurm, Open MPI, or any hosts that reach one another."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

import jax

from dcgan_jax.runtime import devices
from dcgan_jax.runtime.errors import TrainingError, UserError

log = logging.getLogger("dcgan_jax")

# Seconds without a sign of life after which a process counts as dead, and the others end instead of waiting for it.
HEARTBEAT = 30
# What schedulers set in the environment, and how many processes each value means.
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
    TPU slices, Slurm and Open MPI are recognised by `jax.distributed`; if nothing points to several processes, this is
    the only one, and nothing is done. timeout: seconds within which all must have joined.

    Raises UserError if the arguments do not fit together, or if there may be other processes but nothing says where,
    or there is no device, and TrainingError if joining them fails: a job never falls apart into single runs. If not all
    processes join in time, the process ends with code 1 and one line.
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
        devices.check()
        _check_processes(expected)
        # The first meeting of all in each kind of collective has a time limit of its own (30 s in gloo), so it is here.
        devices.meet()
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
            # With all arguments given, nothing is guessed: Slurm's detection would take one GPU for each process.
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
        with suppress(OSError):  # nobody may be reading any more
            os.write(2, message.encode())
        os._exit(1)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
