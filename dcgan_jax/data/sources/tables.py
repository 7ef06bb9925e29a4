"""Parquet and Arrow files: their columns, and pictures in them, read forwards in little memory."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from dcgan_jax.data.images import decode
from dcgan_jax.data.sources import shards
from dcgan_jax.data.sources.source import Picture
from dcgan_jax.runtime.errors import UserError

ENDINGS = (".parquet", ".arrow")
# The first bytes of a parquet file, of an arrow file that is no stream, and of one that is.
PARQUET, FILE_FORMAT, STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
EXPECTED = "a parquet file, or an arrow file as save_to_disk of Hugging Face's datasets writes it"
MAX_BATCH = 2**23  # bytes of pictures that are read at once, where that is more than one picture
BUFFER = 2**20  # bytes of a parquet file that are read at once, in place of a whole group of rows


class Table(NamedTuple):
    """A file of rows. schema: pyarrow's. rows: their number."""

    path: Path
    schema: Any
    rows: int


def open_table(path: Path) -> Table:
    """The columns and the number of rows of a file. Raises UserError if it is damaged, or if pyarrow is not there."""
    shards.check_content(path, EXPECTED, PARQUET)
    with _reading(path):
        if not _is_parquet(path):
            return Table(path, _arrow_schema(path), sum(batch.num_rows for batch in _arrow_batches(path)))
        with _parquet_file(path) as file:
            return Table(path, file.schema_arrow, file.metadata.num_rows)


def begins_as_table(path: Path) -> bool:
    """Whether a file has the first bytes of a parquet or an arrow file, whatever its name."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(FILE_FORMAT)).startswith((PARQUET, FILE_FORMAT, STREAM))
    except OSError:
        return False


def features(table: Table) -> dict[str, dict[str, Any]]:
    """What Hugging Face's libraries wrote about the columns, by their names; {} if they wrote nothing."""
    for content in _about(table):
        try:
            found = json.loads(content)
            found = found.get("info", found)["features"]
            return {name: feature for name, feature in found.items() if isinstance(feature, dict)}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
    return {}


def _about(table: Table) -> Iterator[bytes]:
    yield (table.schema.metadata or {}).get(b"huggingface", b"")
    info = table.path.with_name("dataset_info.json")
    if info.is_file():
        yield info.read_bytes()


def holds_pictures(kind: Any, *, paths: bool = False) -> bool:
    """Whether a column of this type may be of pictures: binary, a struct with `bytes` or `path`, or paths alone."""
    types = _pyarrow().types
    if types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        return _is_binary(fields.get("bytes")) or _is_text(fields.get("path"))
    return _is_binary(kind) or (paths and _is_text(kind))


def holds_classes(kind: Any) -> bool:
    """Whether a column of this type may be of classes: whole numbers or texts, as they are or as a dictionary."""
    types = _pyarrow().types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_integer(kind) or _is_text(kind)


def values(table: Table, column: str) -> list[Any]:
    """All values of a column of classes; None where there is none."""
    with _reading(table.path):
        if not _is_parquet(table.path):
            return [value for batch in _arrow_batches(table.path) for value in batch.column(column).to_pylist()]
        with _parquet_file(table.path) as file:
            return file.read(columns=[column], use_threads=False).column(column).to_pylist()


def pictures(table: Table, column: str, start: int, root: Path) -> Iterator[Picture]:
    """The pictures of a column from a row on. root: the folder that paths are relative to.

    Rows are read as they are asked for, each once. Raises UserError if the file is damaged.
    """
    with _reading(table.path):
        read = _parquet_arrays if _is_parquet(table.path) else _arrow_arrays
        for array in read(table.path, column, start):
            for content, path in _contents(array):
                if content:
                    yield Picture(partial(_open_bytes, content), len(content))
                else:
                    yield Picture(partial(_open_beside, root, path))


def _open_bytes(content: bytes) -> Image.Image:
    return decode(BytesIO(content))


def _open_beside(root: Path, path: str | None) -> Image.Image:
    if not path:
        raise OSError("no picture in this row")
    file = Path(os.path.normpath(root / path))
    if not file.is_relative_to(os.path.normpath(root)):
        raise ValueError(f"{path!r} leads out of the folder of the set")
    if not file.is_file():
        raise OSError(f"{path!r} is not there")
    return decode(file)


def _contents(array: Any) -> Iterator[tuple[bytes | None, str | None]]:
    """The bytes and the path of each row of a column of pictures."""
    types = _pyarrow().types
    if not types.is_struct(array.type):
        paths = _is_text(array.type)
        yield from ((None, value.as_py()) if paths else (value.as_py(), None) for value in array)
        return
    columns = dict(zip((field.name for field in array.type), array.flatten(), strict=True))
    for row in range(len(array)):
        content, path = (columns[name][row].as_py() if name in columns else None for name in ("bytes", "path"))
        yield content, path


def _parquet_arrays(path: Path, column: str, start: int) -> Iterator[Any]:
    """A column from a row on. Of a group of rows, however large, a few pages are in memory at a time."""
    with _parquet_file(path) as file:
        first = 0
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            skipped, first = max(start - first, 0), first + group.num_rows
            if start >= first:
                continue
            columns = [group.column(i) for i in range(group.num_columns)]
            size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.startswith(column))
            rows = max(1, min(MAX_BATCH * group.num_rows // max(size, 1), 1024))
            for batch in file.iter_batches(rows, row_groups=[number], columns=[column], use_threads=False):
                yield batch.column(0).slice(min(skipped, batch.num_rows))
                skipped = max(skipped - batch.num_rows, 0)


def _arrow_arrays(path: Path, column: str, start: int) -> Iterator[Any]:
    """A column from a row on. The file is mapped into memory: nothing of it is copied here."""
    for batch in _arrow_batches(path):
        yield batch.column(column).slice(min(start, batch.num_rows))
        start = max(start - batch.num_rows, 0)


def _arrow_batches(path: Path) -> Iterator[Any]:
    pyarrow = _pyarrow()
    with pyarrow.memory_map(str(path)) as mapped:
        if mapped.read(len(FILE_FORMAT)) == FILE_FORMAT:
            file = pyarrow.ipc.open_file(mapped)
            yield from map(file.get_batch, range(file.num_record_batches))
        else:
            mapped.seek(0)
            yield from pyarrow.ipc.open_stream(mapped)


def _arrow_schema(path: Path) -> Any:
    pyarrow = _pyarrow()
    with pyarrow.memory_map(str(path)) as mapped:
        if mapped.read(len(FILE_FORMAT)) == FILE_FORMAT:
            return pyarrow.ipc.open_file(mapped).schema
        mapped.seek(0)
        return pyarrow.ipc.open_stream(mapped).schema


def _is_parquet(path: Path) -> bool:
    """By its ending; of another file, by its first bytes, as a file in a cache may have any name."""
    if path.suffix.lower() in ENDINGS:
        return path.suffix.lower() == ".parquet"
    with path.open("rb") as file:
        return file.read(len(PARQUET)) == PARQUET


def _parquet_file(path: Path) -> Any:
    _pyarrow()
    from pyarrow.parquet import ParquetFile

    # Without a buffer, or read beforehand, the whole column of a group of rows would be in memory.
    return ParquetFile(path, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True)


def _is_binary(kind: Any) -> bool:
    types = _pyarrow().types
    return kind is not None and (types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_text(kind: Any) -> bool:
    types = _pyarrow().types
    return kind is not None and (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _pyarrow() -> Any:
    try:
        import pyarrow  # imported late: only these files need it
        import pyarrow.ipc
    except ImportError as error:
        raise UserError(
            "config.data.source: parquet and arrow files need the package pyarrow; pip install --editable '.[parquet]'"
        ) from error
    return pyarrow


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raises UserError for what pyarrow raises: of a damaged file, or of a disk that fails."""
    pyarrow = _pyarrow()
    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(f"config.data.path: {str(path)!r} cannot be read now ({reason}); repair that") from error
        raise UserError(
            f"config.data.path: {str(path)!r} cannot be read ({reason}), expected {EXPECTED}, whole; download it again"
        ) from error
