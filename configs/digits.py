"""Scikit-learn's handwritten digits, upscaled to 32x32: the data that every installation has.

    python launch/train.py --config=configs/digits.py

1,797 images of 8x8 pixels, so samples look like enlarged 8x8 digits at best. A narrow network (width 32) with 4x4
kernels, for a laptop's CPU; the recipes `digits.py:torch` and `digits.py:paper` are wider.
"""

from dcgan_jax import config as configuration


def get_config(recipe: str = "default"):
    return configuration.for_data_set("digits", recipe)
