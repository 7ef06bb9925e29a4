"""What it brings to start from the networks of another set: digits from Fashion-MNIST's, and from untrained ones.

    python benchmarks/fine_tuning.py [--out=FOLDER] [--results=FILE]      prints a table at the end

First one run on Fashion-MNIST at the digits' size, 32x32 and width 16; then, for each seed, one run on the digits that
starts from its networks (`config.init`) and one from untrained networks, with the same settings. Each is measured every
100 steps by a classifier's FID. Runs with a line in --results are not repeated, and a run that was cut off resumes from
its last checkpoint, so the same command goes on where it stopped.
"""

import json
import statistics
from pathlib import Path
from typing import Any

import jax
import measure
from ml_collections import ConfigDict
from stability import Judge, rounded, settings

import dcgan_jax
from dcgan_jax import config as configuration
from dcgan_jax.run import checkpoint
from dcgan_jax.runtime import compile_cache, files
from dcgan_jax.runtime.versions import versions
from dcgan_jax.train import train

RESULTS = measure.ROOT / "benchmarks" / "fine_tuning.jsonl"
STARTS = ("untrained", "fashion_mnist")


def donor_config(options: Any) -> ConfigDict:
    """Fashion-MNIST for networks of the digits' shape."""
    config = configuration.for_data_set("fashion_mnist")
    config.data.path, config.num_steps = options.fashion_mnist, options.donor_steps
    return _small(config, options)


def digits_config(options: Any, start: str, seed: int) -> ConfigDict:
    """Digits from one of the starts."""
    config = configuration.for_data_set("digits")
    config.num_steps, config.seed = options.steps, seed
    config.checkpoint_every = options.steps // 5
    config.keep = 6
    config.init = "" if start == "untrained" else str(options.out / start)
    return _small(config, options)


def _small(config: ConfigDict, options: Any) -> ConfigDict:
    config.image_size, config.width = (options.image_size,) * 2, options.width
    config.data.prepared = str(options.out / "prepared")
    config.quality = False  # the judge measures
    return config


def measured(options: Any, judge: Judge, start: str, seed: int) -> dict[str, Any]:
    """Trains a run, and measures its checkpoints: its line."""
    config = digits_config(options, start, seed)
    folder = options.out / f"digits_{start}_{seed}"
    train(config, folder)
    curve = []
    for step in sorted(checkpoint.steps(folder)):
        values, features = judge(dcgan_jax.load(folder, step), seed)
        recall = judge.recall(features) if features else {}
        curve.append({"step": step} | values | recall)
        print(f"digits from {start}, seed {seed}: step {step}, FID {values['fid']:.2f}", flush=True)
    about = {"device": jax.devices()[0].device_kind, "versions": versions()}
    return {"start": start, "seed": seed, "curve": rounded(curve), "config": described(config)} | about


def described(config: ConfigDict) -> dict[str, Any]:
    """The settings that a line must have to count as this run; not the place of the networks that it starts from."""
    return {name: value for name, value in settings(config).items() if name != "init"}


def done_in(results: Path) -> list[dict[str, Any]]:
    """The lines of finished runs."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def table(lines: list[dict[str, Any]]) -> str:
    """The FID of each start by step: the mean over the seeds, and the range."""
    rows = []
    for start in STARTS:
        curves = [{point["step"]: point["fid"] for point in line["curve"]} for line in lines if line["start"] == start]
        row: dict[str, Any] = {"start": start, "runs": len(curves)}
        for step in curves[0] if curves else ():
            fids = [curve[step] for curve in curves]
            row[f"FID at {step}"] = f"{statistics.mean(fids):.2f} ({min(fids):.2f} to {max(fids):.2f})"
        rows.append(row)
    return measure.table(rows)


def main() -> None:
    parser = measure.plain_parser(__doc__, image_size=32, width=16, donor_steps=2000, steps=500, seeds=3)
    parser.add_argument("--out", type=Path, default=Path("runs/fine_tuning"), help="folder of the runs")
    parser.add_argument("--fashion_mnist", default="/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    compile_cache.enable()
    train(donor_config(options), options.out / "fashion_mnist")
    judge = None
    for seed in range(options.seeds):
        for start in STARTS:
            expected = described(configuration.validate(digits_config(options, start, seed)))
            found = [(line["start"], line["seed"], line["config"]) for line in done_in(options.results)]
            if (start, seed, expected) not in found:
                judge = judge or Judge(configuration.validate(digits_config(options, "untrained", 0)))
                files.append_lines(options.results, [measured(options, judge, start, seed)])
    print(table(done_in(options.results)))


if __name__ == "__main__":
    main()
