"""The flags that join the processes of one job: --coordinator, --num_processes, --process_id."""

import logging

from absl import flags

COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT on process 0; TPU slices, Slurm and Open MPI need none of these three flags"
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "how many processes train together", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "which of them this is, from 0", lower_bound=0)
START_TIMEOUT = flags.DEFINE_integer("start_timeout", 300, "seconds within which all must have started", lower_bound=1)


def start() -> None:
    """Joins the processes, and looks for their devices. All print errors; process 0 alone prints progress."""
    import jax

    from dcgan_jax.runtime import cluster, devices

    cluster.start(
        coordinator=COORDINATOR.value,
        num_processes=NUM_PROCESSES.value,
        process_id=PROCESS_ID.value,
        timeout=START_TIMEOUT.value,
    )
    devices.check()
    if jax.distributed.is_initialized() and jax.process_index() > 0:
        logging.getLogger("dcgan_jax").setLevel(logging.WARNING)
