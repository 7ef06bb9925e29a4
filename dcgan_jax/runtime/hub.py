"""Repositories on Hugging Face's hub, whose addresses begin with hf://: downloads into the cache of its own library."""

from pathlib import Path
from typing import Any

from dcgan_jax.runtime.errors import UserError

SCHEME = "hf://"


def is_remote(path: str) -> bool:
    """True for an address on the hub, which is no local path."""
    return path.startswith(SCHEME)


def snapshot(field: str, address: str, repository: str, patterns: list[str], **options: Any) -> Path:
    """The local folder of a repository's files that fit one of the patterns; without a network, of those in the cache.

    field: what errors say that the address is of. options: those of `huggingface_hub.snapshot_download`. Raises
    UserError if the library is not installed, or the files cannot be downloaded.
    """
    try:
        import huggingface_hub  # imported late: only these addresses need it
    except ImportError as error:
        raise UserError(
            f"{field}: {address!r} needs the package huggingface_hub; pip install huggingface_hub, or pass a local "
            "folder"
        ) from error
    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=patterns, **options))
    except Exception as error:  # no network, no such name, no access: the library has kinds of errors of its own
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{field}: {address!r} cannot be downloaded ({type(error).__name__}: {reason}); check the name and the "
            "network, or pass a local folder"
        ) from error
