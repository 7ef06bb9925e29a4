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

sys.path.insert(0, str(ROOT / "docs" / "hooks"))
from commands import LAUNCHER, arguments_of, every

COMMANDS = every()
LAUNCHED = [line for line, _ in COMMANDS if LAUNCHER.match(line)]
OTHERS = [line for line, _ in COMMANDS if line not in LAUNCHED]


def check(line):
    """Raises what the launcher raises for the arguments; a launcher's main function is not called."""
    file, arguments = arguments_of(line)
    if not file or not arguments:
        return
    assert (ROOT / file).is_file(), f"{line}: {file} does not exist"
    with _launcher_state(), mock.patch.object(sys, "argv", [file, *arguments]):
        import cli

        def parse(main, usage, *, read=None, names=(), unused=()):
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
