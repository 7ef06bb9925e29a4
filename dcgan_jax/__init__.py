"""DCGAN (Radford, Metz, Chintala 2015) in JAX and Flax.

import dcgan_jax
gan = dcgan_jax.load("runs/celeba")
images = gan.sample(16, seed=0)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dcgan_jax.inference import TrainedGAN, load
    from dcgan_jax.models import Discriminator, Generator
    from dcgan_jax.runtime.errors import TrainingError, UserError

__version__ = "0.1.0"
__all__ = ["Discriminator", "Generator", "TrainedGAN", "TrainingError", "UserError", "load"]

_HOMES = {
    "Discriminator": "models",
    "Generator": "models",
    "TrainedGAN": "inference",
    "TrainingError": "runtime.errors",
    "UserError": "runtime.errors",
    "load": "inference",
}


def __getattr__(name: str) -> Any:
    # Names are imported when they are first used: importing the package costs nothing, JAX included.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    from dcgan_jax.runtime import collector

    home = f"{__name__}.{_HOMES[name]}"
    with collector.paused_to_import(home):
        return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
