"""Four virtual CPU devices for all tests, and small runs made once with the launcher itself."""

import os
import subprocess
import sys
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


def launch(script: str, *arguments: object, devices: int = 1, **environment: str) -> subprocess.CompletedProcess:
    """Runs a launcher as a user would, in a process of its own."""
    flags = f"--xla_force_host_platform_device_count={devices}" if devices > 1 else ""
    texts = " ".join(map(str, arguments))
    if "--config=" in texts and "--config.data.prepared" not in texts:
        arguments = (*arguments, f"--config.data.prepared={os.environ['DCGAN_TEST_PREPARED']}")
    return subprocess.run(
        [sys.executable, f"launch/{script}.py", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


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
