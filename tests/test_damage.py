"""Only what is wrong with the bytes of a checkpoint is damage; what else stops its reading is told as what it is."""

import errno
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import SMALL, call

import dcgan_jax
from dcgan_jax.run import checkpoint, damage
from dcgan_jax.runtime import devices, versions
from dcgan_jax.runtime.errors import UserError

AT = 'Error opening "zarr" driver: Error reading "ema.params/.zarray" in OCDBT database at local file "x/state/": '


def system(number):
    return OSError(number, os.strerror(number), "x/state/d/0")


# Where reading is stopped, by what, and what is to be raised: UserError where the user can act, otherwise the same.
RESTORE, DIGEST = (checkpoint.ocp.Checkpointer, "restore"), (checkpoint.trees, "digest")
HANDLER, META = (checkpoint.ocp, "StandardCheckpointHandler"), (Path, "read_text")
CAUSES = {
    "closed to us": (META, system(errno.EACCES), UserError),
    "broken disk": (META, system(errno.EIO), UserError),
    "interrupted": (META, system(errno.EINTR), UserError),
    "lost network": (RESTORE, system(errno.ESTALE), UserError),
    "no answer": (RESTORE, system(errno.ETIMEDOUT), UserError),
    "full disk": (RESTORE, system(errno.ENOSPC), UserError),
    "too many open files": (HANDLER, system(errno.EMFILE), UserError),
    "no memory for the system": (RESTORE, system(errno.ENOMEM), UserError),
    "a library's file": (HANDLER, FileNotFoundError(errno.ENOENT, "No such file", "libzstd.so"), UserError),
    "tensorstore, open files": (
        RESTORE,
        ValueError(f"RESOURCE_EXHAUSTED: {AT}Failed to open: Too many open files [os_error_code='24']"),
        UserError,
    ),
    "tensorstore, disk": (RESTORE, ValueError(f"UNKNOWN: {AT}Input/output error [os_error_code='5']"), UserError),
    "tensorstore, closed": (RESTORE, ValueError(f"PERMISSION_DENIED: {AT}Permission denied"), UserError),
    "tensorstore, busy": (RESTORE, ValueError(f"FAILED_PRECONDITION: {AT}busy [os_error_code='16']"), UserError),
    "tensorstore, other fields": (RESTORE, ValueError('Error parsing object member "driver": "zarr9"'), ValueError),
    "tensorstore, another type": (
        RESTORE,
        ValueError('FAILED_PRECONDITION: Error opening "zarr" driver: Expected "dtype" of "<f4"'),
        ValueError,
    ),
    "no memory": (DIGEST, MemoryError(), MemoryError),
    "no device": (RESTORE, RuntimeError("Unable to initialize backend 'cuda': no devices"), RuntimeError),
    "no device at all": (HANDLER, AssertionError(), AssertionError),
    "another orbax, name": (HANDLER, AttributeError("module 'orbax' has no attribute 'x'"), AttributeError),
    "another orbax, argument": (RESTORE, TypeError("got an unexpected keyword argument 'x'"), TypeError),
    "another orbax, module": (RESTORE, ImportError("cannot import name 'x'"), ImportError),
    "a fault of orbax": (RESTORE, KeyError("value_metadata"), KeyError),
    "a fault of ours": (DIGEST, ValueError("x"), ValueError),
    "depth": (DIGEST, RecursionError("maximum recursion depth exceeded"), RecursionError),
    "Ctrl-C": (RESTORE, KeyboardInterrupt(), KeyboardInterrupt),
    "closed to us, metadata of tensorstore": (HANDLER, system(errno.EPERM), UserError),
    "a quota": (RESTORE, system(errno.EDQUOT), UserError),
    "a disk that went away": (META, system(errno.ENXIO), UserError),
    "a disk that turned read-only": (RESTORE, system(errno.EROFS), UserError),
    "a lock of another": (RESTORE, system(errno.EAGAIN), UserError),
    "a link in a circle": (META, system(errno.ELOOP), UserError),
    "a connection that was lost": (RESTORE, system(errno.ECONNRESET), UserError),
    "no system error at all": (RESTORE, OSError("read failed"), UserError),
    "time": (RESTORE, TimeoutError("timed out"), UserError),
    "tensorstore, memory": (RESTORE, ValueError(f"RESOURCE_EXHAUSTED: {AT}Cannot allocate memory"), UserError),
    "tensorstore, a bucket": (RESTORE, ValueError(f"UNAVAILABLE: {AT}HTTP status 503"), UserError),
    "tensorstore, cancelled": (RESTORE, ValueError(f"CANCELLED: {AT}Cancelled"), ValueError),
    "tensorstore, time": (RESTORE, ValueError(f"DEADLINE_EXCEEDED: {AT}Deadline exceeded"), ValueError),
    "no thread": (DIGEST, RuntimeError("can't start new thread"), RuntimeError),
    "no memory for an array": (RESTORE, np._core._exceptions._ArrayMemoryError((9**9,), np.dtype("f4")), MemoryError),
    "an end": (DIGEST, SystemExit(75), SystemExit),
    "a missing library": (HANDLER, ModuleNotFoundError("No module named 'zstandard'"), ModuleNotFoundError),
    "a package without its files": (HANDLER, ImportError("libstdc++.so.6: version not found"), ImportError),
}


def stop_reading(monkeypatch, cause):
    (owner, name), error, _ = CAUSES[cause]
    real = getattr(owner, name)

    def stopped(*arguments, **keywords):
        if owner is Path and arguments[0].name != "metadata":
            return real(*arguments, **keywords)
        raise error

    monkeypatch.setattr(owner, name, stopped)


@pytest.mark.parametrize("step", [None, 40])
@pytest.mark.parametrize("cause", CAUSES)
def test_what_is_not_about_bytes_is_no_damage(straight_run, monkeypatch, caplog, cause, step):
    _, error, expected = CAUSES[cause]
    stop_reading(monkeypatch, cause)
    with pytest.raises(BaseException) as raised:  # noqa: PT011  # its type is compared below
        checkpoint.read(straight_run, step)
    assert type(raised.value) is expected or raised.value is error
    assert isinstance(raised.value, expected)
    assert not isinstance(raised.value, damage.Damaged)
    assert "damaged" not in caplog.text
    if expected is UserError:
        assert "40' cannot be read (" in str(raised.value)
        assert "\n" not in str(raised.value)
    else:
        assert raised.value is error


@pytest.mark.parametrize("cause", ["broken disk", "tensorstore, open files", "a fault of orbax"])
def test_training_sets_nothing_aside_for_it(straight_run, monkeypatch, cause, tmp_path):
    run = shutil.copytree(straight_run, tmp_path / "run")
    before = sorted(run.rglob("*"))
    stop_reading(monkeypatch, cause)
    done = call("train", *SMALL, "--config.num_steps=60", f"--workdir={run}")
    assert done.returncode == (2 if CAUSES[cause][2] is UserError else 1)
    assert "damaged" not in done.stderr
    assert [path for path in sorted(run.rglob("*")) if path.name != ".lock"] == [p for p in before if p.name != ".lock"]


def test_a_closed_folder_of_checkpoints_is_told(straight_run, monkeypatch):
    def closed(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "x/checkpoints")

    for owner, name in ((checkpoint.ocp.utils, "checkpoint_steps"), (Path, "is_dir")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, closed)
            with pytest.raises(
                UserError, match=r"checkpoints' cannot be read \(\[Errno 13\].*; mend that, and start again"
            ):
                checkpoint.steps(straight_run)


def described(run, change):
    path = run / "checkpoints" / "40" / damage.DESCRIPTION
    content = json.loads(path.read_text())
    change(content["tree_metadata"])
    path.write_text(json.dumps(content))


def rename_a_field(entries):
    name = next(iter(entries))
    entries[name]["vclue_metadata"] = entries[name].pop("value_metadata")


def test_a_description_that_another_orbax_wrote_is_not_called_damaged(straight_run, monkeypatch, tmp_path):
    run = shutil.copytree(straight_run, tmp_path / "run")
    described(run, rename_a_field)
    with pytest.raises(damage.Damaged, match=r"holds no key or value of \('discriminator'"):
        checkpoint.read(run, 40)
    here = versions.versions() | {"orbax-checkpoint": "0.99"}
    monkeypatch.setattr(damage, "versions", lambda: here)
    with pytest.raises(
        UserError, match=r"cannot be read by orbax-checkpoint 0\.99, and was written by .*; install that"
    ):
        checkpoint.read(run)


# Found by random damage: text that parses, and is not what was written.
WRONG_TEXT = {
    "meta/metadata": ["[]", "null", '{"config": {}}', "[" * 100_000],
    "state/_METADATA": ["[]", "{}", '{"tree_metadata": {}}', '{"tree_metadata": []}', '{"tree_metadata": {"x": 1}}'],
    "state/checkpoint": ["text"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in WRONG_TEXT.items() for text in texts])
def test_files_that_hold_something_else_are_damage(straight_run, tmp_path, name, text):
    run = shutil.copytree(straight_run, tmp_path / "run")
    (run / "checkpoints" / "40" / name).write_text(text)
    with pytest.raises(damage.Damaged):
        checkpoint.read(run, 40)
    assert checkpoint.read(run)[0]["step"] == 20


def test_the_best_is_not_chosen_without_one_that_cannot_be_read(straight_run, monkeypatch, tmp_path, caplog):
    config = {"best_metric": "d_loss", "best_is": "lowest", "quality": False, "eval_every": 0, "eval_metrics": ""}
    values = {step: checkpoint._metrics(straight_run / "checkpoints" / str(step))["d_loss"] for step in (20, 40)}
    assert checkpoint.best(straight_run, config) == min(values, key=values.get)
    run = shutil.copytree(straight_run, tmp_path / "run")
    (run / "checkpoints" / "20" / "meta" / "metadata").write_text("{")
    assert checkpoint.best(run, config) == 40
    assert "20' is damaged" in caplog.text
    stop_reading(monkeypatch, "broken disk")
    with pytest.raises(UserError, match=r"20' cannot be read \(\[Errno 5\]"):
        checkpoint.best(straight_run, config)


def test_checkpoints_whose_metrics_cannot_be_read_stay(straight_run, monkeypatch, tmp_path, caplog):
    run = shutil.copytree(straight_run, tmp_path / "run")
    options = dict(keep=1, keep_best=1, best_metric="d_loss")
    stop_reading(monkeypatch, "closed to us")
    checkpoints = checkpoint.Checkpoints(run, **options)
    checkpoints.close()
    assert checkpoints._retention.metrics == {20: None, 40: None}
    assert "that of step 20 stays" in caplog.text
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        checkpoint.Checkpoints(run, **options)


DEVICES = [
    RuntimeError("Unable to initialize backend 'gppu': unknown (set JAX_PLATFORMS='' to choose)"),
    AssertionError(),
]


@pytest.mark.parametrize("error", DEVICES)
def test_a_notebook_without_the_device_is_told_in_one_line(straight_run, monkeypatch, caplog, error):
    def missing(*_):
        raise error

    monkeypatch.setattr(jax, "local_devices", missing)
    monkeypatch.setattr(devices, "_platforms", lambda: ["cpu", "gpu"])
    with pytest.raises(UserError) as told:
        dcgan_jax.load(straight_run)
    reason = " (Unable to initialize backend 'gppu': unknown)" if str(error) else ""
    assert str(told.value) == (
        f"JAX_PLATFORMS: found 'cpu', expected cpu or gpu, which is all that JAX finds here{reason}; unset "
        "JAX_PLATFORMS, or set it to cpu to compute on the CPU"
    )
    assert not caplog.text
