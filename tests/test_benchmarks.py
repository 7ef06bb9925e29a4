"""What the benchmarks count and print. No test asserts a time."""

import functools
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, call
from PIL import Image

from dcgan_jax import data, state, steps
from dcgan_jax.config import default_of
from dcgan_jax.ops import conv

sys.path.insert(0, str(ROOT / "benchmarks"))

import flops
import layers
import measure
import memory
import scaling
import stability
from stability_runs import Run, config_of

# XLA also counts elementwise operations (batch norm, activations, Adam), 2 to 10% in networks this narrow.
ELEMENTWISE = 0.15
NETWORKS = {
    "4x4": {},
    "5x5": dict(kernel_size=5, fresh_z=True),
    "labels and dense": dict(features=(9, 12), kernel_size=5, num_classes=3, dense=(11, 12)),
    "oblong, strides 1 and 2": dict(image_size=(32, 16), kernel_size=3, features=(14, 15, 15), strides=(1, 2, 2)),
}


SLOW = "labels and dense"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.nightly) if name == SLOW else name for name in NETWORKS]
)
def test_operations_counted_by_hand_are_those_that_xla_counts(tiny, name, monkeypatch):
    # Plain convolutions: Winograd's, which CPUs use, take fewer operations.
    monkeypatch.setenv(conv.SWITCH, "plain")
    config = tiny(**dict(channels=3, features=(14, 15), latent_dim=50, batch_size=64) | NETWORKS[name])
    train_step = functools.partial(steps.train_step, steps.from_config(config))
    step = jax.jit(train_step).lower(state.abstract(config), measure.random_batch(config)).compile()
    ratio = step.cost_analysis()["flops"] / (config.batch_size * flops.train_step(config, inside=True))
    assert 1 <= ratio <= 1 + ELEMENTWISE


def test_a_ratio_is_the_median_of_pairs():
    # The ratio of the medians would be 1: the machine was slow for a while.
    assert measure.ratio([2.0, 20.0, 4.0], [1.0, 10.0, 4.0]) == 2


def test_the_convolutions_that_layers_are_compared_with_give_the_same_results():
    layer = flops.Layer("conv", outer=3, inner=16, height=8, width=8, kernel_size=4, stride=2, transpose=True)
    arrays = layers.random_arrays(layer, 2, "float32")
    for passed in layers.DENSE:
        used, *others = (
            function(*arguments) for function, arguments in layers.contenders(layer, passed, arrays).values()
        )
        assert len(others) == 2
        for other in others:
            assert jnp.abs(used - other).max() < 1e-4 * jnp.abs(other).max()


def test_a_table_has_a_column_for_each_field():
    lines = measure.table([{"name": "one", "rate": 1234.5}, {"name": "another", "failed": "no"}]).splitlines()
    assert [line.split() for line in lines] == [["name", "rate", "failed"], ["one", "1234"], ["another", "no"]]


def benchmark(*command, **environment):
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"XLA_FLAGS": ""} | environment, capture_output=True, text=True, timeout=300
    )


def test_collectives_are_read_out_of_a_program():
    text = """
      %all-reduce.1 = (f32[3,4]{1,0}, bf16[5]{0}) all-reduce(%a, %b), channel_id=1
      %all-gather-start = f32[8]{0} all-gather-start(%c)
      %all-gather-done = f32[8]{0} all-gather-done(%all-gather-start)
      %all-reduce.2 = f32[] all-reduce(%all-reduce.1)
    """
    assert scaling.collectives(text) == {"all-reduce": [58, 4], "all-gather": [32]}


def test_the_ring_of_two_sends_every_byte_once_each_way():
    assert scaling.ring_seconds("all-reduce", 100, devices=2, bandwidth=10.0, latency=1.0) == 2 + 100 / 10


def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather():
    ring = dict(devices=4, bandwidth=10.0, latency=1.0)
    part = scaling.ring_seconds("all-gather", 25, **ring)
    assert scaling.ring_seconds("all-reduce", 100, **ring) == part + scaling.ring_seconds("reduce-scatter", 25, **ring)
    # The size of a device's part must not depend on the number of devices in the program.
    assert scaling.parts({"all-gather": [80]}, 8) == scaling.parts({"all-gather": [20]}, 2) == [("all-gather", 10)]


@pytest.mark.nightly
def test_the_gpu_script_in_small(tmp_path):
    done = benchmark("benchmarks/gpu.sh", "--dry", OUT=str(tmp_path), PYTHON=sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    rows = [row for record in records for row in record["rows"]]
    assert {"ours", "ours, plain"} <= {row["who"] for row in rows if "images/s" in row}
    assert {"plain", "patches", "space_to_depth"} <= {row["form"] for row in rows if "than_plain" in row}
    assert records[0]["versions"]["jax"] == jax.__version__
    assert done.stdout.startswith("the plan, with the seconds")


@pytest.mark.nightly
def test_a_benchmark_that_is_killed_has_lost_no_row_that_it_finished(tmp_path):
    rows = tmp_path / "rows.jsonl"
    small = ("--batch_size=2", "--width=2", "--image_size=16", "--repeats=2", "--seconds=0")
    command = [sys.executable, "benchmarks/formulations.py", *small, f"--json={rows}"]
    running = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    while not (rows.exists() and rows.read_text().endswith("\n")) and running.poll() is None:
        time.sleep(0.05)
    running.kill()
    assert running.wait() == -signal.SIGKILL, "it had finished"
    assert {row["form"] for row in json.loads(rows.read_text().splitlines()[0])["rows"]} >= {"plain", "patches"}


@pytest.mark.nightly
def test_runs_train_together_as_they_do_alone():
    fields = {"width": 4, "image_size": [16, 16], "dtype": "float64"}
    config = config_of(Run("seeds", "digits", "stable", fields, 25, 0), {})
    images = data.load(config)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        alone = [stability.Together(config, [seed], images, on_device=False) for seed in (0, 1)]
        together = stability.Together(config, [0, 1], images, on_device=True)
        losses = [of_one.train(0, 25)["d_loss"][0] for of_one in alone]
        np.testing.assert_allclose(together.train(0, 25)["d_loss"], losses, rtol=1e-6)
        assert losses[0] != losses[1]
        for found, expected in zip(together.each(), (of_one.each()[0] for of_one in alone), strict=True):
            assert found.step == expected.step == 25
            pairs = found.generator.params, expected.generator.params
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-8), *pairs)


@pytest.mark.nightly
def test_the_stability_script_in_small_goes_on_where_it_was_cut_off(tmp_path):
    rng = np.random.default_rng(0)
    for part, name in itertools.product(("train", "test"), ("cats", "dogs")):
        folder = tmp_path / "cifar10" / part / name
        folder.mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 128, (16, 16, 3), np.uint8) + (128 if name == "dogs" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    results, minutes, lines = tmp_path / "stability.jsonl", "0", []
    while len(lines) < 4:
        files = dict(DATA=str(tmp_path), RESULTS=str(results), PYTHON=sys.executable, XDG_CACHE_HOME=str(tmp_path))
        done = benchmark("benchmarks/stability.sh", "--dry", "repro", MINUTES=minutes, **files)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
        assert minutes == "0" or len(lines) == 4, done.stdout
        minutes = "5"
    assert [(line["method"], line["seed"], line["curve"]["step"][-1]) for line in lines] == [
        ("plain", 0, 10), ("stable", 0, 10), ("plain", 0, 10), ("stable", 0, 10),
    ]  # fmt: skip
    assert all(len(line["curve"]["step"]) == 10 for line in lines)
    assert not list(results.with_suffix(".unfinished").iterdir())
    done = benchmark("benchmarks/stability.sh", "--dry", "repro", **files)
    assert done.stdout.splitlines() == ["all done"]


def test_the_gpu_script_refuses_a_row_that_it_does_not_know():
    done = benchmark("benchmarks/gpu.sh", "--dry", "mnist-64")
    assert (done.returncode, done.stdout) == (2, "")
    assert "found 'mnist-64'" in done.stderr


@pytest.mark.parametrize("script", ["gpu.sh", "reproduce.sh", "stability.sh"])
def test_shellcheck_finds_nothing(script):
    done = benchmark(Path(sys.executable).parent / "shellcheck", f"benchmarks/{script}")
    assert done.returncode == 0, done.stdout


def reproduce(out, *experiments, fails="nothing"):
    """Runs benchmarks/reproduce.sh with a stand-in for Python that prints its arguments, and fails at one launcher.

    Returns the finished process, and the arguments of each call.
    """
    stand_in = out / "python"
    stand_in.write_text(f'#!/bin/sh\necho "called $*"\ncase "$1" in *{fails}*) exit 1;; esac\n')
    stand_in.chmod(0o755)
    done = benchmark("benchmarks/reproduce.sh", *experiments, OUT=str(out), PYTHON=str(stand_in), BOXES="")
    return done, [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("called ")]


def test_the_experiments_go_on_where_they_failed(tmp_path):
    done, calls = reproduce(tmp_path, "svhn", fails="probe")
    assert done.returncode == 1
    assert [args[0] for args in calls] == ["launch/train.py", "launch/sample.py", "launch/probe.py"]
    done, calls = reproduce(tmp_path, "svhn")
    assert done.returncode == 0, done.stderr
    assert [args[0] for args in calls] == ["launch/probe.py", "launch/supervised.py"]
    assert reproduce(tmp_path, "svhn")[1] == []
    times = [json.loads(line) for line in (tmp_path / "times.jsonl").read_text().splitlines()]
    assert [set(line) for line in times] == [{"step", "seconds", "card"}] * 4


def test_every_experiment_of_the_paper_is_reproduced(tmp_path):
    done, calls = reproduce(tmp_path)
    assert done.returncode == 0, done.stderr
    trainings = [args for args in calls if args[0] == "launch/train.py"]
    trained = {flag for args in trainings for flag in args if flag.startswith("--config=")}
    names = ("mnist_conditional", "svhn", "imagenet32", "celeba", "lsun_bedroom")
    assert trained == {f"--config=configs/{name}.py:paper" for name in names} | {
        "--config=configs/mnist_conditional.py:dense"
    }
    help_texts = {script: call(script, "--help").stdout for script in {Path(args[0]).stem for args in calls}}
    for script, *arguments in calls:
        if script == "launch/figure.py":
            assert f"\n{arguments[0]} " in help_texts["figure"]
        for flag in (argument.split("=")[0] for argument in arguments if argument.startswith("--")):
            if flag.startswith("--config."):
                default_of(flag.removeprefix("--config."))
            else:
                help_text = help_texts[Path(script).stem]
                assert re.search(rf"^ +--(\[no])?{flag[2:]}:", help_text, re.MULTILINE), (script, flag)
    assert reproduce(tmp_path, "svhm")[0].returncode == 2


@pytest.mark.parametrize("kernel_size", [4, 5])
def test_the_peer_is_the_same_network(tiny, kernel_size):
    torch = pytest.importorskip("torch")
    import torch_dcgan

    config = tiny(kernel_size=kernel_size, channels=3, image_size=(16, 32), first_bias=kernel_size == 4)
    ours = state.abstract(config)
    for theirs, params in (
        (torch_dcgan.generator(config), ours.generator.params),
        (torch_dcgan.discriminator(config), ours.discriminator.params),
    ):
        assert sum(p.numel() for p in theirs.parameters()) == sum(leaf.size for leaf in jax.tree.leaves(params))
    images = torch_dcgan.generator(config)(torch.zeros(2, config.latent_dim))
    assert images.shape == (2, 3, 16, 32)
    assert torch_dcgan.discriminator(config)(images).shape == (2, 1)


@pytest.mark.parametrize(("limit", "found"), [(700, 672), (64, 64), (5, 5), (1, 1), (0, 0)])
def test_the_largest_batch_is_found_by_doubling_and_halves(limit, found):
    tried = []

    def fits(batch):
        tried.append(batch)
        return batch <= limit

    assert memory.largest(fits, 64) == found
    assert len(tried) == len(set(tried)) < 12


def test_a_batch_fits_if_its_step_takes_no_more_than_the_limit(tiny):
    config = tiny(image_size=(8, 8), features=(2,))
    jax.config.update("jax_enable_compilation_cache", False)  # a program that is read from it tells no memory
    try:
        trial = memory.one_trial(config, 1e-6)
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert not trial["fits"]
    of_state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.abstract(config)))
    assert of_state < 1e9 * trial["needed GB"] < 100 * of_state
