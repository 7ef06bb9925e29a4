"""The grids of samples of a run, in the order of training, beside real images."""

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from dcgan_jax.page import compression, thinning
from dcgan_jax.page.record import Record
from dcgan_jax.run.aside import SAMPLES

LARGEST_SIDE = 640  # pixels, of a grid


class Timeline(NamedTuple):
    """Pictures as addresses, with the step of each. reals: None if there are none. total: grids in the folder."""

    steps: list[int]
    samples: list[str]
    reals: str | None
    total: int


def read(record: Record, *, grids: int, limit: int) -> Timeline:
    """At most `grids` grids of a run, 2 or more, in at most `limit` bytes; adds to its notes what is damaged."""
    folder = record.folder / "samples"
    files = {int(match[1]): path for path in folder.glob("step_*.png") if (match := SAMPLES.fullmatch(path.name))}
    best = {record.best.step} if record.best else set()
    chosen = thinning.evenly(sorted(files), grids, best)
    pictures = {step: picture for step in chosen if (picture := _open(files[step], record.notes))}
    reals = _open(folder / "reals.png", record.notes) if (folder / "reals.png").exists() else None
    if not files:
        record.notes.append("There are no grids of samples.")
    encoded = compression.fitting([*pictures.values(), *([reals] if reals else [])], limit)
    addresses = [compression.address(file) for file in encoded]
    return Timeline(
        steps=list(pictures),
        samples=addresses[: len(pictures)],
        reals=addresses[-1] if reals else None,
        total=len(files),
    )


def _open(path: Path, notes: list[str]) -> Image.Image | None:
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # as Pillow tells damage
        notes.append(f"samples/{path.name} cannot be read.")
        return None
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    return picture
