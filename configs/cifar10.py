"""CIFAR-10, 32x32 colour.

    python launch/train.py --config=configs/cifar10.py
    python launch/train.py --config=configs/cifar10.py --config.data.source=folder --config.data.path=FOLDER

The first reads tfds's copy, which needs the extra `tfds` to be prepared; the second a folder of the training images.

`cifar10.py:paper` is the network that the paper trained on ImageNet at this size and probed on CIFAR-10 (table 1): 3x3
kernels, strides 1 and 2 in turn, z of 256.

The default, `:stable` and `:torch` have 4x4 kernels and width 64.
"""

from dcgan_jax import config as configuration


def get_config(recipe: str = "default"):
    return configuration.for_data_set("cifar10", recipe)
