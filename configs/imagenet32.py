"""ImageNet-1k at 32x32, as in section 4.3 of the paper.

    python launch/train.py --config=configs/imagenet32.py

`imagenet32.py:paper` is the released network, the same as `cifar10.py:paper`, trained for 30 epochs of 1.28 million
images: 300,000 batches of 128, or 150,000 updates of each network from alternate batches.

The default and `:torch` have 4x4 kernels, width 64, and batches of 64.
"""

from dcgan_jax import config as configuration


def get_config(recipe: str = "default"):
    return configuration.for_data_set("imagenet32", recipe)
