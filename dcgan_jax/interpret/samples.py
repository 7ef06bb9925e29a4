"""The samples that figures are made of: of one seed, and of one class if the network is conditional."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dcgan_jax.inference import TrainedGAN
from dcgan_jax.ops.pixels import to_uint8


class Samples(NamedTuple):
    """Samples by their numbers, the same on a contact sheet and in every figure."""

    gan: TrainedGAN
    seed: int = 0
    label: int | None = None

    def z(self, numbers: np.ndarray | list[int] | range) -> np.ndarray:
        """The z of samples: float32 [N, Z]."""
        return self.gan.latents(np.asarray(numbers), self.seed)

    def images(self, z: np.ndarray, gan: TrainedGAN | None = None) -> np.ndarray:
        """z [N, Z] to uint8 [N, H, W, C], by this network or by `gan`, a changed copy of it."""
        return to_uint8((gan or self.gan).generate(z, self.labels(len(z))))

    def labels(self, count: int) -> np.ndarray | None:
        """The class, int [count], or None if there are no classes."""
        return None if self.label is None else np.full(count, self.label)

    @property
    def title(self) -> str:
        """The name of the class, or the label if it has none; '' if there are no classes."""
        if self.label is None:
            return ""
        return self.gan.classes[self.label] if self.gan.classes else str(self.label)

    def caption(self, text: str, workdir: str) -> str:
        """A figure's text, and below it what it shows: 'digits, step 3000, seed 0, label 3'."""
        label = None if self.label is None else f"label {self.title}"
        parts = (Path(workdir).expanduser().resolve().name, f"step {self.gan.step}", f"seed {self.seed}", label)
        return f"{text}\n{', '.join(filter(None, parts))}"
