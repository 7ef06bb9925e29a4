"""Sets of images on Hugging Face's hub: their parquet files, downloaded once into its library's cache."""

import functools
import logging
import re
from pathlib import Path

from dcgan_jax.runtime import hub
from dcgan_jax.runtime.errors import UserError

log = logging.getLogger("dcgan_jax")

_ADDRESS = re.compile(
    r"hf://datasets/(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>refs/\w+/[^/]+|[^/]+))?(/(?P<folder>.+?))?/?"
)
# The hub converts sets of other formats to parquet files, and keeps these here.
CONVERTED = "refs/convert/parquet"


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
    folder, revision = parsed["folder"] or "", parsed["revision"]
    log.info("%s: downloading its parquet files, unless they are in the cache of huggingface_hub", address)
    patterns = [f"{folder}/*.parquet" if folder else "*.parquet"]
    for wanted in (revision,) if revision else (None, CONVERTED):
        found = hub.snapshot(
            "config.data.path", address, parsed["repository"], patterns, repo_type="dataset", revision=wanted
        )
        if any((found / folder).rglob("*.parquet")):
            return found / folder
    raise UserError(f"config.data.path: {address!r} holds no parquet files; download it, and pass the folder of images")


def version(folder: Path) -> str:
    """The commit of a folder of `download`."""
    commit = re.search("snapshots/([0-9a-f]+)", folder.as_posix())
    return f"commit {commit[1]}" if commit else ""
