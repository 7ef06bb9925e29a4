"""Faces at 64x64, as in section 4.2 of the paper, on CelebA.

    python launch/train.py --config=configs/celeba.py --config.data.path=data/img_align_celeba.zip

The archive, or a folder of its images. CelebA has to be fetched by hand (mmlab.ie.cuhk.edu.hk/projects/CelebA.html).
Its count and names are checked where the archive or folder is called img_align_celeba; under another name a part of it
will do. Where tfds can fetch it: --config.data.source=tfds --config.data.name=celeb_a --config.data.path=

The network is the released faces network: 5x5 kernels, width 128, z to 4x4x1024 with one gain a unit. The paper trained
for 25 epochs on 350,000 face boxes of its own; 25 epochs of CelebA's 202,599 images are 40,000 batches of 128.

The crop is the largest centred square, 178 pixels. Others that are in use: --config.data.crop=celeba140 and celeba108,
which is close to the paper's.

`celeba.py:paper` follows the released code, whose networks learn from alternate batches: 20,000 updates of each.
`celeba.py:torch` is the widely copied port (4x4 kernels, width 64, batch 64), 80,000 batches.
"""

from dcgan_jax import config as configuration


def get_config(recipe: str = "default"):
    return configuration.for_data_set("celeba", recipe)
