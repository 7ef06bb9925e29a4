"""The paper's MNIST table: test error of the nearest neighbour among samples, or among the training images.

    python launch/nearest_neighbour.py --workdir=DIR --samples=50000 [--real]

DIR holds a run of a conditional network, such as configs/mnist_conditional.py. A held-out image is classified as the
nearest of that many samples, exactly, in pixels. Samples are streamed, so that any number will do; several numbers
(--samples=1000,50000) share one stream. --real adds as many of the first training images, and all of them. Results are
printed, and added to DIR/evaluation.jsonl, one by one.
"""

import time
from collections.abc import Collection, Iterator

import cli
import image_sets
import numpy as np
from absl import flags

from dcgan_jax.errors import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run, such as runs/mnist_conditional")
SAMPLES = flags.DEFINE_list("samples", ["50000"], "how many samples; several numbers are points of one curve")
REAL = flags.DEFINE_bool("real", False, "the reference row too: training images in place of samples")
STEP = flags.DEFINE_integer("step", None, "checkpoint; the newest by default")
SEED = flags.DEFINE_integer("seed", 0, "which samples", 0, cli.LARGEST_SEED)

BLOCK = 8192  # samples made at a time


def main() -> None:
    from dcgan_jax import checkpoint, heap
    from dcgan_jax.data import check_classes
    from dcgan_jax.evaluation import report
    from dcgan_jax.evaluation.nearest_neighbour import NearestNeighbour
    from dcgan_jax.inference import load

    heap.keep()
    workdir = cli.run_to_add_to(WORKDIR.value, "runs/mnist_conditional")
    counts = _counts()
    gan = load(workdir, STEP.value)
    if not gan.config.num_classes:
        raise UserError(
            f"--workdir: the network in {str(workdir)!r} has no classes, expected a conditional one, whose samples "
            "have labels (configs/mnist_conditional.py)"
        )
    config = gan.config
    train, test = image_sets.open_training(config) if REAL.value else None, image_sets.open_test(config)
    for flag, images in (("--data", train), ("--test", test)):
        if images is not None and images.labels is None:
            raise UserError(f"{flag}: found images without labels, expected labelled ones to compare with")
    classes = len(np.unique(test.labels))
    if test.labels.max() >= config.num_classes:
        raise UserError(f"--test: found {classes} labels up to {test.labels.max()}, expected {config.num_classes}")

    learned = checkpoint.read(workdir, gan.step)[1]["data"]
    check_classes("--test", learned, test.card)
    if train is not None:
        check_classes("--data", learned, train.card)
    about = {
        "seed": SEED.value,
        "features": "pixels",
        "real": image_sets.hashes(test=test),
        "versions": checkpoint.versions(),
    }

    def measure(stream: Iterator[tuple[np.ndarray, np.ndarray]], wanted: set[int], source: str, line: dict) -> None:
        began, classifier = time.perf_counter(), NearestNeighbour(np.asarray(test.images))
        for images, labels in stream:
            classifier.show(images, labels)
            if classifier.shown in wanted:
                wrong = float((classifier.label != test.labels).mean())
                found = {"metric": f"nearest_neighbour_error{classifier.shown}_test", "value": wrong}
                seconds = {"seconds": round(time.perf_counter() - began, 1)}
                report.append(workdir / report.NAME, [found | about | line | seconds])
                print(
                    f"{source}: {classifier.shown} images, {len(test.labels)} held out, error {wrong:.2%}", flush=True
                )

    if train is not None:
        wanted = {min(count, len(train.images)) for count in [*counts, len(train.images)]}
        stream = ((train.images[part], train.labels[part]) for part in _parts(wanted))
        both = image_sets.hashes(train=train, test=test)
        line = {"step": 0, "features": "pixels of training images", "real": both}
        measure(stream, wanted, "training images", line)
    sampled = ((gan.sample_at(part, SEED.value), part % config.num_classes) for part in _parts(counts))
    measure(sampled, set(counts), f"samples of step {gan.step}", {"step": gan.step})


def _counts() -> list[int]:
    if not all(map(cli.is_count, SAMPLES.value)) or not SAMPLES.value:
        raise UserError(f"--samples: found {','.join(SAMPLES.value)!r}, expected whole numbers such as 50000")
    return sorted(map(int, SAMPLES.value))


def _parts(counts: Collection[int]) -> Iterator[np.ndarray]:
    """Indices 0, 1, ... in blocks, each of the counts at the end of one."""
    start = 0
    for count in sorted(counts):
        for begin in range(start, count, BLOCK):
            yield np.arange(begin, min(begin + BLOCK, count))
        start = count


if __name__ == "__main__":
    cli.run(main, __doc__)
