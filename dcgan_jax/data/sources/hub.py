"""Sets of images on Hugging Face's hub: their parquet files, downloaded once into its library's cache."""

import functools
import logging
import re
from pathlib import Path

from dcgan_jax.runtime.errors import UserError

log = logging.getLogger("dcgan_jax")

SCHEME = "hf://"
_ADDRESS = re.compile(
    r"hf://datasets/(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>refs/\w+/[^/]+|[^/]+))?(/(?P<folder>.+?))?/?"
)
# The hub converts sets of other formats to parquet files, and keeps these here.
CONVERTED = "refs/convert/parquet"


def is_remote(path: str) -> bool:
    """True for an address on the hub, hf://..., which is no local path."""
    return path.startswith(SCHEME)


@functools.cache
def download(address: str) -> Path:
    """The local folder of the parquet files of hf://datasets/OWNER/NAME[@REVISION][/FOLDER], downloaded if need be.

    Raises UserError if the address is none, it has no parquet files, or they cannot be downloaded.
    """
    parsed = _ADDRESS.fullmatch(address)
    if not parsed:
        raise UserError(
            f"config.data.path: found {address!r}, expected hf://datasets/OWNER/NAME, with @REVISION and /FOLDER if "
            "need be; pass the name as its page on the hub has it"
        )
    try:
        import huggingface_hub  # imported late: only these addresses need it
    except ImportError as error:
        raise UserError(
            f"config.data.path: {address!r} needs the package huggingface_hub; pip install --editable '.[parquet]'"
        ) from error
    folder, revision = parsed["folder"] or "", parsed["revision"]
    log.info("%s: downloading its parquet files, unless they are in the cache of huggingface_hub", address)
    try:
        for wanted in (revision,) if revision else (None, CONVERTED):
            snapshot = huggingface_hub.snapshot_download(
                parsed["repository"],
                repo_type="dataset",
                revision=wanted,
                allow_patterns=[f"{folder}/*.parquet" if folder else "*.parquet"],
            )
            if any((Path(snapshot) / folder).rglob("*.parquet")):
                return Path(snapshot) / folder
    except Exception as error:  # no network, no such name, a closed set: the library raises many kinds of errors
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"config.data.path: {address!r} cannot be downloaded ({reason}); check the name and the network, or pass a "
            "folder that holds a copy of it"
        ) from error
    raise UserError(f"config.data.path: {address!r} holds no parquet files; download it, and pass the folder of images")


def version(folder: Path) -> str:
    """The commit of a folder of `download`."""
    commit = re.search("snapshots/([0-9a-f]+)", folder.as_posix())
    return f"commit {commit[1]}" if commit else ""
