"""LSUN bedrooms at 64x64, as in section 4.1 of the paper.

    python launch/train.py --config=configs/lsun.py --config.data.path=FOLDER

`lsun.py:paper` is the network of its figure 1, trained on a little over 3 million images for 1 epoch (figure 2) and for
5 (figure 3): 117,000 batches of 128, or 58,500 updates of each network from alternate batches. The others have
batches of 64, so 234,000.
"""

from dcgan_jax import config as configuration


def get_config(recipe: str = "default"):
    config = configuration.recipe(recipe)
    config.image_size = (64, 64)
    config.data.source = "folder"
    config.data.path = "data/lsun_bedroom"
    config.num_steps = 58_500 if recipe == "paper" else 234_000
    return config
