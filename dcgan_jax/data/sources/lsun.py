"""LSUN's own format: an lmdb of encoded images (github.com/fyu/lsun)."""

import threading
from io import BytesIO
from pathlib import Path

from ml_collections import ConfigDict
from PIL import Image

from dcgan_jax.data.images import decode
from dcgan_jax.data.sources.source import Source, fingerprint
from dcgan_jax.runtime.errors import UserError, local_path


def open_source(config: ConfigDict) -> Source:
    """All images of an lmdb folder such as bedroom_train_lmdb, in the order of their keys.

    Raises UserError if there is none, if it is damaged or empty, or if the package lmdb is not installed.
    """
    path = _lmdb_path(config.data.path)
    try:
        import lmdb  # imported late: only this source needs it
    except ImportError as error:
        raise UserError(
            "config.data.source: 'lmdb' needs the package lmdb; pip install --editable '.[lmdb]'"
        ) from error
    try:
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, subdir=path.is_dir())
        with environment.begin() as transaction, transaction.cursor() as cursor:
            # Checked because reading beyond the end of a mapped file would kill the process.
            pages = environment.info()["last_pgno"] + 1
            size, expected_size = _data_file(path).stat().st_size, pages * environment.stat()["psize"]
            if size < expected_size:
                raise lmdb.Error(f"{size} bytes, expected {expected_size}")
            keys = list(cursor.iternext(keys=True, values=False))
    except lmdb.Error as error:
        raise UserError(
            f"config.data.path: {str(path)!r} cannot be read ({error}), expected an lmdb; download it again"
        ) from error
    if not keys:
        raise UserError(f"config.data.path: {str(path)!r} holds no image; pass another --config.data.path")
    per_thread = threading.local()

    def read(index: int) -> Image.Image:
        if not hasattr(per_thread, "transaction"):  # a transaction may be used in one thread only
            per_thread.transaction = environment.begin()
        content = per_thread.transaction.get(keys[index])
        if not content:
            raise OSError("empty value")
        return decode(BytesIO(content))

    return Source(names=[key.decode(errors="backslashreplace") for key in keys], read=read)


def source_fingerprint(config: ConfigDict) -> str:
    """Changes when the lmdb is written again. Raises UserError if there is none."""
    return fingerprint([_data_file(_lmdb_path(config.data.path))])


def _data_file(path: Path) -> Path:
    return path / "data.mdb" if path.is_dir() else path


def _lmdb_path(name: str) -> Path:
    path = local_path(name, "config.data.path")
    if not name or not _data_file(path).is_file():
        problem = "is not an lmdb" if name and path.exists() else "does not exist"
        raise UserError(
            f"config.data.path: {name!r} {problem}, expected the folder that holds data.mdb, such as "
            "bedroom_train_lmdb; download it as a zip with LSUN's own script (github.com/fyu/lsun) and unpack it; "
            "then pass --config.data.path=..."
        )
    return path
