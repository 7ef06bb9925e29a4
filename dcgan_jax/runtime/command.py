"""The command dcgan-jax: `dcgan-jax train ...` runs launch/train.py, in a wheel dcgan_jax/launch/train.py."""

import ast
import re
import runpy
import shutil
import sys
from pathlib import Path

from dcgan_jax import __version__
from dcgan_jax.runtime import streams

NAME = "dcgan-jax"
PACKAGE = Path(__file__).resolve().parent.parent
# As messages and the launchers' texts name a launcher and a configuration: files, which an installed package does not
# show.
_LAUNCHER = re.compile(r"(?<![\w/.'-])(?:python )?launch/(\w+)\.py")
_CONFIG = re.compile(r"(?<![\w/.'-])configs/(\w+)\.py")
_running: list[str] = []  # the subcommand, if this process runs one


def main() -> None:
    """Runs the launcher that the first argument names, as `python launch/NAME.py` would, with the others.

    Exits with the launcher's code; with 2 and one line if there is no such launcher.
    """
    streams.open_closed()
    streams.forgive_closed_pipes()
    launchers = _launchers()
    name, *arguments = sys.argv[1:] or [""]
    if name in ("-h", "--help"):
        print(_help(launchers))
        sys.exit(0)
    if name == "--version":
        print(NAME, __version__)
        sys.exit(0)
    script = launchers.get(_as_subcommand(name))
    if script is None:
        found, known = repr(name) if name else "none", ", ".join(launchers)
        print(f"error: command: found {found}, expected one of {known}; see {NAME} --help", file=sys.stderr)
        sys.exit(2)
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.parent))  # launchers import the modules beside them
    _running.append(_as_subcommand(name))
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        _running.pop()


def as_typed(text: str) -> str:
    """A launcher's text with commands as the user of this process types them.

    After `dcgan-jax ...`, 'python launch/import_weights.py' is 'dcgan-jax import-weights', and 'configs/digits.py' is
    'digits'; otherwise the text stays as it is.
    """
    if not _running:
        return text
    text = text.replace(sys.argv[0], f"{NAME} {_running[-1]}")
    text = _LAUNCHER.sub(lambda match: f"{NAME} {_as_subcommand(match.group(1))}", text)
    return _CONFIG.sub(r"\1", text)


def typed(launcher: str) -> list[str]:
    """The first words of a command line that starts another launcher, as the user of this process would type them."""
    if _running:
        return [NAME, _as_subcommand(launcher)]
    python = shutil.which("python")
    own = python and Path(python).absolute() == Path(sys.executable).absolute()
    return ["python" if own else sys.executable, _beside(launcher)]


def started(launcher: str) -> list[str]:
    """The same, for a new process: it starts as this one was started, by the command `dcgan-jax` or as a file."""
    if _running:
        return [sys.executable, "-c", f"from {__name__} import main; main()", _as_subcommand(launcher)]
    return [sys.executable, _beside(launcher)]


def _beside(launcher: str) -> str:
    return str(Path(sys.argv[0]).with_name(f"{launcher}.py"))


def _launchers() -> dict[str, Path]:
    """The launchers' files by their subcommands; in a checkout they lie beside the package, in a wheel within it."""
    inside = PACKAGE / "launch"
    folder = inside if inside.is_dir() else PACKAGE.parent / "launch"
    files = [file for file in sorted(folder.glob("*.py")) if "cli.run(" in file.read_text(encoding="utf-8")]
    return {_as_subcommand(file.stem): file for file in files}


def _as_subcommand(name: str) -> str:
    return name.replace("_", "-")


def _help(launchers: dict[str, Path]) -> str:
    width = max(map(len, launchers), default=0)
    lines = [f"{name:{width}}  {_purpose(file)}" for name, file in launchers.items()]
    return "\n".join(
        [
            f"DCGAN in JAX and Flax: {NAME} COMMAND [--FLAG=VALUE ...]",
            *("", *lines, ""),
            f"{NAME} COMMAND --help explains the flags of a command, {NAME} --version tells the version.",
            f"The first steps: {NAME} train --config=digits; {NAME} sample --workdir=runs/digits",
        ]
    )


def _purpose(file: Path) -> str:
    """What comes before the colon in the first line of a launcher."""
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").splitlines()[0].partition(":")[0]
