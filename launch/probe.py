"""Measures the quality of features: python launch/probe.py --workdir=DIR --data=cifar10 [--labels_per_class=all,400]

    python launch/probe.py --workdir=runs/imagenet32 --data=cifar10
    python launch/probe.py --workdir=runs/imagenet32 --data=cifar10 --labels_per_class=400 --features=discriminator

A linear L2-SVM is trained on labelled images and tested on held-out ones. Its input is the activations of all the
discriminator's convolutions, max-pooled to 4x4 (section 5.1 of the paper). For comparison the same is done with an
untrained network of the same architecture and with raw pixels. With all labels it trains one classifier; with a number
of labels per class it reports the mean over --draws. Results are printed and appended to DIR/evaluation.jsonl.
"""

from typing import TYPE_CHECKING

import cli
import image_sets
import numpy as np
from absl import flags

from dcgan_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from dcgan_jax.evaluation.tables.probe import FeatureFunction
    from dcgan_jax.inference import TrainedGAN

WORKDIR = flags.DEFINE_string("workdir", None, "run directory, such as runs/imagenet32")
STEP = flags.DEFINE(cli.StepParser(), "step", None, "step of the checkpoint, or 'best'; the newest by default")
LABELS = flags.DEFINE_list("labels_per_class", ["all", "400"], "numbers of labelled images per class, or 'all'")
DRAWS = flags.DEFINE_integer("draws", 10, "random draws of labelled images, if not all are used", lower_bound=1)
FEATURES = flags.DEFINE_list("features", ["discriminator", "random", "pixels"], "rows of the table")
STATISTICS = flags.DEFINE_enum(
    "statistics",
    "images",
    ["images", "running"],
    "batch norm statistics: over the training images, or the running ones of GAN training",
)
SEED = flags.DEFINE_integer("seed", 0, "seed of the draws and of the untrained network", 0, cli.LARGEST_SEED)


def main() -> None:
    from dcgan_jax.evaluation import report
    from dcgan_jax.evaluation.tables.probe import Probe, Split
    from dcgan_jax.inference import load
    from dcgan_jax.runtime import compile_cache, malloc
    from dcgan_jax.runtime.files import append_lines
    from dcgan_jax.runtime.versions import versions

    malloc.keep_freed_memory()
    compile_cache.enable()
    workdir = cli.run_directory(WORKDIR.value, "runs/imagenet32")
    _check_lists()
    gan = load(workdir, STEP.value)
    if gan.config.num_classes:
        raise UserError(
            f"--workdir: the network in {str(workdir)!r} takes labels, which would give the probe its answers; "
            "expected one without classes"
        )
    train, test = image_sets.open_training(gan.config), image_sets.open_test(gan.config)
    split = Split(train, test, SEED.value)
    for labels in set(LABELS.value) - {"all"}:
        split.check_per_class(int(labels))
    real = image_sets.hashes(train=train, test=test)
    about = {"step": gan.step, "seed": SEED.value, "real": real, "versions": versions()}
    for name in FEATURES.value:
        probe = None  # frees gigabytes of features before the next ones are computed
        probe = Probe(_extractor(name, gan, train.images), train, test, split)
        for labels in LABELS.value:
            result = probe.all_labels() if labels == "all" else probe.few_labels(int(labels), DRAWS.value)
            size = probe.features.shape[1]
            metric = f"probe_accuracy_{labels}_test"
            line = {"metric": metric, "value": result.accuracy, "features": name, "size": size}
            line |= {"statistics": _statistics(name), "c": result.c}
            line |= {"draws": result.draws, "deviation": result.deviation, "interval": result.interval}
            append_lines(workdir / report.NAME, [about | line])
            spread = f" +- {result.deviation:.2%} (mean of {result.draws} draws +- {result.interval:.2%})"
            print(
                f"{name}, {size} features, {labels} labels{'' if labels == 'all' else ' a class'}: accuracy "
                f"{result.accuracy:.2%}{spread if result.draws > 1 else ''}, C {result.c:g}",
                flush=True,
            )
    print(workdir / report.NAME)


def _extractor(name: str, gan: "TrainedGAN", images: np.ndarray) -> "FeatureFunction":
    from dcgan_jax.evaluation.tables.probe import pixel_features
    from dcgan_jax.inference import untrained

    if name == "pixels":
        return pixel_features
    network = untrained(gan.config, SEED.value) if name == "random" else gan
    if _statistics(name) == "images":
        network = network.with_statistics_of(images)
    return network.features


def _statistics(name: str) -> str:
    """Batch norm statistics of a row: an untrained network has no running ones, pixels need none."""
    return {"random": "images", "pixels": "none"}.get(name, STATISTICS.value)


def _check_lists() -> None:
    rows = ("discriminator", "random", "pixels")
    if not FEATURES.value or set(FEATURES.value) - set(rows):
        raise UserError(f"--features: found {','.join(FEATURES.value)!r}, expected some of {', '.join(rows)}")
    if not LABELS.value or not all(labels == "all" or cli.is_count(labels) for labels in LABELS.value):
        raise UserError(f"--labels_per_class: found {','.join(LABELS.value)!r}, expected numbers, or 'all'")


if __name__ == "__main__":
    cli.run(main, __doc__)
