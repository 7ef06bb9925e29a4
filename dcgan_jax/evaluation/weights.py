"""The weights of the Inception network: found or fetched, checked, and kept in a form that can hold no code."""

import hashlib
import logging
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from dcgan_jax.errors import UserError, local_path
from dcgan_jax.evaluation import inception, store
from dcgan_jax.evaluation.features import Extractor
from dcgan_jax.interop import torch_file

log = logging.getLogger("dcgan_jax")

NAME = "pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{NAME}"
# Where pytorch-fid and torch-fidelity leave the same file.
OTHERS = ("~/.cache/torch/hub/checkpoints",)
OTHER_NAMES = (NAME, "weights-inception-2015-12-05-6726825d.pth")


def inception_extractor(path: str | Path | None = None) -> Extractor:
    """The Inception network with its published weights.

    path: their file; by default it is looked for in this package's and PyTorch's cache folders, and otherwise fetched.
    Raises UserError where it cannot be had, or is not that file (by its SHA-256).
    """
    return extractor(load(path), SHA256)


def extractor(params: dict[str, Any], digest: str) -> Extractor:
    """The Inception network with any weights, as `converted` returns them."""

    def function(params: Any, images: Any) -> tuple[Any, Any]:
        taps: Any = inception.Inception().apply({"params": params}, images)
        return taps["2048"], taps["logits_unbiased"]

    return Extractor("inception-2015-12-05", digest, function, params, inception.FEATURES, inception.CLASSES, chunk=32)


def load(path: str | Path | None = None) -> dict[str, Any]:
    """The published weights as parameters of `inception.Inception`; see `inception_extractor`."""
    if path is None and (found := store.kept("inception", SHA256, inception.shapes())) is not None:
        return found[0]
    file = local_path(path, "--inception_weights") if path else _found() or _fetched()
    if (digest := _sha256(file)) != SHA256:
        raise UserError(
            f"--inception_weights: {str(file)!r} has the SHA-256 {digest[:16]}..., expected {SHA256[:16]}...; "
            f"get {URL} again"
        )
    params = converted(torch_file.read(file))
    store.keep("inception", SHA256, params, {})
    return params


def converted(weights: dict[str, np.ndarray]) -> dict[str, Any]:
    """A state dictionary of pytorch-fid or torch-fidelity as parameters of `inception.Inception`.

    Raises UserError that names what is missing or has another shape. What the file has beyond is left out.
    """
    names = {"kernel": "conv.weight", "scale": "bn.weight", "bias": "bn.bias"}
    names |= {"mean": "bn.running_mean", "var": "bn.running_var"}
    params: dict[str, Any] = {}
    for path, expected in flatten_dict(inception.shapes()).items():
        *modules, leaf = path
        source = ".".join([*modules, names[leaf]]) if modules else {"kernel": "fc.weight", "bias": "fc.bias"}[leaf]
        array = weights.get(source)
        if array is not None and array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif array is not None and array.ndim == 2:
            array = array.T
        if array is None or array.shape != expected.shape:
            found = "nothing" if array is None else f"{array.shape}"
            raise UserError(f"--inception_weights: {source}: found {found}, expected {expected.shape}; get {URL}")
        place = params
        for module in modules:
            place = place.setdefault(module, {})
        place[leaf] = np.ascontiguousarray(array, np.float32)
    return params


def _found() -> Path | None:
    folders = [store.folder(), *(Path(folder).expanduser() for folder in OTHERS)]
    if "TORCH_HOME" in os.environ:
        folders.append(Path(os.environ["TORCH_HOME"]) / "hub" / "checkpoints")
    return next((file for folder in folders for name in OTHER_NAMES if (file := folder / name).is_file()), None)


def _fetched() -> Path:
    file = store.folder() / NAME
    log.info("fetching %s, once (96 MB)", URL)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(URL, timeout=60) as reader, partial.open("wb") as writer:
            while block := reader.read(2**20):
                writer.write(block)
        partial.replace(file)
    except (OSError, urllib.error.URLError) as error:
        partial.unlink(missing_ok=True)
        reason = getattr(error, "reason", error)
        raise UserError(
            f"--inception_weights: missing, and {URL} cannot be fetched ({reason}); put that file into "
            f"{str(file.parent)!r}, pass its path, or measure by --features=classifier"
        ) from error
    return file


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as reader:
            return hashlib.file_digest(reader, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"--inception_weights: {str(file)!r} cannot be read ({error}); get {URL}, and pass its path"
        ) from error
