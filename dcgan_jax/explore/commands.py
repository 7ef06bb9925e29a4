"""The commands that make pictures again."""

import shlex
from typing import Any

from dcgan_jax.runtime.command import as_typed


def command(launcher: str, *names: str, **flags: Any) -> str:
    """`python launch/LAUNCHER.py NAME --FLAG=VALUE ...`, as a shell takes it; or dcgan-jax, if this was started so."""
    words = [*names, *(f"--{flag}={value}" for flag, value in flags.items())]
    return " ".join([as_typed(f"python launch/{launcher}.py"), *map(shlex.quote, words)])
