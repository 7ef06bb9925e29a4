"""Four virtual CPU devices for all tests, and small runs made once with the launcher itself."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

# Before JAX starts; launchers are run as a user would, without. The networks are tiny: compiling them is the work.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
os.environ["JAX_PLATFORMS"] = "cpu"

import pytest

from dcgan_jax import config as configuration

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("DCGAN_TEST_DATA", ROOT.parent / "shared" / "data"))

# A network of two layers on 16x16 digits, which compiles in seconds.
SMALL = (
    "--config=configs/digits.py",
    "--config.image_size=16",
    "--config.width=4",
    "--config.batch_size=8",
    "--config.log_every=1",
    "--config.sample_every=20",
    "--config.checkpoint_every=20",
)


@pytest.fixture
def tiny():
    """A validated configuration of two layers, 16x16 grey."""

    def make(**fields):
        config = configuration.default_config()
        config.data.prepared = os.environ["DCGAN_TEST_PREPARED"]
        config.update(dict(image_size=(16, 16), channels=1, width=4, batch_size=8, latent_dim=6) | fields)
        return configuration.validate(config)

    return make


@pytest.fixture(scope="session", autouse=True)
def _share(tmp_path_factory):
    """The tests of one session share what they compile and prepare."""
    os.environ["DCGAN_TEST_PREPARED"] = str(tmp_path_factory.mktemp("shared_prepared"))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path_factory.mktemp("compiled"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def launch(
    script: str, *arguments: object, devices: int = 1, before: str = "", **environment: str
) -> subprocess.CompletedProcess:
    """Runs a launcher as a user would, in a process of its own; `before` is Python to run in it first."""
    program = [f"launch/{script}.py"]
    if before:
        program = ["-c", f"{before}; sys.path.insert(0, 'launch'); runpy.run_path('{program[0]}', run_name='__main__')"]
    return subprocess.run(
        [sys.executable, *program, *_prepared(arguments)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": _virtual(devices)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def _virtual(devices: int) -> str:
    return f"--xla_force_host_platform_device_count={devices}" if devices > 1 else ""


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
        """each: arguments for one process each, beside those for all."""
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
                    env=os.environ | {"XLA_FLAGS": _virtual(devices)} | environment,
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


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """What evaluation keeps for the next time is kept for one test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


@pytest.fixture(scope="session")
def straight_run(tmp_path_factory):
    """The folder of a run of 40 steps without interruption."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    done = launch("train", *SMALL, "--config.num_steps=40", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="session")
def data_dir():
    """Real data beside the project; tests of claims about data skip without it."""
    if not DATA.is_dir():
        pytest.skip(f"no real data in {DATA}; set DCGAN_TEST_DATA")
    return DATA
