"""Four virtual CPU devices for all tests, launchers in this process or their own, and small runs that tests share."""

import contextlib
import functools
import gc
import importlib.metadata
import io
import json
import logging
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

# Tests spend most of their time compiling tiny networks, so they optimise little and keep what they compiled. JAX reads
# these variables when it is imported; launched processes inherit them.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
# Steps compile in a third of the time by what this turns back to; later versions refuse the flag.
os.environ["XLA_FLAGS"] += (
    " --xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jaxlib").startswith(("0.9.", "0.10.")) else ""
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".pytest_cache" / "d" / "xla"))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# XLA's CPU threads, two on a machine of two cores. A program that was read from the compilation cache may start several
# collectives at once, each of which blocks a thread for each device: with too few threads they wait for ever.
os.environ["NPROC"] = "16"
# JAX does not write entries atomically: one that another worker is still writing is compiled again, with a warning.
os.environ["PYTHONWARNINGS"] = "ignore:Error reading persistent compilation cache entry"

import pytest
from absl import flags
from filelock import FileLock

from dcgan_jax import config as configuration
from dcgan_jax import data, fields
from dcgan_jax.runtime import command, compile_cache, dispatch, progress, signals

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_PLOTLY = ROOT / "tests" / "without_plotly"
COMPILE_FAST = os.environ["XLA_FLAGS"].split()[1:]
RUN_FAST = ["--xla_backend_optimization_level=1", *COMPILE_FAST[1:]]
DATA = Path(os.environ.get("DCGAN_TEST_DATA", ROOT.parent / "shared" / "data"))

# A network of two layers on 16x16 digits, which compiles in seconds.
SMALL = (
    "--config=configs/digits.py",
    "--config.image_size=16",
    "--config.width=4",
    "--config.batch_size=8",
    "--config.lr_decay_share=0",  # so that a run that is made longer is one that was as long from the start
    "--config.log_every=1",
    "--config.sample_every=20",
    "--config.checkpoint_every=20",
    "--config.quality=False",  # it would learn its features in each test
)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # before there are workers
        # Bounds the folder, and removes entries that a killed test left half written.
        compile_cache._tidy(Path(os.environ["JAX_COMPILATION_CACHE_DIR"]))
        # Where notebooks, which nbmake runs, train for a few steps; workers share it.
        folder = tempfile.TemporaryDirectory(prefix="notebooks_")
        config.add_cleanup(folder.cleanup)
        os.environ |= {"NOTEBOOK_FOLDER": folder.name, "NOTEBOOK_STEPS": "4"}


def pytest_collection_finish() -> None:
    # What was imported stays. Tracing makes millions of objects and few cycles: by default every 700 are searched.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Keeps the tests of a file together, as far as no worker is idle: they share fixtures and compiled functions."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None


def launch(
    script: str, *arguments: object, devices: int = 1, before: str = "", optimize: bool = False, **environment: str
) -> subprocess.CompletedProcess:
    """Runs a launcher in a process of its own.

    before: Python code to run in it first. optimize: compile longer and for faster code, for what runs many steps.
    """
    program = [f"launch/{script}.py"]
    if before:
        program = ["-c", f"{before}; sys.path.insert(0, 'launch'); runpy.run_path('{program[0]}', run_name='__main__')"]
    return subprocess.run(
        [sys.executable, *program, *_prepared(arguments)],
        cwd=ROOT,
        env=_environment(devices, optimize=optimize) | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def call(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Runs a launcher as `launch` does, but in this process, without seconds of imports, on its four devices.

    Variables that JAX reads when it is imported (JAX_ENABLE_X64, XLA_FLAGS) have no effect: use `launch` for them.
    """
    return _called((f"launch/{script}.py", *_prepared(arguments)), environment)


def call_command(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Runs the command `dcgan-jax` as `call` runs a launcher."""
    return _called(("bin/dcgan-jax", *_prepared(arguments)), environment)


def _called(arguments: tuple[str, ...], environment: dict[str, str]) -> subprocess.CompletedProcess:
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        _launcher_state(),
        # The second variable leaves malloc as it is: memory settings are for the life of a process.
        mock.patch.dict(os.environ, {"MALLOC_ARENA_MAX": ""} | environment),
        mock.patch.object(sys, "argv", list(arguments)),
        mock.patch.object(os, "_exit", sys.exit),  # as a launcher ends that still compiles
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            if arguments[0] == "bin/dcgan-jax":
                command.main()
            else:
                runpy.run_path(arguments[0], run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code or 0
        _check_names_in(stderr.getvalue())
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


def _check_names_in(told: str) -> None:
    """Every flag or field that a launcher's messages name must be one of its own, or --step, which training names."""
    for flag, field in named(told):
        assert flag in flags.FLAGS or flag in ("help", "NAME", "step"), f"--{flag} is no flag of this launcher: {told}"
        assert not field or fields.default_of(field) is not None, told


def named(text: str) -> list[tuple[str, str]]:
    """The flags --NAME that a text names, and the fields of --config.FIELD; not those in commands."""
    text = re.sub(r"(?:python launch/|dcgan-jax )\S+(?: --\S+)*|pip install.*", "", text)
    found = re.findall(r"(?<![\w-])--([A-Za-z]\w*)(?:\.(\w+(?:\.\w+)*))?", text)
    return found


class _NeverExits(signals.StopRequests):
    """A launcher's ends the process at once while there is nothing to save."""

    def __init__(self, *, exits: bool = False):
        super().__init__(exits=False)


@contextlib.contextmanager
def _launcher_state() -> Iterator[None]:
    """Lets a launcher start as if alone in its process, and undoes what it changed: flags, modules, logs, signals."""
    root, log = logging.getLogger(), logging.getLogger("dcgan_jax")
    handlers, levels = root.handlers[:], (root.level, log.level)
    handler_of_signal = {number: signal.getsignal(number) for number in signals.SIGNALS}
    known_flags, path = set(flags.FLAGS), sys.path[:]
    root.handlers = []  # or the launcher's logging.basicConfig would do nothing
    sys.path.insert(0, str(ROOT / "launch"))
    try:
        # On a busy machine short work takes long, and would be shown among what tests expect.
        unshown = mock.patch.multiple(progress, QUIET=3600, INTERVAL=3600)
        with mock.patch.object(signals, "StopRequests", _NeverExits), unshown:
            yield
    finally:
        for name in set(flags.FLAGS) - known_flags:
            delattr(flags.FLAGS, name)
        for module in (ROOT / "launch").glob("*.py"):
            sys.modules.pop(module.stem, None)
        for number, handler in handler_of_signal.items():
            signal.signal(number, handler)
        sys.path[:] = path
        root.handlers = handlers
        root.setLevel(levels[0])
        log.setLevel(levels[1])


def _environment(devices: int, optimize: bool) -> dict[str, str]:
    """The variables of a process that a test launches."""
    virtual = [f"--xla_force_host_platform_device_count={devices}"] if devices > 1 else []
    path = os.pathsep.join(filter(None, [str(WITHOUT_PLOTLY), os.environ.get("PYTHONPATH")]))
    flags_of_xla = " ".join([*virtual, *(RUN_FAST if optimize else COMPILE_FAST)])
    return os.environ | {"XLA_FLAGS": flags_of_xla, "PYTHONPATH": path}


def _prepared(arguments: tuple[object, ...]) -> list[str]:
    texts = list(map(str, arguments))
    if any("--config=" in text for text in texts) and not any("--config.data.prepared" in text for text in texts):
        texts.append(f"--config.data.prepared={os.environ['DCGAN_TEST_PREPARED']}")
    return texts


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Job:
    """Processes of a launcher that train together, on loopback; what they print goes into files below `folder`."""

    def __init__(
        self,
        folder: Path,
        processes: int,
        devices: int,
        *arguments: object,
        each=(),
        script="train",
        **environment: str,
    ):
        """each: for each process, arguments for it alone."""
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.outputs = [folder / f"process_{i}.txt" for i in range(processes)]
        self.processes = []
        for i, output in enumerate(self.outputs):
            own = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}", f"--process_id={i}"]
            with output.open("w") as file:
                process = subprocess.Popen(
                    [sys.executable, f"launch/{script}.py", *own, *_prepared((*arguments, *(each[i] if each else ())))],
                    cwd=ROOT,
                    env=_environment(devices, optimize=False) | environment,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            self.processes.append(process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def wait(self, timeout: float = 240) -> list[int]:
        """The exit codes of all."""
        deadline = time.monotonic() + timeout
        return [process.wait(max(0, deadline - time.monotonic())) for process in self.processes]

    def told(self) -> str:
        return "".join(output.read_text() for output in self.outputs)


@pytest.fixture
def tiny():
    """A validated configuration of two layers, 16x16 grey."""

    def make(**fields):
        config = configuration.default_config()
        config.data.prepared = os.environ["DCGAN_TEST_PREPARED"]
        small = dict(image_size=(16, 16), channels=1, width=4, batch_size=8, latent_dim=6, quality=False)
        config.update(small | fields)
        return configuration.validate(config)

    return make


def _shared_folder(factory: pytest.TempPathFactory) -> Path:
    """A temporary folder of this session, the same for all workers of pytest-xdist."""
    folder = factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def _share_prepared_sets(tmp_path_factory):
    os.environ["DCGAN_TEST_PREPARED"] = str(_shared_folder(tmp_path_factory) / "shared_prepared")


@pytest.fixture(scope="session", autouse=True)
def _no_reports():
    """The hundreds of runs in tests write no page of 5 MB each; those in processes of their own find no Plotly."""
    from dcgan_jax.page import make  # imports JAX and orbax

    with mock.patch.object(make, "at_end", return_value=""):
        yield


# Of a configuration, what a step of training does not follow from.
BESIDE_THE_STEP = {"num_steps", "keep", "keep_best", "on_collapse", "quality", "steps_per_call", *fields.INTERVALS}


@pytest.fixture(scope="session", autouse=True)
def _steps_compiled_once():
    """The hundreds of runs in one process share the steps of equal configurations.

    A test that changes what a step does replaces `steps.train_step`, or takes `train._programs.__wrapped__`.
    """
    import jax

    from dcgan_jax import steps, train

    made, make = {}, train._programs

    @functools.wraps(make)
    def programs(config, start, rollbacks):
        told = {name: value for name, value in config.to_dict().items() if name not in BESIDE_THE_STEP}
        if config.lr_decay_steps or config.lr_decay_share:
            told["num_steps"] = config.num_steps
        sizes = dispatch.sizes(start, config.num_steps, train._steps_per_call(config))
        key = (json.dumps(told, sort_keys=True), rollbacks, *sizes, steps.train_step, jax.config.jax_enable_x64)
        if key not in made:
            made[key] = make(config, start, rollbacks)
        return made[key]

    with mock.patch.object(train, "_programs", programs):
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """What evaluation keeps for the next time is kept for one test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """made_once(name, make) -> a folder that make(folder) filled, made by the first worker, copied for each."""

    def made_once(name: str, make: Callable[[Path], object]) -> Path:
        shared = _shared_folder(tmp_path_factory) / f"made_once_{name}"
        with FileLock(f"{shared}.lock"):
            if not shared.exists():
                partial = shared.with_name(f"{shared.name}_by_{os.getpid()}")
                make(partial)
                partial.rename(shared)
        return shutil.copytree(shared, tmp_path_factory.mktemp(name) / "run", symlinks=True)

    return made_once


@pytest.fixture(scope="session")
def straight_run(made_once):
    """The folder of a run of 40 steps without interruption, by a process of its own; on four devices, as `call`."""

    def make(workdir):
        done = launch("train", *SMALL, "--config.num_steps=40", f"--workdir={workdir}", devices=4)
        assert done.returncode == 0, done.stderr

    return made_once("straight", make)


@pytest.fixture(scope="session")
def data_dir():
    """Real data beside the project; tests of claims about data skip without it."""
    if not DATA.is_dir():
        pytest.skip(f"no real data in {DATA}; set DCGAN_TEST_DATA")
    return DATA


def images_at(source, path, tmp_path, num_classes=0, **fields):
    """A configuration of the images of a source at a path."""
    config = configuration.default_config()
    config.update(dict(image_size=(8, 8), num_classes=num_classes))
    config.data.update(dict(source=source, path=str(path), prepared=str(tmp_path / "prepared")) | fields)
    return config


@pytest.fixture
def read(tmp_path):
    """The prepared set of a path, with labels if `num_classes` says so."""
    return lambda source, path, **fields: data.load(images_at(source, path, tmp_path, **fields))
