"""The only file that knows orbax: save, restore, list, and read a run's checkpoints for inference.

A checkpoint is `WORKDIR/checkpoints/<step>` with the items `state`, a tree of nested dictionaries with numpy arrays as
leaves, and `meta`, JSON: `config`, `versions`, `data`. The tree is `step`, `generator/{params,batch_stats,opt_state}`,
`discriminator/{params,batch_stats,opt_state}` and `ema/{params,batch_stats}`. Only host copies of one replica are
written, so any number of devices can have written it, and any can read it.
"""

import logging
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import serialization

from dcgan_jax import __version__
from dcgan_jax.errors import UserError, local_path
from dcgan_jax.state import GANState

log = logging.getLogger("dcgan_jax")

Tree = Any
ITEMS = ("state", "meta")


class Checkpoints:
    """The checkpoints of one run, saved in the background, the newest `keep` kept."""

    def __init__(self, workdir: Path, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        directory = Path(workdir).absolute() / "checkpoints"
        self._manager = ocp.CheckpointManager(directory, options=options, item_names=ITEMS)

    def latest_step(self) -> int | None:
        """The newest step saved, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: GANState, meta: dict[str, Any]) -> None:
        """Starts to save a state of numpy arrays; it must not change before `wait` or the next `save`."""
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(serialization.to_state_dict(state)), meta=ocp.args.JsonSave(meta)
        )
        self._manager.save(step, args=arguments)

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def steps(workdir: str | Path) -> list[int]:
    """The steps of which a run has checkpoints, oldest first."""
    directory = local_path(workdir, "workdir").absolute() / "checkpoints"
    return sorted(ocp.utils.checkpoint_steps(directory)) if directory.is_dir() else []


def read(workdir: str | Path, step: int | None = None) -> tuple[Tree, dict[str, Any]]:
    """State (nested dictionaries of numpy arrays) and meta of a checkpoint, by default of the newest.

    Raises UserError where there is no run, no checkpoint, or none of this step.
    """
    where = str(local_path(workdir, "workdir"))
    available = steps(workdir)
    if not available:
        what = "holds no checkpoint" if Path(where).is_dir() else "does not exist"
        raise UserError(f"workdir: {where!r} {what}, expected the folder of a run, such as runs/digits; train first")
    if step is None:
        step = available[-1]
    if step not in available:
        listed = ", ".join(map(str, available))
        raise UserError(f"step: {where!r} has no checkpoint of step {step}, expected one of {listed}")
    directory = Path(where).absolute() / "checkpoints" / str(step)
    try:
        # Without a manager, which would tidy up the folder: a run may be training in it.
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            tree = reader.restore(directory / "state", args=ocp.args.StandardRestore())
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            meta = reader.restore(directory / "meta", args=ocp.args.JsonRestore())
    except Exception as error:  # orbax and what it stands on raise anything on a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"checkpoint: {str(directory)!r} is damaged ({reason[:200]}); move that folder away to use the one before"
        ) from error
    return tree, meta


def restore(workdir: str | Path, step: int, expected: GANState) -> tuple[GANState, dict[str, Any]]:
    """The state of one step as numpy arrays, of the structure, shapes and dtypes of `expected`, and meta.

    Raises UserError that names the first leaf that differs.
    """
    tree, meta = read(workdir, step)
    _check_leaves(tree, serialization.to_state_dict(expected))
    return serialization.from_state_dict(expected, tree), meta


def versions() -> dict[str, str]:
    """Versions of what shapes a result."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
    ours = {"dcgan_jax": __version__, "python": platform.python_version()}
    return ours | {name: metadata.version(name) for name in packages}


def _check_leaves(found: Tree, expected: Tree) -> None:
    def describe(tree: Tree) -> dict[str, str]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {"/".join(str(key.key) for key in path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}

    found, expected = describe(found), describe(expected)
    for path in sorted(found.keys() | expected.keys()):
        if found.get(path) != expected.get(path):
            raise UserError(
                f"checkpoint: leaf {path}: found {found.get(path, 'nothing')}, expected "
                f"{expected.get(path, 'nothing')}; train this configuration in another --workdir"
            )
