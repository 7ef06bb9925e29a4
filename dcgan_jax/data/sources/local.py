"""What `config.data.source='folder'` means for what lies at `config.data.path`: images, tables or shards."""

from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from dcgan_jax.data.images import EXTENSIONS
from dcgan_jax.data.sources import folder, parquet, tables, webdataset
from dcgan_jax.data.sources.source import Source
from dcgan_jax.data.sources.tree import open_tree
from dcgan_jax.runtime import hub
from dcgan_jax.runtime.errors import local_path


def open_source(config: ConfigDict) -> Source:
    """As `open_source` of `reader(config)`."""
    return reader(config).open_source(config)


def source_fingerprint(config: ConfigDict) -> str:
    """As `source_fingerprint` of `reader(config)`."""
    return reader(config).source_fingerprint(config)


def held_out(config: ConfigDict) -> tuple[str, str] | None:
    """As `held_out` of `reader(config)`."""
    return reader(config).held_out(config)


def reader(config: ConfigDict) -> ModuleType:
    """The module that reads what lies at `config.data.path`.

    `parquet` for an address on the hub, a parquet or arrow file, and a folder in which such files have a column of
    pictures and are larger than all images; `webdataset` for a tar with labels beside its images, and a folder with
    tars and no images; else `folder`.
    """
    if hub.is_remote(config.data.path):
        return parquet
    path = local_path(config.data.path, "config.data.path")
    if path.is_dir() and config.data.path:
        return _of_folder(path)
    if tables.begins_as_table(path) or (path.is_file() and path.name.lower().endswith(tables.ENDINGS)):
        return parquet
    return webdataset if path.is_file() and webdataset.is_shard(path) else folder


def _of_folder(path: Path) -> ModuleType:
    names = open_tree(path).names
    images = [path / name for name in names if Path(name).suffix.lower() in EXTENSIONS]
    rows = [path / name for name in names if name.lower().endswith(tables.ENDINGS)]
    if rows:  # a set may have a picture of itself beside it, and images may have a table about them
        whole = all(map(tables.begins_as_table, rows))  # if not, reading them tells what is there in their place
        larger = sum(map(_size, rows)) > sum(map(_size, images))
        return parquet if not whole or (larger and parquet.may_hold_pictures(rows[0])) else folder
    shards = not images and any(name.lower().endswith(webdataset.ENDINGS) for name in names)
    return webdataset if shards else folder


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
