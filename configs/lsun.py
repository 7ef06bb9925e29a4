"""LSUN bedrooms at 64x64, as in section 4.1 of the paper.

    python launch/train.py --config=configs/lsun.py --config.data.path=FOLDER

`lsun.py:paper` is the network of its figure 1; it was trained on a little over 3 million images for 1 epoch (figure 2)
and for 5 (figure 3): 117,000 steps of 128.
"""

from dcgan_jax import config as configuration


def get_config(recipe: str = "default"):
    config = configuration.recipe(recipe)
    config.image_size = (64, 64)
    config.data.source = "folder"
    config.data.path = "data/lsun_bedroom"
    config.num_steps = 117_000
    return config
