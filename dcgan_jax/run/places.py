"""Where trained networks may lie: a run's directory, a folder of weights, this package, the Hugging Face hub."""

from pathlib import Path
from typing import Any

from dcgan_jax.run import weights
from dcgan_jax.runtime import collector, devices, hub
from dcgan_jax.runtime.errors import UserError, local_path

Tree = dict[str, Any]

BUNDLED = Path(__file__).parent.parent / "bundled"  # a folder of weights for each name
# What is fetched from the hub; whatever else lies there is not needed.
FETCHED = [weights.CARD, *weights.FILES.values()]


def read(place: str | Path, step: int | str | None = None) -> tuple[Tree, dict[str, Any]]:
    """What `checkpoint.read` gives, from any place: a folder, the name of a bundled generator, or hf://OWNER/NAME.

    From elsewhere than a run the tree has `step`, `ema` and, if it is there, `discriminator`, without optimizers.
    A folder in the working directory goes before a bundled generator of its name. Raises UserError if there is nothing.
    """
    devices.check()
    folder = _folder(place)
    if weights.is_one(folder):
        return weights.read(folder, step)
    with collector.paused_to_import("dcgan_jax.run.checkpoint"):  # and orbax, which weights do without
        from dcgan_jax.run import checkpoint
    return checkpoint.read(folder, step)


def steps(place: str | Path) -> list[int]:
    """The steps of which a run has checkpoints, oldest first; of other places, which hold one network, none."""
    folder = _folder(place)
    if weights.is_one(folder):
        return []
    from dcgan_jax.run import checkpoint  # imports orbax, which weights do without

    return checkpoint.steps(folder)


def is_shared(place: str | Path) -> bool:
    """Whether networks are read from a folder that no results belong in: this package's, or a download."""
    return hub.is_remote(str(place)) or _bundled(place) is not None


def _folder(place: str | Path) -> Path:
    if hub.is_remote(str(place)):
        return _downloaded(str(place))
    return _bundled(place) or local_path(place, "workdir")


def _bundled(place: str | Path) -> Path | None:
    names = [card.parent.name for card in BUNDLED.glob(f"*/{weights.CARD}")]
    return BUNDLED / place if str(place) in names and not local_path(place, "workdir").is_dir() else None


def _downloaded(place: str) -> Path:
    """The folder of weights of hf://OWNER/NAME, in the hub's own cache; without a network, what is there already."""
    name = place.removeprefix(hub.SCHEME)
    if name.count("/") != 1 or not all(name.split("/")):
        raise UserError(f"workdir: found {place!r}, expected {hub.SCHEME}OWNER/NAME")
    folder = hub.snapshot("workdir", place, name, FETCHED)
    if not weights.is_one(folder):
        raise UserError(f"workdir: {place!r} holds no {weights.CARD}, expected what the format hub writes")
    return folder
