"""Scikit-learn's handwritten digits, which come with its installation."""

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dcgan_jax.data.sources.source import Source


def open_source(config: ConfigDict) -> Source:
    """1,797 digits of 8x8 pixels (UCI's optical recognition test set), enlarged to the image size (bicubic)."""
    import sklearn
    from sklearn.datasets import load_digits  # imported late: only this source needs it

    digits = load_digits()
    height, width = config.image_size

    def read(index: int) -> Image.Image:
        # Enlarged before rounding to 8 bits: otherwise the 17 grey levels of the digits would be visible.
        enlarged = Image.fromarray(digits.images[index].astype(np.float32)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        return Image.fromarray(np.clip(np.rint(np.asarray(enlarged) * (255 / 16)), 0, 255).astype(np.uint8))

    return Source(
        names=[str(i) for i in range(len(digits.images))],
        read=read,
        labels=digits.target,
        classes=tuple("0123456789"),
        version=f"scikit-learn {sklearn.__version__}",
        decoding=False,
    )
