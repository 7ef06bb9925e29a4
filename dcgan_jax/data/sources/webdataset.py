"""WebDataset's shards: tars in which files that belong together have a name in common, KEY.jpg, KEY.cls, KEY.json.

KEY is the name up to the first dot after its folders; what follows is the ending, in any case.
"""

import json
import logging
import tarfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dcgan_jax.data.images import EXTENSIONS, OTHER_FORMATS, decode
from dcgan_jax.data.sources import shards
from dcgan_jax.data.sources.folder import counted
from dcgan_jax.data.sources.source import Picture, Source, fingerprint
from dcgan_jax.data.sources.tree import MAX_MEMBER_BYTES, TAR_ERRORS, check_member_size, parts, tar_places
from dcgan_jax.runtime.errors import UserError, local_path

log = logging.getLogger("dcgan_jax")

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
GZIP = b"\x1f\x8b"
EXPECTED = "a tar of images, KEY.jpg, with KEY.cls or KEY.json beside them"
LABEL_ENDINGS = ("cls", "json")  # the first counts where both are there
LABEL_FIELDS = ("label", "class", "cls", "class_id", "class_name")  # of KEY.json: the first of these that is there
MAX_LABEL_BYTES = 2**20
FIRST_MEMBERS = 20  # of a tar, by which it is recognised


class _Shard(NamedTuple):
    """The images of a tar: their names, offsets and sizes (int64 [n, 2]), and labels, None where there is none."""

    path: Path
    names: list[str]
    places: np.ndarray
    labels: list[str | None]


def open_source(config: ConfigDict) -> Source:
    """The images of a folder of tars, or of one tar, in the order of the tars' names and of the files in each.

    Labels are those of KEY.cls, or else of KEY.json; without them if an image has none. Of splits, `config.data.split`
    is taken. `config.data.name` may name the endings, 'IMAGES' or 'IMAGES,LABELS'. What is left out is logged.

    Raises UserError if there are no tars or images, or if a tar is damaged.
    """
    root, names = _files(config)
    taken, told = shards.take_split(names, config.data.split, config.data.path)
    left_out: Counter[str] = Counter()
    opened = [_open_shard(root, name, config.data.name, left_out) for name in taken]
    images = [name for shard in opened for name in shard.names]
    if left_out.total():
        log.warning("left out: %s", counted(left_out.elements()))
    if not images:
        endings = f" with the ending {config.data.name!r}" if config.data.name else ""
        raise UserError(
            f"config.data.path: {config.data.path!r} holds no image{endings} in its {len(taken)} tars, expected files "
            "such as KEY.jpg or KEY.png; pass another, or --config.data.name=ENDING of the images"
        )
    if told:
        log.info("%s: %s", config.data.path, told)
    found = [label for shard in opened for label in shard.labels]
    missing = found.count(None)
    if 0 < missing < len(images):
        log.warning("%d of %d images have no label; none is used", missing, len(images))
    labels, classes = (None, ()) if missing else shards.by_values(found)
    return Source(images, labels=labels, classes=classes, stream=lambda start, stop: _stream(opened, start, stop))


def source_fingerprint(config: ConfigDict) -> str:
    """Changes when a tar is added, removed or written again, or may have more images that can be read.

    Raises UserError if there is none.
    """
    root, names = _files(config)
    taken = shards.take_split(names, config.data.split, config.data.path).names
    return fingerprint([*(root / name for name in taken), Path(f"also {' '.join(OTHER_FORMATS)}")])


def held_out(config: ConfigDict) -> tuple[str, str] | None:
    """The path and split of held-out images, as `shards.held_out`; None if there are none."""
    path = local_path(config.data.path, "config.data.path")
    return shards.held_out(config.data.path, path, ENDINGS, config.data.split)


def is_shard(path: Path) -> bool:
    """Whether a file is a tar with labels beside its images, so far as its first members tell."""
    try:
        with tarfile.open(path) as archive:
            members = [member for member, _ in zip(archive, range(FIRST_MEMBERS), strict=False) if member.isreg()]
            keys = {_key(member.name)[0] for member in members if _is_image(_key(member.name)[1])}
            about = [m for m in members if _key(m.name)[1] in LABEL_ENDINGS and _key(m.name)[0] in keys]
            file = cast(BinaryIO, archive.fileobj)
            return any(_label(file, member.name, member.offset_data, member.size) for member in about)
    except TAR_ERRORS:
        return False


def _files(config: ConfigDict) -> tuple[Path, list[str]]:
    path = shards.existing_path(config.data.path, f"a folder of tars, or {EXPECTED}")
    root, names = shards.files(path, ENDINGS)
    if not names:
        raise UserError(f"config.data.path: {config.data.path!r} holds no .tar file; pass the folder that does")
    return root, names


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except TAR_ERRORS:  # compressed, but cut short, which reading it tells
        return True


def _key(name: str) -> tuple[str, str]:
    """The key and the ending of a file: 'a/b.x.jpg' has the key 'a/b' and the ending 'x.jpg'."""
    *folders, file = parts(name)
    key, _, ending = file.partition(".")
    return "/".join([*folders, key]), ending.lower()


def _is_image(ending: str) -> bool:
    return f".{ending.rpartition('.')[2]}" in EXTENSIONS


def _open_shard(root: Path, name: str, endings: str, left_out: Counter[str]) -> _Shard:
    """The images and labels of a tar. Counts in `left_out` what is neither."""
    path = root / name
    shards.check_content(path, EXPECTED, GZIP)
    if not _is_tar(path):
        raise UserError(f"config.data.path: {str(path)!r} is not a tar, expected {EXPECTED}; download it again")
    image, _, label = (part.strip().lstrip(".").lower() for part in endings.partition(","))
    places, left_out_of_tar = tar_places(path)
    left_out["links and other members that are not files"] += left_out_of_tar
    chosen: dict[str, str] = {}
    labels: dict[str, str] = {}
    about = (label,) if label else LABEL_ENDINGS
    for member in sorted(places, key=lambda member: places[member]):
        key, ending = _key(member)
        if ending in about:
            if key not in labels or ending == about[0]:
                labels[key] = member
        elif not (ending == image if image else _is_image(ending)):
            left_out[f".{ending}" if ending else "without an ending"] += 1
        elif key in chosen:
            left_out["further images of a KEY"] += 1
        else:
            chosen[key] = member
    left_out["KEYs without an image"] += len(labels.keys() - chosen.keys())
    with _opened(path) as file:
        texts = {key: _label(file, member, *places[member]) for key, member in labels.items() if key in chosen}
    left_out.update(f".{_key(labels[key])[1]} without a label" for key, text in texts.items() if text is None)
    return _Shard(
        path,
        [f"{name}/{member}" for member in chosen.values()],
        np.array([places[member] for member in chosen.values()], np.int64).reshape(-1, 2),
        [texts.get(key) for key in chosen],
    )


def _opened(path: Path) -> BinaryIO:
    """The content of a tar, unpacked if it is compressed."""
    return cast(BinaryIO, tarfile.open(path).fileobj)


def _label(file: BinaryIO, member: str, offset: int, size: int) -> str | None:
    """The label that a file in a tar holds: its text, or a field of its JSON; None if it holds none."""
    file.seek(offset)
    content = file.read(min(size, MAX_LABEL_BYTES))
    try:
        if not _key(member)[1].endswith("json"):
            return content.decode("utf-8-sig").strip() or None
        fields = json.loads(content)
        found = next((fields[name] for name in LABEL_FIELDS if name in fields), None)
    except (ValueError, TypeError, RecursionError):
        return None
    return str(found) if isinstance(found, int | str) and str(found) else None


def _stream(opened: list[_Shard], start: int, stop: int) -> Iterator[Picture]:
    """The pictures from number `start` up to `stop`, counted over all tars."""
    first = 0
    for shard in opened:
        begin, end = max(start - first, 0), min(stop - first, len(shard.names))
        first += len(shard.names)
        if begin < end:
            with _opened(shard.path) as file:
                for offset, size in shard.places[begin:end].tolist():
                    yield _picture(file, offset, size, shard.path)


def _picture(file: BinaryIO, offset: int, size: int, path: Path) -> Picture:
    try:
        file.seek(offset)
        content = file.read(min(size, MAX_MEMBER_BYTES))
    except TAR_ERRORS as error:
        raise UserError(
            f"config.data.path: {str(path)!r} cannot be read ({error}), expected a complete tar; download it again"
        ) from error
    return Picture(partial(_open, content, size), len(content))


def _open(content: bytes, size: int) -> Image.Image:
    check_member_size(size)
    return decode(BytesIO(content))
