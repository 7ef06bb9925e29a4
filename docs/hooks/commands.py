"""The commands of README.md, docs/ and the notes of configurations, for a test and for benchmarks/silence.py."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "launch/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "configs").glob("*.py")),
]
OURS = re.compile(r"(?:\S*python )?(?:launch|benchmarks)/\S*\.(?:py|sh|sbatch)\b|dcgan-jax ")
LAUNCHER = re.compile(r"\S*(?:python )?launch/\w+\.py|dcgan-jax ")
# What stands for the reader's own, and what is taken in its place.
STAND_INS = {
    "configs/NAME.py": "configs/digits.py",
    "--config=NAME": "--config=digits",
    "figure.py NAME": "figure.py walk",
}


def commands(path: Path) -> Iterator[str]:
    """The commands of a document: lines of blocks of code, of indented ones too, and code within lines."""
    text = path.read_text()
    blocks = re.findall(r"^```(?:bash|text)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    blocks += re.findall(
        r"(?:^ {4}\S.*\n(?: {4}.*\n)*)", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE
    )
    lines = [line.strip() for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    within = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines += [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", within)]
    for line in lines:
        line = re.sub(r"^(?:\w+=\S+ )+", "", line)  # variables of the environment
        if OURS.match(line) and " ..." not in line and "[" not in line:
            yield re.sub(r"\s+#.*| \| head.*", "", line)


def every() -> list[tuple[str, str]]:
    """All commands, each with the document that it stands in."""
    return sorted({(line, path.relative_to(ROOT).as_posix()) for path in DOCUMENTS for line in commands(path)})


def arguments_of(line: str) -> tuple[str, list[str]]:
    """The file and the arguments of a launcher; of the command dcgan-jax itself no file."""
    for name, instead in STAND_INS.items():
        line = line.replace(name, instead)
    line = re.sub(r"=N(?=\s|$)", "=1", line)
    words = shlex.split(line)
    words = words[1:] if words[0].endswith("python") else words
    if words[0] != "dcgan-jax":
        return words[0], words[1:]
    if words[1].startswith("--"):  # of the command itself
        return "", words[1:]
    return f"launch/{words[1].replace('-', '_')}.py", words[2:]
