"""The published weights of the Inception network: found or downloaded, checked, and converted to plain arrays."""

import logging
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dcgan_jax.evaluation import cache, inception
from dcgan_jax.evaluation.features import Extractor
from dcgan_jax.interop import torch_file
from dcgan_jax.runtime.array_files import mistaken_for
from dcgan_jax.runtime.errors import UserError, local_path, rename_fields
from dcgan_jax.runtime.files import atomic_write, sha256
from dcgan_jax.runtime.progress import progress

log = logging.getLogger("dcgan_jax")

NAME = "pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{NAME}"
# Where pytorch-fid and torch-fidelity save the same file, and under which names.
TORCH_FOLDERS = ("~/.cache/torch/hub/checkpoints",)
FILE_NAMES = (NAME, "weights-inception-2015-12-05-6726825d.pth")
OWN = "--config.eval_features=MODULE:FUNCTION, a function of your own"
OTHERS = f"{OWN}, or classifier, if there are labels"  # features to take in place of these


def inception_extractor(path: str | Path | None = None, others: str = OTHERS) -> Extractor:
    """The Inception network with its published weights.

    path: the file of weights; by default it is looked for in the cache folders of this package and PyTorch, and
    otherwise downloaded. Raises UserError if it is not available, or has another SHA-256. others: the features that its
    text advises in place of these.
    """

    return extractor_of(load(path, others))


def extractor_of(params: dict[str, Any]) -> Extractor:
    """The Inception network with these parameters, which the results say are the published ones."""

    def function(params: Any, images: Any) -> tuple[Any, Any]:
        taps: Any = inception.Inception().apply({"params": params}, images)
        return taps["2048"], taps["logits_unbiased"]

    size, classes, resized = inception.FEATURES, inception.CLASSES, (inception.SIDE, inception.SIDE)
    return Extractor("inception-2015-12-05", SHA256, function, params, size, classes, chunk=32, resized=resized)


def load(path: str | Path | None = None, others: str = OTHERS) -> dict[str, Any]:
    """The published weights as parameters of `inception.Inception`; see `inception_extractor`."""
    if path is None and (cached := cache.load("inception", SHA256, inception.shapes())) is not None:
        return cached[0]
    with rename_fields({"--file": "config.inception_weights"}):
        params = convert(torch_file.read(_checked(path, others)))
    cache.save("inception", SHA256, params, {})
    return params


def find(path: str | Path | None = None) -> None:
    """Raises UserError as `inception_extractor` would, before anything else is done; downloads the file if need be."""
    if path is not None or not cache.exists("inception", SHA256):
        _checked(path)


def _checked(path: str | Path | None, others: str = OTHERS) -> Path:
    """The file of weights, with the right SHA-256."""
    file = local_path(path, "config.inception_weights") if path else _find() or _download(others)
    try:
        digest = sha256(file)
    except OSError as error:
        raise UserError(
            f"config.inception_weights: {str(file)!r} cannot be read ({error}); get {URL}, and pass its path"
        ) from error
    if digest != SHA256:
        found = mistaken_for(file) or f"has the SHA-256 {digest[:16]}..."
        raise UserError(
            f"config.inception_weights: {str(file)!r} {found}; expected the SHA-256 {SHA256[:16]}...; get {URL} again"
        )
    return file


def convert(weights: dict[str, np.ndarray]) -> dict[str, Any]:
    """A state dictionary of pytorch-fid or torch-fidelity as parameters of `inception.Inception`.

    Further entries are ignored. Raises UserError that names an array if it is missing or has another shape.
    """
    names = {"kernel": "conv.weight", "scale": "bn.weight", "bias": "bn.bias"}
    names |= {"mean": "bn.running_mean", "var": "bn.running_var"}
    params = {}
    for path, expected in flatten_dict(inception.shapes()).items():
        *modules, leaf = path
        source = ".".join([*modules, names[leaf]]) if modules else {"kernel": "fc.weight", "bias": "fc.bias"}[leaf]
        array = weights.get(source)
        if array is not None and array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif array is not None and array.ndim == 2:
            array = array.T
        if array is None or array.shape != expected.shape:
            shape = "nothing" if array is None else f"{array.shape}"
            raise UserError(f"config.inception_weights: {source}: found {shape}, expected {expected.shape}; get {URL}")
        params[path] = np.ascontiguousarray(array, np.float32)
    return unflatten_dict(params)


def _find() -> Path | None:
    folders = [cache.folder(), *(Path(folder).expanduser() for folder in TORCH_FOLDERS)]
    if "TORCH_HOME" in os.environ:
        folders.append(Path(os.environ["TORCH_HOME"]) / "hub" / "checkpoints")
    return next((file for folder in folders for name in FILE_NAMES if (file := folder / name).is_file()), None)


def _download(others: str) -> Path:
    file = cache.folder() / NAME
    log.info("downloading %s, once (96 MB)", URL)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(URL, timeout=60) as reader, atomic_write(file) as writer:
            size = int(reader.headers.get("Content-Length") or 0)
            for block in progress(iter(lambda: reader.read(2**20), b""), "downloading", "MB", -(-size // 2**20)):
                writer.write(block)
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"config.inception_weights: missing, and {URL} cannot be downloaded ({reason}); put that file into "
            f"{str(file.parent)!r}, pass its path, or pass {others}"
        ) from error
    return file
