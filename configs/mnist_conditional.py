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


def get_config(recipe: str = "default"):
    return configuration.for_data_set("mnist_conditional", recipe)
