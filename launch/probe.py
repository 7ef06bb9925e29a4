"""How good features are: python launch/probe.py --workdir=DIR --data=cifar10 [--labels_per_class=all,400]

A linear L2-SVM on the activations of all of the discriminator's convolutions, max-pooled to 4x4 (section 5.1 of the
paper), trained on labelled images and tested on held-out ones; beside it the same on a network of the same form as it
was before training, and on bare pixels. Of `all` labels, one classifier; of a number of labels a class, the mean over
--draws. Results are printed, and added to DIR/evaluation.jsonl.
"""

import cli
import image_sets
from absl import flags

from dcgan_jax.errors import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run, such as runs/imagenet32")
STEP = flags.DEFINE_integer("step", None, "checkpoint; the newest by default")
LABELS = flags.DEFINE_list("labels_per_class", ["all", "400"], "numbers of labelled images a class, or 'all'")
DRAWS = flags.DEFINE_integer("draws", 10, "how often labels are drawn, where they are not all", lower_bound=1)
FEATURES = flags.DEFINE_list("features", ["discriminator", "random", "pixels"], "rows of the table")
STATISTICS = flags.DEFINE_enum(
    "statistics", "images", ["images", "running"], "batch norm's: of the training images, or those of GAN training"
)
SEED = flags.DEFINE_integer("seed", 0, "of the draws, and of the random network", 0, cli.LARGEST_SEED)


def main() -> None:
    from dcgan_jax import checkpoint, compilation, heap
    from dcgan_jax.evaluation import report
    from dcgan_jax.evaluation.probe import Probe, Split
    from dcgan_jax.inference import load

    heap.keep()
    compilation.remember()
    workdir = cli.run_to_add_to(WORKDIR.value, "runs/imagenet32")
    _check_lists()
    gan = load(workdir, STEP.value)
    if gan.config.num_classes:
        raise UserError(
            f"--workdir: the network in {str(workdir)!r} takes labels, which would tell the probe what it is asked; "
            "expected one without classes"
        )
    train, test = image_sets.open_training(gan.config), image_sets.open_test(gan.config)
    split = Split(train, test, SEED.value)
    for labels in set(LABELS.value) - {"all"}:
        split.check(int(labels))
    about = {
        "step": gan.step,
        "seed": SEED.value,
        "real": image_sets.hashes(train=train, test=test),
        "versions": checkpoint.versions(),
    }
    for name in FEATURES.value:
        probe = None  # its features are gigabytes, which the next ones need
        probe = Probe(_extractor(name, gan, train.images), train, test, split)
        for labels in LABELS.value:
            result = probe.whole() if labels == "all" else probe.few(int(labels), DRAWS.value)
            size = probe.features.shape[1]
            metric = f"probe_accuracy_{labels}_test"
            line = {"metric": metric, "value": result.accuracy, "features": name, "size": size}
            line |= {"statistics": _statistics(name), "c": result.c}
            line |= {"draws": result.draws, "deviation": result.deviation, "interval": result.interval}
            report.append(workdir / report.NAME, [about | line])
            spread = f" +- {result.deviation:.2%} (mean of {result.draws} draws +- {result.interval:.2%})"
            print(
                f"{name}, {size} features, {labels} labels{'' if labels == 'all' else ' a class'}: accuracy "
                f"{result.accuracy:.2%}{spread if result.draws > 1 else ''}, C {result.c:g}",
                flush=True,
            )


def _extractor(name: str, gan, images):
    """uint8 [n, H, W, C] to features."""
    import numpy as np

    from dcgan_jax.evaluation.probe import pixels
    from dcgan_jax.inference import untrained

    if name == "pixels":
        return pixels
    network = untrained(gan.config, SEED.value) if name == "random" else gan
    if _statistics(name) == "images":
        network = network.with_statistics_of(images)
    return lambda block: network.features((block / 127.5 - 1).astype(np.float32))


def _statistics(name: str) -> str:
    """Batch norm's in a row of the table: an untrained network has none of its own, pixels no batch norm."""
    return {"random": "images", "pixels": "none"}.get(name, STATISTICS.value)


def _check_lists() -> None:
    rows = ("discriminator", "random", "pixels")
    if not FEATURES.value or set(FEATURES.value) - set(rows):
        raise UserError(f"--features: found {','.join(FEATURES.value)!r}, expected some of {', '.join(rows)}")
    if not LABELS.value or not all(labels == "all" or cli.is_count(labels) for labels in LABELS.value):
        raise UserError(f"--labels_per_class: found {','.join(LABELS.value)!r}, expected numbers, or 'all'")


if __name__ == "__main__":
    cli.run(main, __doc__)
