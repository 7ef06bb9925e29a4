"""Street View House Numbers, 32x32 colour, as in section 5.2 of the paper.

    python launch/train.py --config=configs/svhn.py

`svhn.py:paper` is the network whose weights the authors released: width 64, Gaussian z, learning rate 5e-4,
batches of 64, 200 epochs of 73,257 images: 229,000 batches, or 114,500 updates of each network from alternate ones.

The training images alone; --config.data.split=train+extra has 604,388.

The default and `:torch` have 4x4 kernels.
"""

from dcgan_jax import config as configuration


def get_config(recipe: str = "default"):
    return configuration.for_data_set("svhn", recipe)
