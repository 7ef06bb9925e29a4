"""The paper's MNIST table: test error of a nearest-neighbour classifier that learns from samples.

    python launch/nearest_neighbour.py --workdir=runs/mnist_conditional
    python launch/nearest_neighbour.py --workdir=runs/mnist_conditional --samples=1000,50000 --real

--workdir is a run of a conditional network, such as configs/mnist_conditional.py. Each held-out image gets the label of
the sample nearest in pixels (exact search). Samples are made in blocks, so any number fits into memory. Several numbers
(--samples=1000,50000) are measured on one sequence of samples. --real also measures with the same numbers of training
images, and with all of them. Results are printed and appended to its evaluation.jsonl one by one.
"""

import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
import image_sets
import numpy as np
from absl import flags

from dcgan_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from dcgan_jax.data import ImageSet

WORKDIR = flags.DEFINE_string("workdir", None, "run directory, such as runs/mnist_conditional")
SAMPLES = flags.DEFINE_list("samples", ["50000"], "how many samples; several numbers are measured on one sequence")
REAL = flags.DEFINE_bool("real", False, "also measure with training images in place of samples")
STEP = flags.DEFINE(cli.StepParser(), "step", None, "step of the checkpoint, or 'best'; the newest by default")
SEED = flags.DEFINE_integer("seed", 0, "seed of the samples", 0, cli.LARGEST_SEED)

BLOCK = 8192  # samples made at a time


def main() -> None:
    from dcgan_jax.evaluation import report
    from dcgan_jax.inference import load
    from dcgan_jax.run import places
    from dcgan_jax.runtime import malloc
    from dcgan_jax.runtime.versions import versions

    malloc.keep_freed_memory()
    workdir = cli.run_directory(WORKDIR.value, "runs/mnist_conditional")
    counts = _counts()
    gan = load(workdir, STEP.value)
    if not gan.config.num_classes:
        raise UserError(
            f"--workdir: the network in {str(workdir)!r} has no classes, expected a conditional one, whose samples "
            "have labels (configs/mnist_conditional.py)"
        )
    num_classes = gan.config.num_classes
    train = image_sets.open_training(gan.config) if REAL.value else None
    test = image_sets.open_test(gan.config)
    _check_labels(train, test, num_classes, places.read(workdir, gan.step)[1]["data"])
    shared = {"seed": SEED.value, "versions": versions()}
    if train is not None:
        wanted = {min(count, len(train.images)) for count in [*counts, len(train.images)]}
        blocks = ((train.images[part], train.labels[part]) for part in _parts(wanted))
        real = image_sets.hashes(train=train, test=test)
        about = shared | {"step": 0, "features": "pixels of training images", "real": real}
        _measure(blocks, wanted, test, "training images", about, workdir)
    blocks = ((gan.sample_at(part, SEED.value), part % num_classes) for part in _parts(counts))
    about = shared | {"step": gan.step, "features": "pixels", "real": image_sets.hashes(test=test)}
    _measure(blocks, set(counts), test, f"samples of step {gan.step}", about, workdir)
    print(workdir / report.NAME)


def _check_labels(train: "ImageSet | None", test: "ImageSet", num_classes: int, trained_on: dict[str, Any]) -> None:
    """Raises UserError unless images have labels of the classes that the network was trained on, as its card says."""
    from dcgan_jax.data import check_classes

    for flag, images in (("--data", train), ("--test", test)):
        if images is not None and images.labels is None:
            raise UserError(f"{flag}: found images without labels, expected labelled ones to compare with")
    if test.labels.max() >= num_classes:
        classes = len(np.unique(test.labels))
        raise UserError(f"--test: found {classes} labels up to {test.labels.max()}, expected {num_classes}")
    check_classes("--test", trained_on, test.card)
    if train is not None:
        check_classes("--data", trained_on, train.card)


def _measure(
    blocks: Iterator[tuple[np.ndarray, np.ndarray]],
    wanted: set[int],
    test: "ImageSet",
    source: str,
    about: dict[str, Any],
    workdir: Path,
) -> None:
    """Classifies the test images by blocks of images and labels; writes a result at each of the wanted counts."""
    from dcgan_jax.evaluation import report
    from dcgan_jax.evaluation.tables.nearest_neighbour import NearestNeighbour
    from dcgan_jax.runtime.files import append_lines

    began, classifier = time.perf_counter(), NearestNeighbour(np.asarray(test.images))
    for images, labels in blocks:
        classifier.add(images, labels)
        if classifier.count not in wanted:
            continue
        error = float((classifier.label != test.labels).mean())
        result = {"metric": f"nearest_neighbour_error{classifier.count}_test", "value": error}
        seconds = {"seconds": round(time.perf_counter() - began, 1)}
        append_lines(workdir / report.NAME, [result | about | seconds])
        print(f"{source}: {classifier.count} images, {len(test.labels)} held out, error {error:.2%}", flush=True)


def _counts() -> list[int]:
    if not all(map(cli.is_count, SAMPLES.value)) or not SAMPLES.value:
        raise UserError(f"--samples: found {','.join(SAMPLES.value)!r}, expected whole numbers such as 50000")
    return sorted(map(int, SAMPLES.value))


def _parts(counts: Collection[int]) -> Iterator[np.ndarray]:
    """Indices 0, 1, ... in blocks; one block ends at each of the counts."""
    start = 0
    for count in sorted(counts):
        for begin in range(start, count, BLOCK):
            yield np.arange(begin, min(begin + BLOCK, count))
        start = count


if __name__ == "__main__":
    cli.run(main, __doc__)
