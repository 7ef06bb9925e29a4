"""Tables with a column of pictures: parquet files, as on Hugging Face's hub, and what its save_to_disk writes."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.data.sources import hub_sets, shards, tables
from dcgan_jax.data.sources.source import Picture, Source, fingerprint
from dcgan_jax.data.sources.tables import ENDINGS, Table
from dcgan_jax.runtime import hub
from dcgan_jax.runtime.errors import UserError, local_path

log = logging.getLogger("dcgan_jax")

LABEL_NAMES = ("label", "labels", "class", "cls")  # of columns of classes that Hugging Face's types do not tell
STATE = "state.json"  # beside the files of save_to_disk, which it lists


class _Columns(NamedTuple):
    """The columns of pictures and of classes, '' for none, and the names of the classes where they are numbered."""

    picture: str
    label: str
    classes: tuple[str, ...]


def open_source(config: ConfigDict) -> Source:
    """The pictures of a folder of parquet or arrow files, or of one file, in the order of the files' names.

    `config.data.path` may be hf://datasets/OWNER/NAME. Of splits, `config.data.split` is taken. `config.data.name` may
    name the columns, 'PICTURES' or 'PICTURES,LABELS'.

    Raises UserError if there are no such files or columns, a file is damaged, or a package is missing.
    """
    root, names = _files(config)
    taken, told = shards.take_split(names, config.data.split, config.data.path)
    opened = [tables.open_table(root / name) for name in taken]
    columns = _choose(opened[0], config.data.name)
    for table in opened:
        _check_columns(table, columns)
    rows = [f"{name}:{row}" for name, table in zip(taken, opened, strict=True) for row in range(table.rows)]
    if not rows:
        raise UserError(f"config.data.path: {config.data.path!r} has no rows, expected pictures; pass another")
    if told:
        log.info("%s: %s", config.data.path, told)
    labels, classes = _labels(opened, columns)
    return Source(
        rows,
        labels=labels,
        classes=classes,
        version=hub_sets.version(root) if hub.is_remote(config.data.path) else "",
        stream=lambda start, stop: _stream(root, opened, columns, start, stop),
    )


def source_fingerprint(config: ConfigDict) -> str:
    """Changes when a file is added, removed or written again. Raises UserError if there is none."""
    root, names = _files(config)
    taken = shards.take_split(names, config.data.split, config.data.path).names
    return fingerprint([root / name for name in taken])


def held_out(config: ConfigDict) -> tuple[str, str] | None:
    """The path and split of held-out images, as `shards.held_out`; None if there are none."""
    name = config.data.path
    path = hub_sets.download(name) if hub.is_remote(name) else local_path(name, "config.data.path")
    return shards.held_out(name, path, ENDINGS, config.data.split)


def may_hold_pictures(file: Path) -> bool:
    """Whether a file has a column of pictures; True also if it cannot be read, as `open_source` tells why."""
    try:
        return bool(_picture_columns(tables.open_table(file)))
    except UserError:
        return True


def _files(config: ConfigDict) -> tuple[Path, list[str]]:
    """The folder of the set and the files in it, of which those that `state.json` does not list are left out."""
    name, expected = config.data.path, "a folder of parquet files, one such file, or hf://datasets/OWNER/NAME"
    path = hub_sets.download(name) if hub.is_remote(name) else shards.existing_path(name, expected)
    root, names = shards.files(path, ENDINGS)
    listed = {folder: _listed(folder) for folder in {(root / name).parent for name in names}}
    names = [name for name in names if not (own := listed[(root / name).parent]) or Path(name).name in own]
    missing = [folder / name for folder, own in listed.items() for name in own if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"config.data.path: {str(missing[0])!r} is not there, expected it, as {STATE} beside it lists it; copy the "
            "whole folder again"
        )
    if not names:
        raise UserError(
            f"config.data.path: {config.data.path!r} holds no {' or '.join(ENDINGS)} file; pass the folder that does"
        )
    return root, names


def _listed(folder: Path) -> list[str]:
    """The files that make up a set of save_to_disk; [] if this is none, or if nothing lists them."""
    try:
        return [file["filename"] for file in json.loads((folder / STATE).read_bytes())["_data_files"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []


def _choose(table: Table, name: str) -> _Columns:
    """The columns that `config.data.name` names, or that are the only ones of their kind."""
    types = {field.name: field.type for field in table.schema}
    told = {column: feature for column, feature in tables.features(table).items() if column in types}
    picture, _, label = (part.strip() for part in name.partition(","))
    pictures = [picture] if picture else _picture_columns(table)
    if len(pictures) != 1 or pictures[0] not in types:
        found = f"{picture!r}" if picture else f"{len(pictures) or 'no'} columns of pictures"
        listed = ", ".join(f"{column} ({kind})" for column, kind in types.items())
        raise UserError(
            f"config.data.name: found {found} in {table.path.name!r}, expected one of its columns, {listed}; pass "
            "--config.data.name=PICTURES or --config.data.name=PICTURES,LABELS with their names, '' for the usual ones"
        )
    if label and label not in types:
        raise UserError(
            f"config.data.name: found no column {label!r} in {table.path.name!r}, expected one of {', '.join(types)}; "
            f"pass --config.data.name={pictures[0]},LABELS"
        )
    label = label or _label_column(told, types)
    names = told.get(label, {}).get("names")
    return _Columns(pictures[0], label, tuple(map(str, names)) if isinstance(names, list) else ())


def _picture_columns(table: Table) -> list[str]:
    """The columns that Hugging Face's types call images, else those that may hold pictures."""
    told = tables.features(table)
    marked = [field.name for field in table.schema if told.get(field.name, {}).get("_type") == "Image"]
    return marked or [field.name for field in table.schema if tables.holds_pictures(field.type)]


def _label_column(told: dict[str, dict[str, Any]], types: dict[str, Any]) -> str:
    """The column of classes: 'label', or the only one by Hugging Face's types or by its name; '' if there is none."""
    marked = [column for column, feature in told.items() if feature.get("_type") == "ClassLabel"]
    found = marked or [name for name in LABEL_NAMES if name in types and tables.holds_classes(types[name])]
    if len(found) > 1 and "label" not in found:
        log.warning(
            "no labels are taken, as there are %d columns of them: %s (--config.data.name=PICTURES,LABELS takes one)",
            len(found),
            ", ".join(found),
        )
        return ""
    return "label" if "label" in found else "".join(found)


def _check_columns(table: Table, columns: _Columns) -> None:
    types = {field.name: field.type for field in table.schema}
    for column, fits, expected in (
        (columns.picture, lambda kind: tables.holds_pictures(kind, paths=True), "pictures: their bytes or paths"),
        (columns.label, tables.holds_classes, "classes: whole numbers or texts"),
    ):
        if column and (column not in types or not fits(types[column])):
            found = f"of {types[column]}" if column in types else f"not among {', '.join(types)}"
            raise UserError(
                f"config.data.name: column {column!r} of {table.path.name!r} is {found}, expected one of {expected}; "
                "pass --config.data.name=PICTURES or --config.data.name=PICTURES,LABELS with its columns"
            )


def _labels(opened: list[Table], columns: _Columns) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The labels of all rows and the names of classes; None if there are none, or not for all rows."""
    if not columns.label:
        return None, ()
    values = [value for table in opened for value in tables.values(table, columns.label)]
    numbered = bool(columns.classes) and all(value is None or isinstance(value, int) for value in values)
    # Where Hugging Face's sets have no label, it is -1.
    missing = sum(value is None or (numbered and value < 0) for value in values)
    if missing:
        log.warning("column %r: %d of %d rows have no label; none is used", columns.label, missing, len(values))
        return None, ()
    if not numbered:
        return shards.by_values(values)
    if (largest := max(values)) >= len(columns.classes):
        raise UserError(
            f"config.data.name: column {columns.label!r} has the label {largest}, expected less than "
            f"{len(columns.classes)}, the number of its names of classes; mend the files, or take another column"
        )
    return np.array(values, np.int32), columns.classes


def _stream(root: Path, opened: list[Table], columns: _Columns, start: int, stop: int) -> Iterator[Picture]:
    """The pictures of the rows from `start` up to `stop`, counted over all files."""
    first = 0
    for table in opened:
        begin, end = max(start - first, 0), min(stop - first, table.rows)
        first += table.rows
        if begin < end:
            read = tables.pictures(table, columns.picture, begin, root)
            yield from (next(read) for _ in range(end - begin))
