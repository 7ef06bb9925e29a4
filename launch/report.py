"""Makes a page that shows a run: python launch/report.py --workdir=DIR [--workdir=DIR2 ...] [--out=FILE]

    python launch/report.py --workdir=runs/digits
    python launch/report.py --workdir=runs/digits --workdir=runs/other --out=both.html

One HTML file, which opens without a network: the curves of losses, quality and speed, the samples in the course of
training beside real images, a walk between z, the images, and the configuration. Several runs lie over one another.

Training writes DIR/report.html by itself when it is done. It needs pip install plotly jinja2 (the extra report).
"""

import os
from pathlib import Path

import cli
from absl import flags

from dcgan_jax.runtime.errors import UserError, writable_path

WORKDIR = flags.DEFINE_multi_string(
    "workdir", [], "run directory, such as runs/digits; given several times, these runs are compared"
)
OUT = flags.DEFINE_string(
    "out", None, "new file; by default WORKDIR/report.html, or of several runs comparison.html in the first WORKDIR"
)


def main() -> None:
    from dcgan_jax.runtime import compile_cache, malloc

    malloc.keep_freed_memory()
    if not WORKDIR.value or "" in WORKDIR.value:
        raise UserError("--workdir: missing, expected a run directory, such as runs/digits")
    from dcgan_jax.page import document, make
    from dcgan_jax.runtime import devices
    from dcgan_jax.runtime.files import write_text

    compile_cache.enable()
    if len(WORKDIR.value) > make.MOST_RUNS:
        raise UserError(
            f"--workdir: found {len(WORKDIR.value)} runs, expected at most {make.MOST_RUNS}; compare fewer at a time"
        )
    document.libraries()
    devices.check()
    runs = make.records(WORKDIR.value)
    folders = [run.folder.resolve() for run in runs]
    if len(set(folders)) < len(folders):
        raise UserError("--workdir: found the same run twice, expected different ones; remove one")
    out = _out(runs[0].folder, several=len(runs) > 1)
    text = make.page(runs)
    _refuse_existing(out)  # again: making the page takes seconds
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
    except OSError as error:
        if error.errno in cli.DISK_FULL:
            raise
        raise UserError(f"--out: {str(out)!r} cannot be written ({error.strerror}); pass another --out") from error
    print(out)


def _out(workdir: Path, *, several: bool) -> Path:
    """Where the page goes. Raises UserError if that is not possible, or somebody's file is there."""
    from dcgan_jax.page import make

    default = _free_comparison(workdir) if several else workdir / make.NAME
    out = writable_path(OUT.value or default, "--out")
    _refuse_existing(out)
    return out


def _free_comparison(workdir: Path) -> Path:
    names = (f"comparison{number}.html" for number in ("", *range(2, 10**6)))
    return next(path for path in (workdir / name for name in names) if not os.path.lexists(path))


def _refuse_existing(out: Path) -> None:
    """Raises UserError if something is there, but for a page of ours in its usual place, which a newer one replaces."""
    from dcgan_jax.page import document

    if os.path.lexists(out) and (OUT.value or not document.is_ours(out)):
        raise UserError(f"--out: {str(out)!r} exists, expected a new file; pass another --out, or remove it")


if __name__ == "__main__":
    cli.run(main, __doc__)
