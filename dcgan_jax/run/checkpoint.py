"""The only file that knows orbax: save, restore, list, and read a run's checkpoints for inference.

A checkpoint is `WORKDIR/checkpoints/<step>` with the items `state`, a tree of nested dictionaries with numpy arrays as
leaves, and `meta`, JSON: `config`, `versions`, `data`, `metrics` of its step, and `sha256`, a hash of all the rest. The
tree is `step`, `generator/{params,batch_stats,opt_state}`, `discriminator/{params,batch_stats,opt_state}` and
`ema/{params,batch_stats}`. Only host copies of one replica are written, by process 0, so that any number of devices and
hosts can write it, and any can read it.
"""

import functools
import json
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import orbax.checkpoint as ocp
from flax import serialization

from dcgan_jax.config import best_by, default_config
from dcgan_jax.run import damage, trees
from dcgan_jax.run.best import best_step, sign
from dcgan_jax.run.damage import Damaged
from dcgan_jax.runtime import devices
from dcgan_jax.runtime.errors import TrainingError, UserError, local_path

if TYPE_CHECKING:  # loading a network should not wait for the import of optax
    from dcgan_jax.state import GANState

log = logging.getLogger("dcgan_jax")

Tree = Any
ITEMS = ("state", "meta")


class Checkpoints:
    """Writes the checkpoints of one run, by one thread in the background; on process 0 alone.

    After each save the newest `keep` stay, and the `keep_best` with the lowest (`best_is` 'lowest') or highest
    `best_metric`. A checkpoint gets its name when it is whole; only then an old one is deleted.
    """

    def __init__(self, workdir: Path, *, keep: int, keep_best: int = 0, best_metric: str = "", best_is: str = "lowest"):
        self.directory = Path(workdir).absolute() / "checkpoints"
        self.directory.mkdir(parents=True, exist_ok=True)
        _silence_orbax()
        for unfinished in self.directory.glob("*.orbax-checkpoint-tmp*"):  # of a save that was killed
            shutil.rmtree(unfinished, ignore_errors=True)
        self._retention = _Retention(keep, keep_best if best_metric else 0, best_metric, best_is)
        if best_metric:
            self._retention.metrics |= {step: self._known_metrics(step) for step in steps(workdir)}
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._retention,
            create=False,
            # Ours is the only thread: hashing belongs into the background too, and one place reports failures.
            enable_async_checkpointing=False,
            multiprocessing_options=_alone(),
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options, item_names=ITEMS)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._saving: tuple[int, Future] | None = None

    def save(self, step: int, state: "GANState", meta: dict[str, Any], metrics: dict[str, float] | None = None) -> None:
        """Starts to save a state of numpy arrays, which must not change afterwards. Raises as `wait` does."""
        self.wait()
        tree, meta = serialization.to_state_dict(state), meta | {"metrics": metrics or {}}
        self._saving = step, self._thread.submit(self._write, step, tree, meta)

    def check(self) -> None:
        """Raises TrainingError if a save has failed, without waiting for one in progress."""
        if self._saving and self._saving[1].done():
            self.wait()

    def wait(self) -> None:
        """Returns when everything is on disk. Raises TrainingError, with the last good step, if a save has failed."""
        if self._saving is None:
            return
        step, future = self._saving
        self._saving = None
        try:
            future.result()
        except Exception as error:  # orbax and its libraries raise anything on a full or broken disk
            for unfinished in self.directory.glob("*.orbax-checkpoint-tmp*"):  # its room may be what is missing
                shutil.rmtree(unfinished, ignore_errors=True)
            last = self.latest_step()
            kept = f"the checkpoint of step {last} is the last good one" if last else "there is no checkpoint yet"
            why = damage.reason(error)
            raise TrainingError(
                f"checkpoint: step {step} could not be saved in {str(self.directory)!r} ({why}); {kept}. "
                "Make room, or make the folder writable again; then the same command resumes"
            ) from error

    def measured(self) -> dict[int, float]:
        """The values of `best_metric` of all checkpoints that are or were there, by step."""
        return self._retention.measured(list(self._retention.metrics))

    def steps(self) -> list[int]:
        """The steps that are complete on disk, oldest first."""
        return _finished(self.directory)

    def latest_step(self) -> int | None:
        """The newest step that is complete on disk, or None."""
        return max(self.steps(), default=None)

    def close(self) -> None:
        """Waits for a save in progress. Its failure is not raised here: another error may be on its way."""
        self._thread.shutdown()
        self._manager.close()

    def _known_metrics(self, step: int) -> dict[str, float] | None:
        try:
            return _metrics(self.directory / str(step))
        except UserError as error:
            log.warning("checkpoint: that of step %d stays, as its metrics cannot be read: %s", step, error)
            return None

    def _write(self, step: int, tree: Tree, meta: dict[str, Any]) -> None:
        meta = json.loads(json.dumps(meta))
        meta["sha256"] = trees.digest(tree, meta)
        self._retention.metrics[step] = meta["metrics"]
        items = ocp.args.Composite(state=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(meta))
        if not self._manager.save(step, args=items):
            raise RuntimeError(f"orbax declined, with step {self.latest_step()} there")


class _Retention:
    """Which checkpoints stay: the newest, and the best by a metric, as an orbax preservation policy.

    Orbax's own `BestN` reads metrics from an item of its own, which checkpoints of version 0.1.0 lack, and forgets
    those of another `best_metric`; ours are in `meta`.
    """

    def __init__(self, keep: int, keep_best: int, name: str, best_is: str):
        self.keep, self.keep_best, self.name, self.sign = keep, keep_best, name, sign(best_is)
        self.metrics: dict[int, dict[str, float] | None] = {}  # None where they could not be read

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        present = [info.step for info in checkpoints]
        values = self.measured(present)
        best = sorted(values, key=lambda step: self.sign * values[step])[: self.keep_best]
        unknown = [step for step in present if self.metrics.get(step, {}) is None]
        kept = {*present[-self.keep :], *best, *unknown}
        return [step in kept for step in present]

    def measured(self, steps: list[int]) -> dict[int, float]:
        """The values of the metric, of these steps that have one."""
        known = {step: self.metrics.get(step) or {} for step in steps}
        return {step: metrics[self.name] for step, metrics in known.items() if self.name in metrics}


def steps(workdir: str | Path) -> list[int]:
    """The steps of which a run has checkpoints, oldest first."""
    return _finished(local_path(workdir, "workdir").absolute() / "checkpoints")


def best(workdir: str | Path, config: Mapping[str, Any] | None = None, among: list[int] | None = None) -> int:
    """The step, of all or `among` some, whose checkpoint is the best by a configuration (`config.best_by`).

    config: by default that of the newest checkpoint. Raises UserError if no checkpoint has a value of its metric.
    """
    directory = local_path(workdir, "workdir").absolute() / "checkpoints"
    metric, best_is = best_by(config or default_config().to_dict() | read(workdir)[1]["config"])
    if not metric:
        raise UserError("step: found 'best', but nothing measures this run (config.quality is False); pass a number")
    values: dict[int, float] = {}
    for step in among or steps(workdir):
        try:
            own = _metrics(directory / str(step))
        except Damaged as error:
            log.warning("%s", error)
        else:
            values |= {step: own[metric]} if metric in own else {}
    if not values:
        raise UserError(
            f"step: 'best' is by config.best_metric, {metric!r} in this run, which no checkpoint in {str(directory)!r} "
            "has; pass a number"
        )
    return best_step(values, best_is)


def read(workdir: str | Path, step: int | str | None = None) -> tuple[Tree, dict[str, Any]]:
    """State (nested dictionaries of numpy arrays) and meta of a checkpoint: of a step, of the `best`, or of the newest.

    If the newest is damaged, the log says so, and the one before it is read. Nothing in a checkpoint can make this run
    code. Raises UserError if there is no run, no checkpoint, none of this step, or no undamaged one, if the system
    cannot read it, or there is no device that JAX may use.
    """
    devices.check()
    where = str(local_path(workdir, "workdir"))
    available = steps(workdir)
    if not available:
        begun, there = (Path(where) / "config.json").is_file(), Path(where).is_dir()
        what = "has saved no checkpoint yet" if begun else "holds no checkpoint" if there else "does not exist"
        raise UserError(f"workdir: {where!r} {what}, expected a saved run, such as runs/digits; train first")
    if step == "best":
        step = best(workdir)
        log.info("%s: the best checkpoint is that of step %d", where, step)
    if isinstance(step, str):
        raise UserError(f"step: found {step!r}, expected a checkpoint's step, or 'best'")
    if step is not None and step not in available:
        listed = ", ".join(map(str, available))
        raise UserError(f"step: {where!r} has no checkpoint of step {step}, expected one of {listed}")
    directory = Path(where).absolute() / "checkpoints"
    if step is not None:
        return _read(directory, step)
    for newest in reversed(available):
        try:
            return _read(directory, newest)
        except UserError as error:
            if newest not in steps(workdir):  # a training run has just replaced it by a newer one
                return read(workdir)
            if not isinstance(error, Damaged):
                raise
            log.warning("%s", error)
    raise UserError(
        f"checkpoint: all in {str(directory)!r} are damaged ({', '.join(map(str, available))}); bring one back from a "
        "copy, or train anew in another folder"
    )


def restore(workdir: str | Path, expected: "GANState", step: int | None = None) -> tuple["GANState", dict[str, Any]]:
    """`read`, as numpy arrays of the structure, shapes and dtypes of `expected`.

    Raises UserError that names each leaf that differs.
    """
    tree, meta = read(workdir, step)
    trees.check_equal_shapes(tree, serialization.to_state_dict(expected))
    return serialization.from_state_dict(expected, tree), meta


def reached_preemption(call: int) -> bool:
    """Whether JAX's preemption service, if it is on, wants this job to stop; to be asked at every call of a step.

    call: 1, 2, 3 and so on. The processes agree on the number after the largest that one of them has reached, and the
    answer is yes at that number alone: if it were skipped, yes would never come.
    """
    return ocp.utils.reached_preemption(call)


def _alone() -> ocp.options.MultiprocessingOptions:
    """Tells orbax that this process works by itself, and waits for no other."""
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=process, active_processes={process})


def _finished(directory: Path) -> list[int]:
    with damage.told(directory):
        return sorted(ocp.utils.checkpoint_steps(directory)) if directory.is_dir() else []


def _read(directory: Path, step: int) -> tuple[Tree, dict[str, Any]]:
    place = directory / str(step)
    _silence_orbax()
    with damage.told(place):
        meta = damage.read_json(place, damage.META)
        damage.read_json(place, damage.DESCRIPTION)
        # Without a manager, which would clean up the folder: a run may be training in it.
        handler = ocp.StandardCheckpointHandler(multiprocessing_options=_alone())
        with ocp.Checkpointer(handler, multiprocessing_options=_alone()) as reader:
            tree = reader.restore(place / "state", args=ocp.args.StandardRestore())
        _check(place, step, tree, meta)
    return tree, meta


def _check(place: Path, step: int, tree: Tree, meta: dict[str, Any]) -> None:
    if not {"config", "data"} <= meta.keys():
        raise Damaged(place, f"its meta holds {', '.join(meta) or 'nothing'}, expected config and data")
    if "sha256" not in meta:
        log.warning("checkpoint: %s has no hash: an older version wrote it, and damage would go unnoticed", place)
    elif meta["sha256"] != trees.digest(tree, meta):
        raise Damaged(place, "its content does not fit its hash")
    if int(tree["step"]) != step:
        raise Damaged(place, f"it holds step {int(tree['step'])}")


@functools.cache
def _silence_orbax() -> None:
    """If one array cannot be read or written, orbax abandons the others, and hundreds of their tracebacks would bury
    the one line about it.
    """
    logging.getLogger("asyncio").addFilter(lambda record: "never retrieved" not in record.getMessage())
    hook = sys.unraisablehook

    def silenced(unraisable: Any) -> None:
        if not any(text in str(unraisable.exc_value) for text in ("Event loop is closed", "_ssock")):
            hook(unraisable)

    sys.unraisablehook = silenced


def _metrics(place: Path) -> dict[str, float]:
    with damage.told(place):
        metrics = damage.read_json(place, damage.META).get("metrics", {})
    if not isinstance(metrics, dict):
        raise Damaged(place, "its metrics are no table")
    return metrics
