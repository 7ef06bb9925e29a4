"""Points z in a file, with their classes: an .npz that launch/sample.py makes the same images from again."""

from pathlib import Path

import numpy as np

from dcgan_jax.inference import TrainedGAN
from dcgan_jax.runtime.array_files import read_arrays
from dcgan_jax.runtime.errors import UserError, local_path


def write(file: Path, z: np.ndarray, labels: np.ndarray | None) -> Path:
    """Writes z, float32 [N, Z], and the labels, int [N], if there are some."""
    arrays: dict[str, np.ndarray] = {"z": np.asarray(z, np.float32)}
    if labels is not None:
        arrays["labels"] = np.asarray(labels, np.int32)
    with file.open("xb") as opened:
        np.savez(opened, allow_pickle=False, **arrays)
    return file


def read(path: str, gan: TrainedGAN, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The z and labels of a file of `write`, for this network; `name` is the flag's.

    Raises UserError if the file is none, or holds z of another length, values that are not finite, or labels that the
    network does not have.
    """
    file, classes = local_path(path, name), gan.config.num_classes
    expected = f"z, float [N, {gan.latent_dim}]" + (", and labels, int [N]" if classes else ", and no labels")
    try:
        arrays = read_arrays(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: {path!r} {error}, expected an .npz with {expected}") from error
    if set(arrays) != ({"z", "labels"} if classes else {"z"}):
        raise UserError(f"{name}: {path!r} holds {', '.join(map(repr, arrays)) or 'nothing'}, expected {expected}")
    z, labels = arrays["z"], arrays.get("labels")
    if z.ndim != 2 or not len(z) or z.shape[1] != gan.latent_dim or not np.issubdtype(z.dtype, np.floating):
        raise UserError(f"{name}: {path!r} holds z of {z.dtype} {z.shape}, expected {expected}")
    if not np.isfinite(z).all():
        raise UserError(f"{name}: {path!r} holds z that are not finite, expected {expected}")
    if labels is not None and not _fit(labels, len(z), classes):
        raise UserError(f"{name}: {path!r} holds labels that do not fit, expected {len(z)} from 0 to {classes - 1}")
    return z.astype(np.float32), labels


def _fit(labels: np.ndarray, count: int, classes: int) -> bool:
    of_each = labels.shape == (count,) and np.issubdtype(labels.dtype, np.integer)
    return bool(of_each and 0 <= labels.min() <= labels.max() < classes)
