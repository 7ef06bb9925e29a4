"""Handwritten digits, 28x28, conditional on the label (section 5.3 of the paper).

    python launch/train.py --config=configs/mnist_conditional.py --config.data.path=FOLDER
    python launch/nearest_neighbour.py --workdir=runs/mnist_conditional --samples=50000 --real

FOLDER holds train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz, and for the second command the t10k files.

`mnist_conditional.py:paper` is the released network: labels joined at every layer, hidden dense layers of 1024, sigmoid
output, batch norm without gain and bias, L2 2.5e-5. It was trained for 100 epochs of 50,000 images and another 100 in
which the learning rate falls to zero: 78,000 batches of 128, or 39,000 updates of each network from alternate ones.

The default is for a CPU, an hour on two cores (docs/results.md): convolutions of 32 features and dense layers twice as
wide as the paper's, batches of 64, larger learning rates that fall to zero over the second half, and a moving average
of the generator.

`mnist_conditional.py:torch` has 4x4 kernels and no dense layers; labels are joined at every layer too.

`mnist_conditional.py:dense` is the row that the paper compares with, a GAN of dense layers alone (two hidden ones of
1,024 in each network, which the paper does not tell), with the batches, learning rates and steps of the default.
"""

from dcgan_jax import config as configuration

NETWORK = dict(
    **{"features": (64, 128), "dense": (1024,), "kernel_size": 5, "prior": "uniform", "output": "sigmoid"},
    **{"norm_affine": False, "norm_epsilon": 1e-8, "l2": 2.5e-5},
)
SMALL = dict(features=(32, 32), dense=(2048,))
FASTER = dict(generator_lr=1.5e-3, discriminator_lr=1.5e-3, num_steps=30_000, lr_decay_steps=15_000)


def get_config(recipe: str = "default"):
    config = configuration.recipe("default" if recipe == "dense" else recipe)
    config.recipe = recipe
    config.image_size = (28, 28)
    config.channels = 1
    config.num_classes = 10
    config.data.source = "idx"
    config.data.path = "data/mnist"
    config.num_steps = 20_000
    if recipe in ("default", "paper"):
        config.update(NETWORK)
    if recipe == "default":
        config.update(SMALL)
    if recipe in ("default", "dense"):
        config.update(FASTER)
    if recipe == "dense":
        config.convolutional = False
        config.dense = (1024, 1024)
    if recipe == "paper":
        config.num_steps = 39_000
        config.lr_decay_steps = 19_500
    return config
