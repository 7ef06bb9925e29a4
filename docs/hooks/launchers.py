"""A page for each launcher, from its docstring and the flags that it defines."""

import ast
import re
import runpy
import sys
from pathlib import Path

from absl import flags

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
# Modules of launch/ whose flags are those of the launchers that import them.
SHARED = ("configuration", "image_sets", "processes")


def files() -> list[Path]:
    """The launchers."""
    return [file for file in sorted(LAUNCH.glob("*.py")) if "cli.run(" in file.read_text(encoding="utf-8")]


def title(file: Path) -> str:
    """The name as a subcommand."""
    return file.stem.replace("_", "-")


def page(file: Path) -> str:
    """The page's address in the site."""
    return f"commands/{file.stem}.md"


def docstring(file: Path) -> str:
    """The text at the top of a Python file."""
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def overview() -> str:
    """The page of all launchers."""
    rows = [f"| [`{title(file)}`]({page(file)}) | {docstring(file).partition(':')[0]} |" for file in files()]
    return (
        "# All commands\n\n`python launch/NAME.py` in a checkout, or `dcgan-jax NAME` with the same flags wherever the "
        "package is installed. `--help` prints what these pages say.\n\n| NAME | |\n|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def markdown(file: Path) -> str:
    """The page of one launcher."""
    first, _, rest = docstring(file).partition("\n")
    purpose, _, usage = first.partition(": ")
    lines = [
        *(f"# {title(file)}", "", f"{purpose}.", ""),
        *("```text", usage, usage.replace(f"python launch/{file.stem}.py", f"dcgan-jax {title(file)}"), "```", ""),
        *(_as_markdown(paragraph) + "\n" for paragraph in re.split(r"\n\s*\n", rest.strip("\n")) if paragraph.strip()),
        *("## Flags", "", "| flag | default | meaning |", "|---|---|---|"),
    ]
    defined, shared = flags_of(file)
    lines += [_row(flag) for flag in defined]
    if "configuration" in shared:
        lines += ["", "Each field of a configuration is a flag, `--config.NAME=VALUE`: [every field](../config.md)."]
    return "\n".join(lines) + "\n"


def _as_markdown(paragraph: str) -> str:
    """A paragraph of a docstring: as it is if its lines are aligned, otherwise as text, with flags as code."""
    if re.search(r"^ |\S {2,}\S", paragraph, re.MULTILINE):
        return f"```text\n{paragraph}\n```"
    text = re.sub(r"(?<![\w`-])--\w[\w.]*(?:=[^\s,;:)]+)?(?<!\.)", r"`\g<0>`", paragraph)
    return re.sub(r"\n(?=\w+: )", "  \n", text)  # each definition on a line of its own


def _row(flag: flags.Flag) -> str:
    values = getattr(flag.parser, "enum_values", None)
    text = " ".join((flag.help or "").split())
    text = text.removeprefix(f"<{'|'.join(values)}>: ") if values else text
    text = text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    text += f": {', '.join(f'`{value}`' for value in values)}" if values else ""
    default = "" if flag.default in (None, [], "") else f"`{flag.default}`"
    return f"| `--{flag.name}`{{.flag}} | {default} | {text} |"


def flags_of(file: Path) -> tuple[list[flags.Flag], list[str]]:
    """The flags of a launcher, its own first, and the names of the shared modules that it imports.

    The launcher is run as a module, without its main function; the flags that it defines are removed again.
    """
    before, path = set(flags.FLAGS), sys.path[:]
    sys.path.insert(0, str(LAUNCH))
    try:
        runpy.run_path(str(file), run_name=file.stem)
        shared = [name for name in SHARED if name in sys.modules]
        by_module = flags.FLAGS.flags_by_module_dict()
        modules = [name for name in by_module if name not in SHARED] + shared
        new = [flag for name in modules for flag in by_module.get(name, []) if flag.name not in before]
    finally:
        sys.path[:] = path
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        for module in LAUNCH.glob("*.py"):
            sys.modules.pop(module.stem, None)
    return new, shared
