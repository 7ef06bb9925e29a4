"""The sources of images, by the value of `config.data.source`.

Each module has `open_source(config) -> Source`. A module that reads local files also has `source_fingerprint(config)`,
a hash that changes when these files change, and if they may have splits, `held_out(config)`. 'folder' finds out
what it is given, and so reads tables and shards too.
"""

from dcgan_jax.data.sources import array, digits, idx, local, lsun, parquet, tfds, webdataset

SOURCES = {
    "array": array,
    "digits": digits,
    "folder": local,
    "idx": idx,
    "lmdb": lsun,
    "parquet": parquet,
    "tfds": tfds,
    "webdataset": webdataset,
}
