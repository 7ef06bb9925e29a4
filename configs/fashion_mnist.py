"""Fashion-MNIST, 28x28 grey: clothes in place of MNIST's digits (Xiao, Rasul, Vollgraf 2017).

    python launch/train.py --config=configs/fashion_mnist.py --config.data.path=FOLDER

FOLDER holds train-images-idx3-ubyte.gz; on Debian the package dataset-fashion-mnist installs it in
/usr/share/datasets/fashion-mnist. Not in the paper: the network is that of its 32x32 images with two layers, 7x7 maps.
"""

from dcgan_jax import config as configuration


def get_config(recipe: str = "default"):
    return configuration.for_data_set("fashion_mnist", recipe)
