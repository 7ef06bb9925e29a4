"""The layers of a PyTorch state dict, in order: convolutions and dense layers, and batch norms.

They are told apart by what they hold, not by their names. If the names differ in their numbers alone ('main.3.weight',
'conv2.weight'), these are the order; otherwise it is the order in the file, in which the network's code made them.
"""

import re
from dataclasses import dataclass

import numpy as np

from dcgan_jax.interop.networks import Arrays, shape
from dcgan_jax.runtime.errors import UserError

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
SPECTRAL = {"weight_orig", "weight_u", "weight_v"}
LENGTHS = {"weight_g", "weight_v"}  # of weight norm: lengths and directions
# The names that torch.nn.utils.parametrizations gives, as those of torch.nn.utils.spectral_norm and weight_norm.
PARAMETRIZED = {
    "original": "weight_orig",
    "0._u": "weight_u",
    "0._v": "weight_v",
    "original0": "weight_g",
    "original1": "weight_v",
}


class Misfit(Exception):
    """Which tensor is not as a DCGAN's, and what was expected."""


@dataclass(frozen=True)
class Layer:
    """One layer's arrays, float32, by the last part of their names; name: the rest."""

    name: str
    arrays: Arrays

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's."""
        return self.arrays["weight" if "weight" in self.arrays else "weight_orig"].shape

    @property
    def dense(self) -> bool:
        """Whether it is a dense layer, not a convolution."""
        return len(self.shape) == 2

    @property
    def bias(self) -> np.ndarray | None:
        """[units], or None."""
        return self.arrays.get("bias")

    def weight(self, axis: int) -> np.ndarray:
        """The weight as it is used: with spectral norm, divided by its norm as PyTorch estimates it in eval mode.

        axis: of the outputs, 1 for a ConvTranspose2d, which PyTorch makes the rows of a matrix for spectral norm.
        """
        if "weight" in self.arrays:
            return self.arrays["weight"]
        weight, u, v = (self.arrays[name] for name in ("weight_orig", "weight_u", "weight_v"))
        matrix = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
        if matrix.shape != (*u.shape, *v.shape):
            expected = f"vectors of {matrix.shape[0]} and {matrix.shape[1]} for spectral norm"
            raise self.misfit("weight_orig", f"{expected}, found {shape(u)} and {shape(v)}")
        norm = u @ matrix @ v
        if not norm > 0:
            raise Misfit(f"{self.name!r} has a spectral norm of {norm}, expected one above 0")
        return weight / norm

    def misfit(self, key: str, expected: str) -> Misfit:
        """The error that an array of this layer is not as expected."""
        key = key if key in self.arrays else f"{key}_orig"
        return Misfit(f"{f'{self.name}.{key}'.strip('.')!r} has shape {shape(self.arrays[key])}, expected {expected}")


def split(arrays: Arrays) -> tuple[list[Layer], list[Layer]]:
    """Convolutions and dense layers, in order, and batch norms, in order. Raises Misfit if there are other layers."""
    grouped: dict[str, Arrays] = {}
    for name, array in arrays.items():
        match = re.fullmatch(r"(?:(.*)\.)?parametrizations\.weight\.(original[01]?|0\._u|0\._v)", name, re.DOTALL)
        path, key = (match[1] or "", PARAMETRIZED[match[2]]) if match else name.rpartition(".")[::2]
        grouped.setdefault(path, {})[key] = array.astype(np.float32)
    weights: list[Layer] = []
    norms: list[Layer] = []
    for path, group in grouped.items():
        layer = Layer(path, _completed(group, path))
        (norms if _is_norm(layer) else weights).append(layer)
    return _in_order(weights), _in_order(norms)


def _completed(group: Arrays, path: str) -> Arrays:
    """The arrays of a layer, with the weight that weight norm computes, and gain and bias of a batch norm without."""
    keys = group.keys()
    if "running_mean" in keys and not {"weight", "bias"} & keys:  # affine=False
        mean = group["running_mean"]
        return {"weight": np.ones_like(mean), "bias": np.zeros_like(mean)} | group
    if not keys >= LENGTHS or "weight_orig" in keys:
        return group
    lengths, directions = group["weight_g"], group["weight_v"]
    sides = lengths.shape or (1,) * directions.ndim
    along = [axis for axis, side in enumerate(sides) if side > 1]
    over = tuple(axis for axis in range(directions.ndim) if axis not in along)
    norms = np.sqrt((directions**2).sum(over, keepdims=True))
    if len(sides) != directions.ndim or len(along) > 1 or not norms.all() or sides != norms.shape:
        raise Misfit(
            f"{path!r} has lengths {shape(lengths)} and directions {shape(directions)}, expected those of weight norm, "
            "a length above 0 for each"
        )
    others = {key: array for key, array in group.items() if key not in LENGTHS}
    return others | {"weight": directions * (lengths / norms)}


def check_numbered(arrays: dict[str, np.ndarray], where: str) -> None:
    """Raises UserError unless the names of a file that does not keep the order of layers number them."""
    groups: dict[bool, set[str]] = {}
    for name in arrays:
        path = name.rpartition(".")[0]
        groups.setdefault(f"{path}.running_mean" in arrays, set()).add(re.sub(r"\d+", "0", path))
    for paths in groups.values():
        if len(paths) > 1:
            raise UserError(
                f"{where}: found layers named {', '.join(sorted(paths)[:4])}, expected names that differ in numbers "
                "alone: safetensors files do not keep the order of layers; save this one by torch.save"
            )


def _is_norm(layer: Layer) -> bool:
    """Whether a layer is a batch norm; if not, it is a convolution or dense. Raises Misfit if it is none of these."""
    keys, arrays = set(layer.arrays), layer.arrays
    if "running_mean" in keys:
        for key in NORM[:4]:
            if key not in keys:
                raise layer.misfit("running_mean", f"with {key} beside it, as a BatchNorm2d has")
        unknown, ndim = keys - set(NORM), 1
    else:
        kernel = "weight_orig" if keys >= SPECTRAL else "weight"
        unknown = keys - {"bias"} - (SPECTRAL if keys >= SPECTRAL else {"weight"})
        if kernel not in keys:
            raise layer.misfit(sorted(keys)[0], "a weight beside it")
        ndim = arrays[kernel].ndim
        if ndim not in (2, 4):
            raise layer.misfit(kernel, "a convolution's, a dense layer's, or a batch norm's with running_mean")
    if unknown:
        raise layer.misfit(sorted(unknown)[0], "layers of convolutions, dense layers and batch norms alone")
    for key in NORM[:4]:
        if key in keys and key != "weight" and arrays[key].ndim != 1:
            raise layer.misfit(key, "a vector")
    return "running_mean" in keys


def _in_order(layers: list[Layer]) -> list[Layer]:
    if len({re.sub(r"\d+", "0", layer.name) for layer in layers}) > 1:
        return layers
    return sorted(layers, key=lambda layer: [int(number) for number in re.findall(r"\d+", layer.name)])
