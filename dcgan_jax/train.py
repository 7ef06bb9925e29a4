"""Training from a configuration to a folder of checkpoints, metrics and samples: build, resume, loop. No maths."""

import json
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization
from ml_collections import ConfigDict

from dcgan_jax import checkpoint, data, lock, parallel, steps
from dcgan_jax import config as configuration
from dcgan_jax import state as states
from dcgan_jax.errors import TrainingError, UserError, writable_path
from dcgan_jax.inference import TrainedGAN
from dcgan_jax.monitor import Monitor, last_recorded_step
from dcgan_jax.state import GANState

log = logging.getLogger("dcgan_jax")

GRID = 64  # images in a grid of samples


class Preempted(Exception):
    """Training was asked to stop and has saved everything; launchers exit with code 75."""


def train(config: ConfigDict, workdir: str | Path) -> GANState:
    """Trains to step `config.num_steps`, from the newest checkpoint in `workdir` where there is one.

    Returns the final state, as numpy arrays of one replica. The same configuration and seed give the same state,
    whether the run was interrupted or not.

    Raises UserError before anything is compiled or written, TrainingError where a loss is not finite, and Preempted
    after SIGTERM or SIGINT, with everything saved.
    """
    config = configuration.validate(config)
    if config.dtype == "float64" and jnp.result_type(float) != jnp.float64:
        raise UserError("config.dtype: found 'float64' without 64-bit JAX, expected 'float32'; or set JAX_ENABLE_X64=1")
    parallel.check_batch_size(config.batch_size, synchronised=config.sync_batch_norm)
    workdir = writable_path(workdir, "--workdir")
    start = _check_workdir(workdir, config)
    if start >= config.num_steps:
        log.info("nothing to do: %s is at step %d of %d", workdir, start, config.num_steps)
        return checkpoint.restore(workdir, start, states.abstract(config))[0]
    log.info("resuming %s from step %d" if start else "starting %s at step %d", workdir, start)

    image_set = data.load(config)
    if start:
        state, meta = checkpoint.restore(workdir, start, states.abstract(config))
        _check_data(image_set.card, meta["data"], workdir, Path(config.data.prepared).expanduser())
    else:
        state = jax.device_get(states.create(config))
    placement = _placement(config, image_set)
    # Up to here nothing was written.
    log.info(
        "%d images of %s on %s, read from the %s's memory",
        len(image_set.images),
        image_set.images.shape[1:],
        _devices(),
        placement,
    )
    with closing(_Run(config, workdir, image_set, start, placement)) as run:
        return run.train(state)


def _devices() -> str:
    kind = jax.devices()[0].device_kind
    return f"{jax.device_count()} device(s) ({kind}), {jax.process_count()} process(es)"


def _placement(config: ConfigDict, image_set: data.ImageSet) -> str:
    """'host' or 'device': where the images are while training reads them."""
    limit, size = parallel.device_memory(), image_set.images.nbytes
    if config.data.placement == "device" and limit and size > limit:
        raise UserError(
            f"config.data.placement: found 'device' for {size / 1e9:.1f} GB of images, expected at most the device's "
            f"{limit / 1e9:.1f} GB; pass --config.data.placement=host"
        )
    if config.data.placement == "auto":
        return "device" if limit and size <= config.data.device_share * limit else "host"
    return config.data.placement


def _check_workdir(workdir: Path, config: ConfigDict) -> int:
    """The step to go on from. Raises UserError where the folder belongs to something else, or has lost something."""
    for path in (workdir, workdir / "checkpoints"):
        if path.exists() and not path.is_dir():
            raise UserError(f"workdir: {str(path)!r} is a file, expected a folder; pass another --workdir")
    writable_path(workdir / "checkpoints", "--workdir")
    available = checkpoint.steps(workdir)
    old = _recorded_config(workdir, available)
    if old is None:
        ours = [name for name in ("metrics.jsonl", "samples", "tensorboard") if (workdir / name).exists()]
        if ours:
            raise UserError(
                f"workdir: {str(workdir)!r} holds {ours[0]} but no config.json, expected a run or a new folder; "
                "pass another --workdir"
            )
        return 0
    recorded = last_recorded_step(workdir / "metrics.jsonl")
    differing = configuration.differences(old, config.to_dict())
    if differing and (available or recorded):  # where no step was done, there is nothing to protect
        raise UserError(
            f"workdir: {str(workdir)!r} was written by another configuration ({'; '.join(differing)}); "
            "pass another --workdir, or the old values"
        )
    # The save of one checkpoint is over when the next begins; a run killed before that has none, and starts again.
    if not available and recorded > 2 * old["checkpoint_every"]:
        raise UserError(
            f"workdir: {str(workdir)!r} has metrics up to step {recorded}, but no checkpoint, expected one every "
            f"{old['checkpoint_every']} steps; bring its checkpoints back, or pass another --workdir to start anew"
        )
    return available[-1] if available else 0


def _recorded_config(workdir: Path, available: list[int]) -> dict[str, Any] | None:
    """The configuration of the run in a folder: from config.json, or where that is damaged, from a checkpoint."""
    path = workdir / "config.json"
    try:
        recorded = json.loads(path.read_text())
    except (OSError, ValueError):
        recorded = None
    if recorded is None and available:
        recorded = checkpoint.read(workdir)[1]["config"]
    if isinstance(recorded, dict) and {"seed", "batch_size", "data"} <= recorded.keys():
        return configuration.default_config().to_dict() | recorded
    if path.exists():
        raise UserError(f"workdir: {str(path)!r} is not a run's configuration; move it, or pass another --workdir")
    return None


def _check_data(found: dict[str, Any], expected: dict[str, Any], workdir: Path, root: Path) -> None:
    if any(found.get(name) != expected.get(name) for name in ("count", "sha256")):
        names = [name for name in found if found[name] != expected.get(name) and name not in ("date", "fingerprint")]
        differing = "; ".join(f"{name}: {expected.get(name)!r} there, {found[name]!r} here" for name in names)
        kept = [path for path, card in data.cards(root) if card["sha256"] == expected.get("sha256")]
        advice = (
            f"pass --config.data.source=prepared --config.data.path={kept[0]}, where they are"
            if kept
            else ("bring them back")
        )
        raise UserError(
            f"config.data: the images are not those that {str(workdir)!r} was trained on ({differing}); "
            f"{advice}, or train in another --workdir"
        )


def _lock(workdir: Path) -> TextIO:
    """A file whose lock this process holds until it is closed or the process ends, however it ends.

    Raises UserError where another process holds it: two runs in one folder would write over each other.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    held = lock.acquire(workdir / ".lock", wait=False)
    if held is None:
        raise UserError(
            f"workdir: another process is training in {str(workdir)!r}; wait for it, or pass another --workdir"
        )
    return held


class _Run:
    """One run of the loop from step `start` on, with what it holds open."""

    def __init__(self, config: ConfigDict, workdir: Path, image_set: data.ImageSet, start: int, placement: str):
        self.config, self.workdir, self.image_set, self.start = config, workdir, image_set, start
        self.placement = placement
        self.waited = 0.0  # seconds for data, since the last line of metrics
        self.lock = _lock(workdir) if jax.process_index() == 0 else None
        self.checkpoints = checkpoint.Checkpoints(workdir, config.keep)
        self.monitor: Monitor | None = None
        if jax.process_index() == 0:
            self.monitor = Monitor(workdir, config, start_step=start)
        self.batches = data.Batches(
            image_set,
            config.batch_size,
            config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        self.meta = {
            "config": json.loads(config.to_json()),
            "versions": checkpoint.versions(),
            "data": image_set.card,
        }

    def close(self) -> None:
        self.checkpoints.close()
        if self.monitor:
            self.monitor.close()
        if self.lock:
            self.lock.close()

    def train(self, host_state: GANState) -> GANState:
        with _stop_requests() as stop_requested:
            if self.start == 0:
                self._show_reals()
                self._sample(0, self._calibrated(host_state))
            host_state = self._loop(host_state, stop_requested)
            self.checkpoints.wait()
        log.info("done: step %d in %s; launch/sample.py makes images", self.config.num_steps, self.workdir)
        return host_state

    def _loop(self, host_state: GANState, stop_requested: Callable[[], str | None]) -> GANState:
        config = self.config
        train_step, arguments = self._step_and_arguments()
        state = parallel.replicate(host_state)
        pending: tuple[int, Any] | None = None
        for step, batch in enumerate(self._inputs(arguments), self.start + 1):
            state, metrics = train_step(state, *batch)
            # The metrics of the step before: its numbers are there by now, and the device never waits for us.
            if pending:
                self._report(*pending)
            pending = (step, metrics)
            last = step == config.num_steps
            stopping = stop_requested() is not None and not last
            sampling = last or step % config.sample_every == 0
            saving = last or step % config.checkpoint_every == 0 or stopping
            if sampling or saving:
                self._report(*pending)
                pending = None
                host_state = self._calibrated(parallel.first_replica(state))
                self._check_finite(step, host_state)
                if sampling:
                    self._sample(step, host_state)
                if saving:
                    self.checkpoints.save(step, host_state, self.meta)
            if stopping:
                self.checkpoints.wait()
                raise Preempted(f"stopped at step {step} on {stop_requested()}; the same command resumes")
        return host_state

    def _step_and_arguments(self) -> tuple[Callable, Callable[[int], tuple]]:
        """The mapped step, and a function that puts its arguments after the state, for a step, on the devices."""
        train_step = steps.make_train_step(self.config, parallel.AXIS)
        if self.placement == "host":
            return parallel.map_step(train_step), lambda step: (parallel.put(parallel.shard(self.batches(step))),)
        data_set = {"images": self.image_set.images, "labels": self.image_set.labels}
        data_set = {name: array for name, array in data_set.items() if array is not None}
        data_set = parallel.put(parallel.replicate(data_set))
        return parallel.map_step(steps.from_device(train_step)), lambda step: (
            data_set,
            parallel.put(parallel.shard(self.batches.indices(step))),
        )

    def _inputs(self, arguments: Callable[[int], tuple]) -> Iterator[tuple]:
        """The arguments of each step in turn, made ahead of time; counts the seconds that the loop waits for them."""
        with closing(data.ahead(arguments, range(self.start, self.config.num_steps))) as inputs:
            while True:
                began = time.perf_counter()
                batch = next(inputs, None)
                self.waited += time.perf_counter() - began
                if batch is None:
                    return
                yield batch

    def _report(self, step: int, metrics: dict[str, jax.Array]) -> None:
        values = {name: float(value) for name, value in parallel.first_replica(metrics).items()}
        if not all(map(math.isfinite, values.values())):
            self._fail(step, ", ".join(f"{name} is {value}" for name, value in sorted(values.items())))
        if not self.monitor:
            return
        self.monitor.advance()
        logging_now = step % self.config.log_every == 0 or step == self.config.num_steps
        if step == self.start + 1 and not logging_now:
            self.monitor.start_clock(step)
            self.waited = 0.0
        if logging_now:
            epoch = step * self.config.batch_size / len(self.image_set.images)
            self.monitor.metrics(step, values | {"epoch": round(epoch, 4)}, waited=self.waited)
            self.waited = 0.0

    def _check_finite(self, step: int, state: GANState) -> None:
        # A loss stays finite a step longer than the weights that it came from.
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)):
            self._fail(step, "the state holds numbers that are not finite")

    def _fail(self, step: int, what: str) -> None:
        self.checkpoints.wait()
        last = self.checkpoints.latest_step()
        kept = f"the checkpoint of step {last} is the last good one" if last else "there is no checkpoint yet"
        raise TrainingError(
            f"step {step}: {what}; {kept}. Try lower learning rates (--config.discriminator_lr, "
            "--config.generator_lr), another --config.seed, or --config.dtype=float32, in another --workdir"
        )

    def _calibrated(self, state: GANState) -> GANState:
        """The state with batch statistics that fit the moving average (rule 4)."""
        return state.replace(ema=jax.device_get(steps.calibrate(self.config, state.ema)))

    def _sample(self, step: int, state: GANState) -> None:
        if self.monitor:
            gan = TrainedGAN(self.config, serialization.to_state_dict(state))
            self.monitor.images(f"step_{step:08d}", gan.sample(GRID, self.config.seed), step)

    def _show_reals(self) -> None:
        if self.monitor:
            # From all over the set: the first ones may all be of one class.
            chosen = np.random.default_rng(self.config.seed).permutation(len(self.image_set.images))[:GRID]
            self.monitor.images("reals", self.image_set.images[np.sort(chosen)], 0)


@contextmanager
def _stop_requests() -> Iterator[Callable[[], str | None]]:
    """A function that tells the name of the signal that asked to stop, or None. A second Ctrl-C ends at once."""
    received: list[str] = []

    def receive(number: int, frame: Any) -> None:
        received.append(signal.Signals(number).name)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log.info("%s: saving after this step; Ctrl-C now ends at once", received[-1])

    try:
        previous = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # signals reach only the main thread; a notebook's worker thread trains without them
        previous = {}
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
