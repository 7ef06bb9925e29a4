"""Scikit-learn's handwritten digits: the images that every installation has."""

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dcgan_jax.data.source import Source


def open_source(config: ConfigDict) -> Source:
    """1,797 digits of 8x8 pixels (UCI's optical recognition test set), enlarged to the wanted size (bicubic)."""
    import sklearn
    from sklearn.datasets import load_digits  # imported late: only this source needs it

    digits = load_digits()
    height, width = config.image_size

    def read(index: int) -> Image.Image:
        # Enlarged before it is rounded to 8 bits: 17 levels of grey would show.
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
