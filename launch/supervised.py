"""The probe's supervised baseline: python launch/supervised.py --workdir=DIR --data=NAME

    python launch/supervised.py --workdir=runs/svhn --data=svhn_cropped --labels_per_class=100
    python launch/supervised.py --workdir=runs/svhn --data=svhn_cropped --trials=4 --images_seen=20000

Trains the architecture of a run's discriminator as a classifier, from random weights, on labelled images alone. It
tries --trials random settings (learning rate, b1, weight decay, batch size) and tests the one that is best on held-out
training images (section 5.2 of the paper: 64 trials). Each trial, and at last the result, is printed and appended to
DIR/evaluation.jsonl.
"""

from typing import TYPE_CHECKING

import cli
import image_sets
import numpy as np
from absl import flags

from dcgan_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from dcgan_jax.evaluation.tables.supervised import Trial

WORKDIR = flags.DEFINE_string("workdir", None, "run directory, whose discriminator's architecture is trained")
LABELS = flags.DEFINE_string("labels_per_class", "all", "how many labelled images per class, or 'all'")
TRIALS = flags.DEFINE_integer("trials", 64, "random settings to try", lower_bound=1)
IMAGES = flags.DEFINE_integer("images_seen", 100_000, "images that each trial sees, with repetition", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "seed of the draw of labels, the settings, and the weights", 0, cli.LARGEST_SEED)


def main() -> None:
    from dcgan_jax.evaluation import report
    from dcgan_jax.evaluation.tables import supervised
    from dcgan_jax.evaluation.tables.probe import Split
    from dcgan_jax.inference import load
    from dcgan_jax.runtime import compile_cache, malloc
    from dcgan_jax.runtime.files import append_lines
    from dcgan_jax.runtime.versions import versions

    malloc.keep_freed_memory()
    compile_cache.enable()
    workdir = cli.run_directory(WORKDIR.value, "runs/svhn")
    if LABELS.value != "all" and not cli.is_count(LABELS.value):
        raise UserError(f"--labels_per_class: found {LABELS.value!r}, expected a number, or 'all'")
    gan = load(workdir)
    if gan.config.num_classes:
        raise UserError(f"--workdir: the network in {str(workdir)!r} takes labels, expected one without classes")
    train, test = image_sets.open_training(gan.config), image_sets.open_test(gan.config)
    split = Split(train, test, SEED.value)
    not_held_out = np.arange(split.num_held_out, len(split.order))
    chosen = not_held_out if LABELS.value == "all" else next(split.draws(int(LABELS.value), 1))
    learned, held_out = (
        supervised.LabelledImages(np.asarray(train.images[split.order[places]]), split.labels[places])
        for places in (chosen, np.arange(split.num_held_out))
    )
    real = image_sets.hashes(train=train, test=test)
    about = {"step": 0, "features": "supervised", "images_seen": IMAGES.value, "seed": SEED.value}
    about |= {"real": real, "versions": versions()}

    def write(split_name: str, accuracy: float, settings: "Trial", **more: float) -> None:
        line = {"metric": f"probe_accuracy_{LABELS.value}_{split_name}", "value": accuracy}
        append_lines(workdir / report.NAME, [line | about | settings._asdict() | more])

    rng = np.random.default_rng(SEED.value)
    best_accuracy, best = -1.0, None
    for number in range(1, TRIALS.value + 1):
        trial = supervised.draw_trial(rng)
        classifier = supervised.train(gan.discriminator, split.classes, learned, trial, IMAGES.value, SEED.value)
        accuracy = classifier.accuracy(held_out)
        settings = ", ".join(f"{name} {value:.3g}" for name, value in trial._asdict().items())
        write("held_out", accuracy, trial, trial=number)
        print(f"trial {number} of {TRIALS.value}: {accuracy:.2%} of held-out images ({settings})", flush=True)
        if accuracy > best_accuracy:
            best_accuracy, best = accuracy, (classifier, trial)
    assert best is not None
    classifier, trial = best
    accuracy = classifier.accuracy(supervised.LabelledImages(np.asarray(test.images), test.labels))
    write("test", accuracy, trial, held_out=best_accuracy, trials=TRIALS.value)
    print(f"supervised, {len(learned.labels)} labels: accuracy {accuracy:.2%} ({best_accuracy:.2%} held out)")
    print(workdir / report.NAME)


if __name__ == "__main__":
    cli.run(main, __doc__)
