"""Whether the measure of quality follows the classifier's FID, and what it costs.

    python benchmarks/quality.py --workdir=runs/a --workdir=runs/b ... [--data.path=FOLDER]

Every checkpoint of the runs is measured twice: by `evaluation.quality`, and by the FID of 10,000 samples (--metric) on
the features of a classifier of the images, which needs their labels. Printed is Spearman's correlation of the two for
each run, for all checkpoints together, and for the healthy ones: those whose FID is under twice the lowest. The images
are those of the first run; other flags set fields of its configuration, such as where its images lie now.

'kept' is how many times the lowest FID of a group is that of the checkpoint with the best quality.

The cost is that of one measurement, sampling included, beside the training between two checkpoints, and of learning the
features, which is done once a set. --checkpoints=N measures the first N of each run, 0 the cost alone. Each
checkpoint's two values are in --json.
"""

import os
import statistics
import tempfile
import time

import measure
import numpy as np
import train_step
from ml_collections import ConfigDict
from scipy.stats import spearmanr

import dcgan_jax
from dcgan_jax import config as configuration
from dcgan_jax import data
from dcgan_jax.evaluation import evaluate
from dcgan_jax.evaluation.quality import Quality
from dcgan_jax.inference import untrained
from dcgan_jax.run import checkpoint

HEALTHY = 2  # times the lowest FID of all


def main() -> None:
    parser = measure.plain_parser(__doc__, metric="fid10k_test", checkpoints=10**6, repeats=5, seconds=2.0)
    parser.add_argument("--workdir", action="append", required=True)
    options, fields = parser.parse_known_args()
    config = dcgan_jax.load(options.workdir[0]).config.copy_and_resolve_references()
    measure.set_fields(config, fields)
    config = configuration.validate(config)

    points = measured(options, config) if options.checkpoints else []
    rows = correlations(points) if points else []
    if rows:
        print(measure.table(rows))
    measure.report(options, [cost(config, options.repeats, options.seconds)], correlations=rows, points=points)


def measured(options, config: ConfigDict) -> list[dict]:
    """For each checkpoint its run, step, FID and quality."""
    evaluator = evaluate.from_config(config, options.metric, "classifier")
    quality = Quality(data.load(config))
    points = []
    for workdir in options.workdir:
        for step in checkpoint.steps(workdir)[: options.checkpoints]:
            gan = dcgan_jax.load(workdir, step)
            (line,) = evaluator(gan.sample_at)
            points.append({"run": workdir, "step": step, "fid": line["value"], "quality": quality(gan.sample_at)})
            print("{run} step {step}  FID {fid:.4g}  quality {quality:.4g}".format(**points[-1]), flush=True)
    return points


def correlations(points: list[dict]) -> list[measure.Row]:
    """Spearman's correlation of FID and quality for each run, and for all checkpoints and the healthy ones together."""
    lowest = min(point["fid"] for point in points)
    groups = {
        run: [point for point in points if point["run"] == run] for run in dict.fromkeys(p["run"] for p in points)
    }
    groups["all"] = points
    groups["healthy"] = [point for point in points if point["fid"] < HEALTHY * lowest]
    rows = []
    for name, group in groups.items():
        fid, quality = (np.array([point[key] for point in group]) for key in ("fid", "quality"))
        correlation = spearmanr(fid, quality).statistic if len(group) > 2 else None
        kept = fid[quality.argmin()] / fid.min()
        row = {"run": name, "checkpoints": len(group), "lowest_fid": fid.min(), "spearman": correlation, "kept": kept}
        rows.append(row)
    return rows


def cost(config: ConfigDict, repeats: int, seconds: float) -> measure.Row:
    """Seconds of a training step, of a measurement and of learning, and shares of the training between checkpoints."""
    image_set, gan = data.load(config), untrained(config, 0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        began = time.perf_counter()
        quality = Quality(image_set)
        learning = time.perf_counter() - began

    def measuring(calls: int) -> None:
        for _ in range(calls):
            quality(gan.sample_at)

    training, _ = train_step.ours(config, 1)
    times = measure.in_turns({"step": training, "quality": measuring}, repeats, seconds)
    ratio = measure.ratio(times["quality"], times["step"])
    return {
        "image_size": "x".join(map(str, config.image_size)),
        "width": config.width,
        "step_ms": 1e3 * statistics.median(times["step"]),
        "quality_s": statistics.median(times["quality"]),
        "learning_s": learning,
        "quality_share": ratio / config.checkpoint_every,
        "learning_share": learning / (statistics.median(times["step"]) * config.num_steps),
    }


if __name__ == "__main__":
    main()
