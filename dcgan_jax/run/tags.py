"""How TensorBoard, Weights & Biases and trackio name what a run measures: 'loss/d_loss' for d_loss of metrics.jsonl."""

from typing import Any

from ml_collections import ConfigDict

from dcgan_jax.config import best_by
from dcgan_jax.fields import flatten, shown

_GROUPS = {
    "loss": ("d_loss", "g_loss", "d_penalty"),
    "discriminator": ("d_real", "d_fake", "d_accuracy_real", "d_accuracy_fake", "d_saturated"),
    "gradients": ("d_grad_norm", "g_grad_norm"),
    "speed": ("images_per_sec", "data_wait", "overhead"),
    "progress": ("epoch",),
}
_GROUP_OF = {name: group for group, names in _GROUPS.items() for name in names}


def tag(name: str) -> str:
    """The tag of a metric, in a group of its own; 'quality/NAME' for measures of samples."""
    return f"{_GROUP_OF.get(name, 'quality')}/{name}"


def scalars(record: dict[str, float]) -> dict[str, float]:
    """A line of metrics.jsonl by tags, without its step."""
    return {tag(name): value for name, value in record.items() if name != "step"}


def hyperparameters(config: ConfigDict) -> dict[str, str | int | float | bool]:
    """All fields by their whole names, as 'data.path'; tuples as text."""
    flat: dict[str, Any] = flatten(config.to_dict())
    return {name: shown(value) if isinstance(value, tuple) else value for name, value in flat.items()}


def results(config: ConfigDict) -> list[str]:
    """The tags that runs are compared by: both losses, the speed, and what the best checkpoint is chosen by."""
    names = ["d_loss", "g_loss", "images_per_sec", best_by(config)[0]]
    return [tag(name) for name in dict.fromkeys(names) if name]
