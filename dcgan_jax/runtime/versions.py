"""Versions of everything that shapes a result: kept with checkpoints and measurements."""

import functools
import hashlib
import platform
from importlib import metadata
from pathlib import Path

from dcgan_jax import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")


@functools.cache
def versions() -> dict[str, str]:
    """Versions by package; `code` is a hash of this package's own source."""
    code = hashlib.sha256()
    root = Path(__file__).parent.parent
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] in ("launch", "configs"):
            continue  # a wheel holds them here, and its code is the same as a checkout's
        code.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    own = {"dcgan_jax": __version__, "code": code.hexdigest()[:16], "python": platform.python_version()}
    return own | {name: metadata.version(name) for name in PACKAGES}
