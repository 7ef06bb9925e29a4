"""The run directory: whose it is, which step to resume from, and that one process at a time writes to it.

Only process 0 looks at it, and tells the others.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from dcgan_jax import config as configuration
from dcgan_jax import data
from dcgan_jax import state as states
from dcgan_jax.run import checkpoint, weights
from dcgan_jax.run.monitor import last_recorded_step
from dcgan_jax.runtime import files
from dcgan_jax.runtime.errors import TrainingError, UserError, writable_path
from dcgan_jax.state import GANState

log = logging.getLogger("dcgan_jax")
MAX_LISTED = 6  # fields that differ


class Claim(NamedTuple):
    """What a run directory holds. The lock belongs to whoever claimed it, until the process ends."""

    lock: files.Lock | None = None  # None if there is no run yet: nothing is written before training starts
    state: GANState | None = None  # of the newest undamaged checkpoint, if there is one
    card: dict[str, Any] | None = None  # of the images that it was trained on
    rollbacks: int = 0  # after collapses, up to that checkpoint


def claim(workdir: Path, config: ConfigDict, wait: float) -> Claim:
    """Looks at a directory, and locks it if there is a run in it; nothing else in it is touched.

    Raises UserError if it belongs to something else, has lost something, or another process trains in it and does not
    end within `wait` seconds.
    """
    for path in (workdir, workdir / "checkpoints"):
        if path.exists() and not path.is_dir():
            raise UserError(f"workdir: {str(path)!r} is a file, expected a folder; pass another --workdir")
    if weights.is_one(workdir):
        raise UserError(
            f"workdir: {str(workdir)!r} holds exported weights, expected a run or a new folder; pass another "
            f"--workdir, and --config.init={workdir} to start from these"
        )
    writable_path(workdir / "checkpoints", "--workdir")
    for name in ("config.json", "metrics.jsonl"):
        if (workdir / name).is_dir():
            raise UserError(f"workdir: {str(workdir / name)!r} is a folder, expected a file; pass another --workdir")
    for name in ("samples", "tensorboard"):
        if (workdir / name).is_file():
            raise UserError(f"workdir: {str(workdir / name)!r} is a file, expected a folder; pass another --workdir")
    if _recorded_config(workdir) is None:
        ours = [name for name in ("metrics.jsonl", "samples", "tensorboard") if (workdir / name).exists()]
        if ours:
            raise UserError(
                f"workdir: {str(workdir)!r} holds {ours[0]} but no config.json, expected a run or a new folder; "
                "pass another --workdir"
            )
        return Claim()
    held = take(workdir, wait)
    try:
        _check_history(workdir, config)  # under the lock: until then another process may have trained on
        if not checkpoint.steps(workdir):
            return Claim(held)
        state, meta = checkpoint.restore(workdir, states.abstract(config))
        return Claim(held, state, meta["data"], meta.get("rollbacks", 0))
    except BaseException:
        held.__exit__(None, None, None)
        raise


def take_new(workdir: Path, wait: float = 0) -> files.Lock:
    """`take` for a run that starts. Raises UserError if another process has trained there since `claim`."""
    held = take(workdir, wait)
    if checkpoint.steps(workdir):
        held.__exit__(None, None, None)
        raise UserError(f"workdir: another process has trained in {str(workdir)!r} meanwhile; start again")
    return held


def take(workdir: Path, wait: float = 0) -> files.Lock:
    """The lock of a run directory, which is created; held until it is released or the process ends, however it ends.

    Raises UserError if another process holds it, TrainingError if it does so for longer than `wait` seconds: two runs
    in one directory would overwrite each other.
    """
    try:
        return _take(workdir, wait)
    except OSError as error:
        raise UserError(f"workdir: {str(workdir)!r} cannot be locked ({error}); pass another --workdir") from error


def _take(workdir: Path, wait: float) -> files.Lock:
    workdir.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait
    announced = False
    while (held := files.lock(workdir / ".lock", wait=False)) is None:
        if time.monotonic() >= deadline:
            text = (
                f"workdir: another process is training in {str(workdir)!r}; wait for it (--wait), or pass another one"
            )
            # After a wait it is no mistake of the user's: the host of a run that died may still hold its lock.
            raise TrainingError(text) if wait else UserError(text)
        if not announced:
            log.info("another process is training in %s; waiting for it to end, up to %g s", workdir, wait)
        announced = True
        time.sleep(0.2)
    return held


@contextmanager
def report_lost_folder(workdir: Path) -> Iterator[None]:
    """Raises TrainingError, with the last good checkpoint, if the block cannot write any more."""
    try:
        yield
    except OSError as error:
        if jax.process_index() > 0:
            raise
        available = checkpoint.steps(workdir)
        kept = f"the checkpoint of step {available[-1]} is the last good one" if available else "there is no checkpoint"
        raise TrainingError(
            f"workdir: {str(workdir)!r} cannot be written to any more ({error}); {kept}. Make room, or make the folder "
            "writable again; then the same command resumes"
        ) from error


def check_data(found: dict[str, Any], expected: dict[str, Any], workdir: Path, config: ConfigDict) -> None:
    """Raises UserError if the images, by their cards, are not those that the run in `workdir` was trained on.

    It names the prepared set in `config.data.prepared` that has them, if there is one.
    """
    if all(found.get(name) == expected.get(name) for name in ("count", "sha256")):
        return
    root, classes = Path(config.data.prepared).expanduser(), len(found.get("classes") or ())
    kept = [path for path, card in data.cards(root) if card["sha256"] == expected.get("sha256")]
    advice = (
        f"pass --config.data.source=prepared --config.data.path={kept[0]}, where the old ones are"
        if kept
        else "bring the old ones back"
    )
    more_or_fewer = config.num_classes and classes > 1 and classes != config.num_classes
    anew = f" with --config.num_classes={classes}" if more_or_fewer else ""
    raise UserError(
        f"config.data: the images are not those that {str(workdir)!r} was trained on "
        f"({'; '.join(_differences(found, expected))}); {advice}, or train on the new ones in another --workdir{anew}"
    )


def _differences(found: dict[str, Any], expected: dict[str, Any]) -> Iterator[str]:
    """A text for each field in which the cards of two sets of images differ."""
    if found.get("reading") != expected.get("reading"):
        yield "folders and archives are read by other rules now"
    for name in found:
        if name not in ("date", "fingerprint", "reading", "sha256") and found[name] != expected.get(name):
            yield f"{name}: {expected.get(name)!r} there, {found[name]!r} here"
    old, new = expected.get("sha256") or {}, found["sha256"]
    arrays = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
    if arrays:
        yield f"other sha256 of {', '.join(sorted(arrays))}"


def _check_history(workdir: Path, config: ConfigDict) -> None:
    old, available = _recorded_config(workdir), checkpoint.steps(workdir)
    assert old is not None
    recorded = last_recorded_step(workdir / "metrics.jsonl")
    differing = configuration.differences(old, config.to_dict())
    if differing and (available or recorded):  # before the first step there is nothing to protect
        shown = "; ".join(differing[:MAX_LISTED])
        more = f"; and {len(differing) - MAX_LISTED} more" if len(differing) > MAX_LISTED else ""
        recipes = [one.get("recipe", "default") for one in (old, config)]
        by, advice = "", "the old values"
        if recipes[0] != recipes[1]:
            by, advice = (
                f", of the recipe {recipes[0]!r}, not {recipes[1]!r}",
                "the old recipe (CONFIG.py:RECIPE) and values",
            )
        raise UserError(
            f"workdir: {str(workdir)!r} was written by another configuration{by} ({shown}{more}); pass another "
            f"--workdir, or {advice}"
        )
    # The save of one checkpoint is over when the next begins; a run killed before that has none, and starts again.
    if not available and recorded > 2 * old["checkpoint_every"]:
        raise UserError(
            f"workdir: {str(workdir)!r} has metrics up to step {recorded}, but no checkpoint, expected one every "
            f"{old['checkpoint_every']} steps; bring its checkpoints back, or pass another --workdir to start anew"
        )


def _recorded_config(workdir: Path) -> dict[str, Any] | None:
    """The configuration of the run in a directory: from config.json, or if that is damaged, from a checkpoint."""
    path = workdir / "config.json"
    try:
        recorded = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        recorded = None
    except OSError as error:
        raise UserError(f"workdir: {str(path)!r} cannot be read ({error}); mend that, and start again") from error
    if recorded is None and checkpoint.steps(workdir):
        recorded = checkpoint.read(workdir)[1]["config"]
    ours = isinstance(recorded, dict) and {"seed", "batch_size"} <= recorded.keys()
    if ours and isinstance(recorded.get("data"), dict):
        return configuration.default_config().to_dict() | recorded
    if path.exists():
        raise UserError(f"workdir: {str(path)!r} is not a run's configuration; move it, or pass another --workdir")
    return None
