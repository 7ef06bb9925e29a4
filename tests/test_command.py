"""The command dcgan-jax: the same launchers under another name, and what a wheel holds for it."""

import os
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT, SMALL, call, call_command
from test_launchers import LAUNCHERS

from dcgan_jax import __version__
from dcgan_jax.page import document
from dcgan_jax.run import places
from dcgan_jax.runtime import command, versions

SUBCOMMANDS = {script: script.replace("_", "-") for script in LAUNCHERS}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout; in a second, as it needs no network and leaves nothing in the checkout."""
    from hatchling.builders.wheel import WheelBuilder

    return zipfile.ZipFile(next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist")))))


def python_files(folder):
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}


def test_a_wheel_holds_the_package_the_launchers_and_the_configurations_in_one_folder(wheel):
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    inside = python_files("launch") | python_files("configs")
    bundled = {path.relative_to(ROOT).as_posix() for path in places.BUNDLED.rglob("*") if path.is_file()}
    templates = {path.relative_to(ROOT).as_posix() for path in document.TEMPLATES.iterdir()}
    assert bundled
    assert templates
    assert files == python_files("dcgan_jax") | bundled | templates | {f"dcgan_jax/{name}" for name in inside}
    (scripts,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert wheel.read(scripts).decode().split() == [
        "[console_scripts]", "dcgan-jax", "=", "dcgan_jax.runtime.command:main",
    ]  # fmt: skip


def test_what_a_wheel_holds_runs_anywhere_and_is_the_code_of_the_checkout(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    program = "from dcgan_jax.runtime import command, versions; print(versions.versions()['code']); command.main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "train", "--config=digits:torch", "--config.image_size=50"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == f"{versions.versions()['code']}\n"
    assert "expected multiples of 8" in done.stderr  # of the configuration, from the wheel's file


@pytest.mark.parametrize("script", LAUNCHERS)
def test_a_subcommand_is_its_launcher(script):
    direct, named = call(script, "--help"), call_command(SUBCOMMANDS[script], "--help")
    assert named.returncode == 0
    assert f"dcgan-jax {SUBCOMMANDS[script]} " in named.stdout
    for text in ("python launch/", str(ROOT), ".py"):
        assert text not in named.stdout.partition("\nFields of a configuration")[0]
    assert len(named.stdout.splitlines()) == len(direct.stdout.splitlines())
    direct, named = call(script), call_command(script)
    assert (named.returncode, named.stdout, named.stderr) == (2, direct.stdout, direct.stderr)


def test_the_command_alone():
    done = call_command("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"\n{name} " in done.stdout for name in SUBCOMMANDS.values())
    assert call_command("-h").stdout == done.stdout
    assert call_command("--version").stdout == f"dcgan-jax {__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("trian",), ("cli",), ("digits",), ("../launch/train",)])
def test_a_mistake_in_the_subcommand_is_one_line_with_all_of_them(arguments):
    done = call_command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    found = repr(arguments[0]) if arguments else "none"
    assert done.stderr.startswith(f"error: command: found {found}, expected one of evaluate, explore, export-weights, ")
    assert done.stderr.count("\n") == 1


def test_a_configuration_by_its_name_is_its_file(tmp_path):
    small = (*SMALL[1:], "--config.num_steps=1", "--config.sample_every=1")
    by_name = call_command("train", "--config=digits:torch", *small, f"--workdir={tmp_path}/named")
    assert by_name.returncode == 0, by_name.stderr
    assert by_name.stderr.endswith(f"done: step 1 in {tmp_path}/named; dcgan-jax sample makes images\n")
    by_file = call("train", "--config", "configs/digits.py:torch", *small, f"--workdir={tmp_path}/named")
    assert by_file.stderr == f"nothing to do: {tmp_path}/named is at step 1 of 1\n"
    own = tmp_path / "digits_of_mine.py"
    own.write_text((ROOT / "configs" / "digits.py").read_text())
    same = call_command("train", f"--config={own}:torch", *small, f"--workdir={tmp_path}/named")
    assert same.stderr == by_file.stderr


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        (
            "--batch_size=32",
            "flags: 'batch_size' is unknown, expected --config.batch_size, a field",
        ),
        ("--batch-size", "'batch-size' is unknown, expected --config.batch_size,"),
        ("--path=x", "expected --config.data.path,"),
        ("--sizes=1", "Unknown command line flag 'sizes'"),
    ],
)
def test_a_field_without_its_prefix_is_told_as_one(flag, told):
    done = call("train", "--config=digits", flag)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert told in done.stderr


@pytest.mark.parametrize("value", ["digit", "digit:torch", "configs/digit.py", "configs"])
def test_an_unknown_configuration_is_told_the_known_ones(value):
    for done in (call("train", f"--config={value}"), call_command("prepare", "--config", value)):
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: --config: {value.partition(':')[0]!r} does not exist, expected NAME or ")
        assert "celeba, cifar10, digits, fashion_mnist" in done.stderr
        assert done.stderr.count("\n") == 1


def test_texts_name_what_the_user_typed(monkeypatch):
    text = (
        "train: then python launch/import_weights.py --out=x, or launch/train.py --config=configs/folder.py:torch; "
        "'configs/mine.py', /home/me/launch/train.py and ./configs/mine.py are the user's"
    )
    assert command.as_typed(text) == text
    monkeypatch.setattr(command, "_running", ["train"])
    monkeypatch.setattr(sys, "argv", ["/site/launch/train.py"])
    assert command.as_typed(text) == (
        "train: then dcgan-jax import-weights --out=x, or dcgan-jax train --config=folder:torch; "
        "'configs/mine.py', /home/me/launch/train.py and ./configs/mine.py are the user's"
    )
