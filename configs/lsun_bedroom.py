"""LSUN bedrooms at 64x64, as in section 4.1 of the paper.

    python launch/train.py --config=configs/lsun_bedroom.py --config.data.path=data/bedroom_train_lmdb

LSUN's own lmdb, unpacked from bedroom_train_lmdb.zip (the extra `lmdb` reads it); with --config.data.source=folder a
folder or archive of image files. The paper left out near-duplicates, some 275,000 images:

    python launch/prepare.py --config=configs/lsun_bedroom.py --config.data.path=data/bedroom_train_lmdb --deduplicate

prints the set to train on. Prepared at 64x64, 3 million images take 37 GB on disk.

The network is that of the paper's figure 1, trained on a little over 3 million images
for 1 epoch (figure 2) and for 5 (figure 3): 117,000 batches of 128.

`lsun_bedroom.py:paper` follows the released code, whose networks learn from alternate batches: 58,500 updates of each.
`lsun_bedroom.py:torch` is the widely copied port (4x4 kernels, width 64, batch 64), 234,000 batches.
"""

from dcgan_jax import config as configuration


def get_config(recipe: str = "default"):
    return configuration.for_data_set("lsun_bedroom", recipe)
