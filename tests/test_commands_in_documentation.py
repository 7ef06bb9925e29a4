"""Every command in README.md, docs/ and the notes of configurations names a launcher, flags and files that exist.

Nothing is trained: launchers parse their arguments and check the configuration, and stop there.
"""

import re
import runpy
import shlex
import sys
from unittest import mock

import pytest
from absl import flags
from conftest import ROOT, _launcher_state

from dcgan_jax.config import validate
from dcgan_jax.runtime import command
from dcgan_jax.runtime.errors import UserError

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "launch/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "configs").glob("*.py")),
]
OURS = re.compile(r"(?:\S*python )?(?:launch|benchmarks)/\S*\.(?:py|sh|sbatch)\b|dcgan-jax ")
# What stands for the reader's own, and what the test takes in its place.
STAND_INS = {
    "configs/NAME.py": "configs/digits.py",
    "--config=NAME": "--config=digits",
    "figure.py NAME": "figure.py walk",
}


def commands(path):
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


COMMANDS = sorted({(line, path.relative_to(ROOT).as_posix()) for path in DOCUMENTS for line in commands(path)})
LAUNCHED = [line for line, _ in COMMANDS if re.match(r"\S*(?:python )?launch/\w+\.py|dcgan-jax ", line)]
OTHERS = [line for line, _ in COMMANDS if line not in LAUNCHED]


def arguments_of(line):
    """The file and the arguments of a launcher."""
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


def check(line):
    """Raises what the launcher raises for the arguments; a launcher's main function is not called."""
    file, arguments = arguments_of(line)
    if not file or not arguments:
        return
    assert (ROOT / file).is_file(), f"{line}: {file} does not exist"
    with _launcher_state(), mock.patch.object(sys, "argv", [file, *arguments]):
        import cli

        def parse(main, usage, *, read=None, names=()):
            if re.fullmatch(r"--\w+", " ".join(arguments)):  # a flag that is spoken of
                assert arguments[0] in ("--help", *(f"--{name}" for name in flags.FLAGS)), line
                return
            rest = flags.FLAGS([file, *(read(arguments) if read else arguments)])[1:]
            assert len(rest) == bool(names), f"{line}: {rest}"
            assert not names or rest[0] in names, f"{line}: {rest[0]}"
            if read and "--table" not in " ".join(arguments):  # which needs no configuration
                validate(sys.modules["configuration"].from_flags()[0])

        with mock.patch.object(cli, "run", parse):
            runpy.run_path(str(ROOT / file), run_name="__main__")


def test_commands_are_found():
    assert len(LAUNCHED) > 80
    assert len(OTHERS) > 20
    assert any("train.py --config=configs/digits.py" in line for line in LAUNCHED)


@pytest.mark.parametrize("line", sorted(set(LAUNCHED)))
def test_a_launchers_command_is_one_that_it_takes(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    check(line)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("python launch/trian.py --config=digits", AssertionError),
        ("python launch/train.py --config=digit", UserError),
        ("python launch/train.py --config=digits --config.generater_lr=1", UserError),
        ("python launch/train.py --config=digits --config.image_size=50", UserError),
        ("python launch/sample.py --workdri=runs/digits", flags.Error),
        ("python launch/figure.py walks --workdir=runs/digits", AssertionError),
        ("dcgan-jax trian --config=digits", AssertionError),
        ("dcgan-jax sample --format=jpeg", flags.Error),
    ],
)
def test_a_wrong_command_would_be_found(line, error, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(error):
        check(line)


def test_other_programs_exist_and_know_their_flags():
    """Benchmarks and shell scripts: each flag stands in the file, or in one beside it that it reads flags with."""
    for line in OTHERS:
        words = shlex.split(line.replace("python ", "", 1))
        file = ROOT / words[0]
        assert file.is_file(), line
        own = words[1 : words.index("--")] if "--" in words else words[1:]
        text = file.read_text() + (ROOT / "benchmarks" / "measure.py").read_text()
        for word in own:
            name = word.partition("=")[0]
            if name.startswith("--") and not name.startswith("--config."):
                assert name in text or name.removeprefix("--") in text, f"{line}: {name}"


def test_subcommands_are_those_of_the_command():
    named = {arguments_of(line)[0] for line in LAUNCHED if line.startswith("dcgan-jax ")} - {""}
    assert named
    assert named <= {f"launch/{file.name}" for file in command._launchers().values()}
