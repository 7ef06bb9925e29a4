"""The sources of images, by the value of `config.data.source`.

Each module has `open_source(config) -> Source`. A module that reads local files also has `source_fingerprint(config)`,
a hash that changes when these files change.
"""

from dcgan_jax.data.sources import array, digits, folder, idx, lsun, tfds

SOURCES = {"array": array, "digits": digits, "folder": folder, "idx": idx, "lmdb": lsun, "tfds": tfds}
