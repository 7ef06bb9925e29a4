"""A tree of image files as a source: which of its files are images, which of these are taken, and what labels them."""

import json
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax.data.images import EXTENSIONS, OTHER_FORMATS, decode
from dcgan_jax.data.sources import celeba, layout
from dcgan_jax.data.sources.layout import Classes
from dcgan_jax.data.sources.source import Source, fingerprint
from dcgan_jax.data.sources.tree import BrokenLink, Tree, content, is_archive, open_tree, parts
from dcgan_jax.runtime.contents import HEAD, described
from dcgan_jax.runtime.errors import UserError, local_path

log = logging.getLogger("dcgan_jax")

LABELS_FILE = "dataset.json"  # as StyleGAN's tools write it
NO_ENDING = "without an ending"
MAX_KINDS = 12  # of files that are left out, in the line about them
# What can be done about images that are not read here.
ADVICE = (
    dict.fromkeys((".heic", ".heif", ".hif"), "install the extra heic: pip install --editable '.[heic]'")
    | dict.fromkeys((".avif", ".jp2", ".j2k", ".jpx"), "install a newer Pillow, which reads them")
    | dict.fromkeys((".npy", ".npz"), "arrays, which config.data.source=array takes")
    | dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".xz", ".rar", ".7z"), "unpack them")
)


class _Sorted(NamedTuple):
    """The files of a tree: images; files that say something about them; all others with their kinds."""

    images: list[str]
    about: list[str]
    left_out: list[tuple[str, str]]


def open_source(config: ConfigDict) -> Source:
    """The images below a folder or in an archive, in the order of their names (a tar keeps its own).

    Of splits, `config.data.split` is taken. Labels come from `dataset.json`, if it is there, or else from the folders
    (`layout.by_folders`). CelebA's attributes are read from `list_attr_celeba.txt` or .csv among or beside the images.
    What is taken and what is left out is logged.

    Raises UserError if the folder or archive does not exist or has no image, if a name in an archive leads out of it,
    or if CelebA is incomplete.
    """
    path = _source_path(config.data.path)
    tree = open_tree(path)
    files = _sort(tree)
    left_out = counted(kind for _, kind in files.left_out)
    if not files.images:
        raise UserError(
            f"config.data.path: {config.data.path!r} holds no image, expected files such as .jpg or .png at any depth"
            f"{f' (left out: {left_out})' if left_out else ''}; pass another --config.data.path=FOLDER"
        )
    names, told = layout.take_split(files.images, config.data.split)
    labelled = _classes(tree, files.about, names)
    names = labelled.names
    celeba.check(path, names)
    attributes, attribute_names = _attributes(path, tree, files.about, names)
    if told:
        log.info("%s: %s", path, told)
    if left_out:
        log.warning("left out: %s", left_out)
    if labelled.strays:
        strays = ", ".join(labelled.strays[:MAX_KINDS]) + (", ..." if len(labelled.strays) > MAX_KINDS else "")
        log.warning("left out, beside the folders of the classes: %d (%s)", len(labelled.strays), strays)
    return Source(
        names,
        lambda index: decode(tree.open(names[index])),
        labelled.labels,
        labelled.classes,
        attributes,
        attribute_names,
        sharded=labelled.sharded,
    )


def source_fingerprint(config: ConfigDict) -> str:
    """Changes when a file is added, removed or written again, or if an archive may have more images that can be read.

    Raises UserError if the path does not exist.
    """
    path = _source_path(config.data.path)
    files = [path, Path(f"also {' '.join(OTHER_FORMATS)}")]  # an archive may hold such images
    if path.is_dir():
        names = open_tree(path).names
        images = layout.take_split([name for name in names if _may_be_image(name)], config.data.split).names
        files = [path / name for name in [*images, *filter(_is_about, names)]]
    return fingerprint([*files, celeba.attributes_beside(path) or Path("no attributes")])


def held_out(config: ConfigDict) -> tuple[str, str] | None:
    """The path and split of held-out images: the test split, else that for validation; None if there is neither.

    They lie in a folder beside one called 'train', or in the same folder or archive as a training split.
    """
    path = local_path(config.data.path, "config.data.path")
    if found_beside := beside(path):
        return found_beside
    if not config.data.path or not path.exists():
        return None
    found = layout.splits([name for name in open_tree(_source_path(config.data.path)).names if _may_be_image(name)])
    taken = layout.split_of(config.data.split)
    if taken not in found:
        return None
    return next(((config.data.path, split) for split in ("test", "val") if split in found and split != taken), None)


def beside(path: Path) -> tuple[str, str] | None:
    """The folder, and the split, of held-out images beside a folder called 'train'; None if there is none."""
    for split in ("test", "val") if layout.split_of(path.name) == "train" else ():
        for name in layout.SPLITS[split]:
            for found in (path.with_name(spelt) for spelt in (name, name.title(), name.upper())):
                if found.is_dir():
                    return str(found), split
    return None


def _source_path(name: str) -> Path:
    path = local_path(name, "config.data.path")
    if not name:
        raise UserError(
            "config.data.path: missing, expected a folder of images, a zip or a tar; pass --config.data.path=..."
        )
    if not path.exists():
        raise UserError(
            f"config.data.path: {name!r} does not exist, expected a folder of images, a zip or a tar; "
            f"{celeba.ADVICE if celeba.is_celeba(path) else 'pass --config.data.path=...'}"
        )
    if path.is_dir():
        return path
    if not path.is_file():
        raise UserError(f"config.data.path: {name!r} is not a regular file; pass a folder of images, a zip or a tar")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise UserError(
            f"config.data.path: {name!r} cannot be read ({error.strerror}); make it readable (chmod u+r), or pass "
            "another --config.data.path"
        ) from error
    if path.suffix.lower() in (".npy", ".npz"):
        raise UserError(
            f"config.data.path: {name!r} holds arrays, expected a folder of images, a zip or a tar; pass "
            f"--config.data.source=array --config.data.path={name}"
        )
    if not is_archive(path):
        raise UserError(f"config.data.path: {name!r} {_not_an_archive(path, head)}")
    return path


def _not_an_archive(path: Path, head: bytes) -> str:
    """What is wrong with a file that is neither a zip nor a tar, and what to do."""
    known = described(head)
    if known:
        return f"is {known.what}, expected a folder of images, a zip or a tar; {known.advice}"
    if path.suffix.lower() in EXTENSIONS:
        return f"is one image, expected a folder of images, a zip or a tar; pass its folder, {str(path.parent)!r}"
    return (
        "is not a folder, nor a complete zip or tar archive, expected one of images; pass another "
        "--config.data.path, or download the archive again"
    )


def _sort(tree: Tree) -> _Sorted:
    files = _Sorted([], [], [])
    for name in tree.names:
        if _is_about(name):
            files.about.append(name)
        elif kind := _kind_left_out(tree, name):
            files.left_out.append((name, kind))
        else:
            files.images.append(name)
    return files


def _ending(name: str) -> str:
    """The ending of a file's name in lower case, such as '.jpg'; '' for one that is a number or no word."""
    ending = PurePosixPath(parts(name)[-1]).suffix.lower()
    return ending if ending[1:].isalnum() and not ending[1:].isdecimal() else ""


def _is_about(name: str) -> bool:
    return parts(name)[-1] in (LABELS_FILE, *celeba.ATTRIBUTE_FILES)


def _may_be_image(name: str) -> bool:
    return not _ending(name) or _ending(name) in EXTENSIONS


def _kind_left_out(tree: Tree, name: str) -> str:
    """As what a file is counted that is no image; '' for an image: by its ending, or if it has none, its content."""
    if ending := _ending(name):
        return "" if ending in EXTENSIONS else ending
    try:
        with decode(tree.open(name)):
            return ""
    except BrokenLink as error:
        return f"{error} ({name})"
    except Exception:  # Pillow's decoders raise many kinds of errors
        return NO_ENDING


def counted(kinds: Iterable[str]) -> str:
    """'4 .heic (install ...), 2 without an ending' for these kinds of files."""
    counts = Counter(kinds).most_common()
    shown = [f"{count} {kind}" + (f" ({ADVICE[kind]})" if kind in ADVICE else "") for kind, count in counts[:MAX_KINDS]]
    rest = sum(count for _, count in counts[MAX_KINDS:])
    return ", ".join([*shown, f"{rest} others"] if rest else shown)


def _classes(tree: Tree, about: list[str], names: list[str]) -> Classes:
    """The classes of images: by dataset.json, or by their folders."""
    by_folders = layout.by_folders(names)
    files = [name for name in about if parts(name)[-1] == LABELS_FILE]
    file = min(files, key=lambda name: len(parts(name)), default=None)
    if file is None:
        return by_folders
    try:
        entries = json.loads(content(tree, file))["labels"]
        if entries is None:
            return Classes(names) if by_folders.sharded else by_folders
        folder = parts(file)[:-1]
        known = {(*folder, *parts(name)): label for name, label in entries}
        labels = [known[parts(name)] for name in names]
        if not all(type(label) is int and 0 <= label < 2**31 for label in labels):
            raise ValueError("labels that are not whole numbers")
    except KeyError as error:
        reason = f"no {error}" if isinstance(error.args[0], str) else f"no label of {'/'.join(error.args[0])}"
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = str(error)
    else:
        array = np.array(labels, np.int32)
        return Classes(names, array, tuple(map(str, np.unique(array))))
    log.warning("%s: found %s, expected a label of each image; it is not used", file, reason)
    return Classes(names) if by_folders.sharded else by_folders


def _attributes(
    path: Path, tree: Tree, about: list[str], names: list[str]
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """CelebA's attributes, from a file among the images or beside them."""
    files = [name for name in about if parts(name)[-1] in celeba.ATTRIBUTE_FILES]
    inside = min(files, key=lambda name: len(parts(name)), default=None)
    file = inside or celeba.attributes_beside(path)
    if file is None:
        return None, ()
    try:
        raw = content(tree, inside) if inside else Path(file).read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"{str(file)!r}: cannot be read ({error}); download it again, or move it away") from error
    return celeba.attributes(str(file), raw, names)
