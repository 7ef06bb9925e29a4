"""Faces at 64x64, as in section 4.2 of the paper, on CelebA.

    python launch/train.py --config=configs/celeba.py --config.data.path=FOLDER

FOLDER holds the images (img_align_celeba, at any depth). The network is the released faces network: 5x5 kernels, width
128, z to 4x4x1024 with one gain a unit. The paper trained on 350,000 face boxes of its own, 25 epochs of them; CelebA
has 202,599 images, so 40,000 steps of 128 are 25 epochs of it.

`celeba.py:torch` is the widely copied port instead (4x4 kernels, width 64, batch 64), about a tenth of the work a step.
"""

from dcgan_jax import config as configuration


def get_config(recipe: str = "default"):
    config = configuration.recipe(recipe)
    config.image_size = (64, 64)
    config.data.source = "folder"
    config.data.path = "data/img_align_celeba"
    config.num_steps = 80_000 if recipe == "torch" else 40_000
    if recipe == "default":
        config.kernel_size = 5
        config.width = 128
        config.batch_size = 128
        config.prior = "uniform"
        config.norm_per_unit = True
    return config
