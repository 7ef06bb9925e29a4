"""LSUN's own format: an lmdb of encoded images (github.com/fyu/lsun)."""

import threading
from io import BytesIO
from pathlib import Path

from ml_collections import ConfigDict
from PIL import Image

from dcgan_jax.data.images import decode
from dcgan_jax.data.source import Source, fingerprint
from dcgan_jax.errors import UserError, local_path


def open_source(config: ConfigDict) -> Source:
    """All images of an lmdb folder such as bedroom_train_lmdb, in the order of their keys.

    Raises UserError where there is none, it is damaged or holds nothing, or the package lmdb is not installed.
    """
    path = _check(config.data.path)
    try:
        import lmdb  # imported late: only this source needs it
    except ImportError as error:
        raise UserError(
            "config.data.source: 'lmdb' needs the package lmdb; pip install --editable '.[lmdb]'"
        ) from error
    try:
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, subdir=path.is_dir())
        with environment.begin() as transaction, transaction.cursor() as cursor:
            # Reading beyond the end of a file that is mapped would end the process.
            pages = environment.info()["last_pgno"] + 1
            found, expected = _file(path).stat().st_size, pages * environment.stat()["psize"]
            if found < expected:
                raise lmdb.Error(f"{found} bytes, expected {expected}")
            keys = list(cursor.iternext(keys=True, values=False))
    except lmdb.Error as error:
        raise UserError(
            f"config.data.path: {str(path)!r} cannot be read ({error}), expected an lmdb; fetch it again"
        ) from error
    if not keys:
        raise UserError(f"config.data.path: {str(path)!r} holds no image; pass another --config.data.path")
    opened = threading.local()

    def read(index: int) -> Image.Image:
        if not hasattr(opened, "transaction"):  # each belongs to a thread
            opened.transaction = environment.begin()
        content = opened.transaction.get(keys[index])
        if not content:
            raise OSError("empty value")
        return decode(BytesIO(content))

    return Source(names=[key.decode(errors="backslashreplace") for key in keys], read=read)


def source_fingerprint(config: ConfigDict) -> str:
    """Changes when the lmdb is written again. Raises UserError where there is none."""
    return fingerprint([_file(_check(config.data.path))])


def _file(path: Path) -> Path:
    return path / "data.mdb" if path.is_dir() else path


def _check(name: str) -> Path:
    path = local_path(name, "config.data.path")
    if not name or not _file(path).is_file():
        what = "is no lmdb" if name and path.exists() else "does not exist"
        raise UserError(
            f"config.data.path: {name!r} {what}, expected the folder that holds data.mdb, such as "
            "bedroom_train_lmdb; LSUN's own script (github.com/fyu/lsun) fetches it as a zip, which is to be unpacked; "
            "then pass --config.data.path=..."
        )
    return path
