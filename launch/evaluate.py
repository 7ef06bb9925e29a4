"""Measures quality: python launch/evaluate.py --workdir=DIR --metrics=fid50k_train,prdc10k_train [--step=N|best|all]

    python launch/evaluate.py --workdir=runs/celeba --metrics=fid50k_train,kid50k_train --step=all
    python launch/evaluate.py --images=GENERATED --images=REAL --metrics=fid50k,prdc10k

Metrics of a run, with any number of samples: fid50k_train, fid10k_test (against held-out images), kid50k_train, is50k,
prdc10k_train (precision, recall, density, coverage), memorisation10k. Results are printed, appended to
DIR/evaluation.jsonl, and drawn in DIR/evaluation/. The real images are those of the run's configuration.

The second form compares any two sets of images: folders, zips or tars of files, .npz or .npy, prepared sets.
"""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import cli
import image_sets
import numpy as np
import processes
from absl import flags

from dcgan_jax.runtime.errors import UserError, rename_fields

if TYPE_CHECKING:
    from dcgan_jax.evaluation.evaluate import Evaluator
    from dcgan_jax.evaluation.features import Reader
    from dcgan_jax.inference import TrainedGAN

log = logging.getLogger("dcgan_jax")

WORKDIR = flags.DEFINE_string("workdir", None, "run directory, such as runs/digits")
METRICS = flags.DEFINE_string("metrics", None, "metrics, such as fid50k_train,prdc10k_train")
STEP = flags.DEFINE_string("step", None, "a checkpoint's step, 'best', or 'all'; the newest by default")
FEATURES = flags.DEFINE_string("features", "inception", "'inception', 'classifier', or your own MODULE:FUNCTION")
WEIGHTS = flags.DEFINE_string(
    "inception_weights", "", "file of Inception's weights; by default looked for, or downloaded"
)
IMAGES = flags.DEFINE_multi_string("images", [], "given twice: generated images, then real images")
SEED = flags.DEFINE_integer("seed", 0, "seed of the samples", 0, cli.LARGEST_SEED)

# What errors name in place of a configuration's fields.
NAMES = image_sets.NAMES | {
    "config.eval_metrics": "--metrics",
    "config.eval_features": "--features",
    "config.inception_weights": "--inception_weights",
}


def main() -> None:
    from dcgan_jax.runtime import compile_cache, malloc

    malloc.keep_freed_memory()
    compile_cache.enable()
    processes.start()
    if not METRICS.value:
        raise UserError("--metrics: missing, expected names such as fid50k_train,prdc10k_train; see --help")
    if bool(WORKDIR.value) == bool(IMAGES.value) or len(IMAGES.value) not in (0, 2):
        raise UserError("--workdir: expected either this, a run directory, or --images twice: generated, then real")
    workdir = None if IMAGES.value else cli.run_directory(WORKDIR.value, "runs/digits")
    with rename_fields(NAMES):
        _check_names()
        measure(workdir) if workdir else compare()


def _check_names() -> None:
    """Raises UserError for mistakes that need no images to be found."""
    from dcgan_jax.evaluation import evaluate, extractors

    evaluate.check_names(METRICS.value, FEATURES.value, splits=not IMAGES.value)
    if IMAGES.value:
        if WEIGHTS.value:  # given images are looked at before a download
            extractors.find_weights(FEATURES.value, WEIGHTS.value)
        for flag in ("step", "seed", "data", "test"):
            if flags.FLAGS[flag].present:
                raise UserError(f"--{flag}: found {flags.FLAGS[flag].value}, expected none with --images")


def measure(workdir: Path) -> None:
    """Measures checkpoints of a run."""
    import jax

    from dcgan_jax.evaluation import evaluate, extractors, report
    from dcgan_jax.inference import load
    from dcgan_jax.run import monitor
    from dcgan_jax.runtime import files

    gan = load(workdir)
    extractors.find_weights(FEATURES.value, WEIGHTS.value, gan.config.channels)
    steps = _steps(workdir, gan)
    config = image_sets.moved(gan.config)
    evaluator = evaluate.from_config(config, METRICS.value, FEATURES.value, weights=WEIGHTS.value, seed=SEED.value)
    print_accuracy(evaluator)
    measured: set[str] = set()
    for step in steps:
        loaded = _load(workdir, step, gan)
        if loaded is None:
            continue

        def read(indices: np.ndarray, gan: "TrainedGAN" = loaded) -> np.ndarray:
            return gan.sample_at(indices, SEED.value)

        lines = evaluator(read, step=step)
        measured |= {line["metric"] for line in lines}
        if jax.process_index() == 0:
            files.append_lines(workdir / report.NAME, lines)
            monitor.add_scalars(workdir / "tensorboard", step, {line["metric"]: line["value"] for line in lines})
            print_results(lines)
            for line in lines:
                if "closest" in line:
                    _show_closest(line, read, evaluator, workdir / "evaluation")
    if jax.process_index() == 0:
        for file in report.curves(report.read(workdir / report.NAME), workdir / "evaluation", measured):
            print(file)
        print(workdir / report.NAME)


def compare() -> None:
    """Measures one set of images against another."""
    from dcgan_jax.evaluation import evaluate, image_files

    fake, real = (image_files.open_images(path, image_sets.PREPARED.value or "data/prepared") for path in IMAGES.value)
    evaluator = evaluate.from_image_sets(fake, real, METRICS.value, FEATURES.value, weights=WEIGHTS.value)
    print_accuracy(evaluator)
    print_results(evaluator(lambda indices: fake.images[indices], images=IMAGES.value))


def print_accuracy(evaluator: "Evaluator") -> None:
    """Prints how well the classifier whose features are used knows the held-out images, if it is one."""
    if "accuracy" in evaluator.extractor.about:
        print(f"features: {evaluator.extractor.name}, accuracy {evaluator.extractor.about['accuracy']:.1%}")


def print_results(lines: list[dict]) -> None:
    """Prints results, one line each."""
    for line in lines:
        error = f" +- {line['standard_error']:.3g}" if line.get("standard_error") else ""
        step = f"step {line['step']}  " if "step" in line else ""
        by = f"{line['features']}; {line['images_per_sec']:.0f} images/s"
        print(f"{step}{line['metric']} {line['value']:.6g}{error}  ({by})")


def _steps(workdir: Path, newest: "TrainedGAN") -> list[int]:
    from dcgan_jax.run import checkpoint, places
    from dcgan_jax.runtime.multihost import gather

    if STEP.value is None:
        return [newest.step]
    if STEP.value == "all":
        # Alike on all processes; the newest is loaded, even if a run that is training has removed it meanwhile.
        return json.loads(gather(json.dumps(sorted({*checkpoint.steps(workdir), newest.step})))[0])
    if STEP.value == "best":
        return [int(places.read(workdir, "best")[0]["step"])]
    if not STEP.value.isdecimal():
        raise UserError(f"--step: found {STEP.value!r}, expected a checkpoint's step, 'best' or 'all'")
    return [int(STEP.value)]


def _load(workdir: Path, step: int, newest: "TrainedGAN") -> "TrainedGAN | None":
    """The network of a step. Of all steps, None if a run that is training has removed it meanwhile."""
    from dcgan_jax.inference import load
    from dcgan_jax.run import checkpoint
    from dcgan_jax.runtime.multihost import gather

    gan = None
    try:
        gan = newest if step == newest.step else load(workdir, step)
    except UserError:
        if STEP.value != "all" or step in checkpoint.steps(workdir):
            raise
    if all(gather("found" if gan else "")):  # or no process measures it
        return gan
    log.warning("step %d: left out, as its checkpoint was removed meanwhile", step)
    return None


def _show_closest(line: dict, read: "Reader", evaluator: "Evaluator", folder: Path) -> None:
    from dcgan_jax.evaluation import report

    samples, images, _ = (np.array(column) for column in zip(*line["closest"], strict=True))
    file = folder / f"{line['metric']}_step_{line['step']:08d}.png"
    origin = f"{folder.parent.resolve().name}, step {line['step']}, seed {line['seed']}"
    report.save_pairs(read(samples), evaluator.references["train"].image_set.images[images], origin, file)
    print(file)


if __name__ == "__main__":
    cli.run(main, __doc__)
