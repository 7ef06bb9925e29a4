"""The persistent compilation cache: the same bits, in the folder that the user wants, and never in the way."""

import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import SMALL, launch

from dcgan_jax.run import checkpoint
from dcgan_jax.runtime import compile_cache

PROGRAM = """
import jax, logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
{before}
from dcgan_jax.runtime import compile_cache
compile_cache.enable()
print(jax.jit(lambda x: x + 1)(41))
"""


@pytest.fixture(autouse=True)
def _unset(monkeypatch):
    for name in (
        "COMPILATION_CACHE_DIR",
        "PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
        "PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES",
    ):
        monkeypatch.delenv(f"JAX_{name}", raising=False)
    monkeypatch.delenv("PYTHONWARNINGS")


def compile_with(caches, before="", **environment):
    """What a process that compiles one function writes to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)],
        env=os.environ | {"XDG_CACHE_HOME": str(caches)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
    return done.stderr


def entries(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*-cache")}


def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    assert compile_with(tmp_path) == ""
    kept = entries(tmp_path / "dcgan_jax" / "xla")
    assert kept
    # These files hold code that will be run: nobody else may write them.
    assert (tmp_path / "dcgan_jax" / "xla").stat().st_mode & 0o077 == 0
    assert compile_with(tmp_path) == ""
    assert entries(tmp_path) == kept


@pytest.mark.parametrize("way", ["environment", "jax.config"])
def test_the_users_own_folder_wins(tmp_path, way):
    own = tmp_path / "own"
    if way == "environment":
        own_folder = dict(JAX_COMPILATION_CACHE_DIR=str(own))
    else:
        own_folder = dict(before=f"jax.config.update('jax_compilation_cache_dir', {str(own)!r})")
    compile_with(tmp_path, **own_folder, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    assert entries(own)
    assert not (tmp_path / "dcgan_jax").exists()


def test_it_can_be_switched_off(tmp_path):
    assert compile_with(tmp_path, JAX_ENABLE_COMPILATION_CACHE="0") == ""
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_used_is_told_in_one_line(tmp_path):
    told = compile_with("/dev/null")
    assert "not kept" in told
    assert told.count("\n") == 1
    compile_with(tmp_path)
    folder = tmp_path / "dcgan_jax" / "xla"
    kept = entries(folder)
    folder.chmod(0o777)
    assert "others can write" in compile_with(tmp_path, before="import jax; jax.numpy.ones(7)")
    assert entries(folder) == kept


def test_what_a_kill_left_half_written_is_mended(tmp_path):
    compile_with(tmp_path)
    kept = entries(tmp_path)
    for path in (tmp_path / "dcgan_jax" / "xla").iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    assert compile_with(tmp_path) == ""
    assert {name: len(entry) for name, entry in entries(tmp_path).items()} == {name: len(kept[name]) for name in kept}
    folder = tmp_path / "dcgan_jax" / "xla"
    assert not any(map(compile_cache._half_written, folder.iterdir()))


def test_the_folder_is_bounded_and_loses_the_oldest_first(tmp_path, monkeypatch):
    monkeypatch.setattr(compile_cache, "MAX_BYTES", 25)
    for age, name in enumerate(("new", "middle", "old")):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (10**9 - age,) * 2)
    compile_cache._tidy(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "middle"}


@pytest.mark.nightly
def test_training_and_samples_are_the_same_bits_compiled_or_read(tmp_path):
    workdir = tmp_path / "run"
    environment = dict(XDG_CACHE_HOME=str(tmp_path / "caches"))

    def train():
        every = "--config.checkpoint_every=3"
        done = launch("train", *SMALL, every, "--config.num_steps=6", f"--workdir={workdir}", **environment)
        assert done.returncode == 0, done.stderr
        return checkpoint.read(workdir)[0], entries(tmp_path / "caches")

    def sample(name):
        out = tmp_path / name
        done = launch("sample", f"--workdir={workdir}", "--num=5", "--format=npz", f"--out={out}", **environment)
        assert done.returncode == 0, done.stderr
        with np.load(out, allow_pickle=False) as archive:
            return archive["images"], entries(tmp_path / "caches")

    compiled, kept = train()
    shutil.rmtree(workdir / "checkpoints" / "6")
    # Steps 4 to 6 again: the step that was read from the cache gets the state as a donated argument, too.
    read, kept_then = train()
    assert kept == kept_then
    jax.tree.map(np.testing.assert_array_equal, compiled, read)

    compiled, kept = sample("compiled")
    read, kept_then = sample("read")
    assert kept == kept_then
    np.testing.assert_array_equal(compiled, read)
