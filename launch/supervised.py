"""The probe's supervised baseline: python launch/supervised.py --workdir=DIR --data=svhn_cropped --labels_per_class=100

Trains the architecture of a run's discriminator as a classifier, from random weights, on labelled images alone. Of
--trials random settings (learning rate, b1, weight decay, batch) the best on held-out training images is tested
(section 5.2 of the paper: 64 trials). Trials are printed, and added to DIR/evaluation.jsonl, as they end; the result at
last.
"""

import cli
import image_sets
import numpy as np
from absl import flags

from dcgan_jax.errors import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run whose discriminator's form is taken")
LABELS = flags.DEFINE_string("labels_per_class", "all", "how many labelled images a class, or 'all'")
TRIALS = flags.DEFINE_integer("trials", 64, "random settings", lower_bound=1)
IMAGES = flags.DEFINE_integer("images_seen", 100_000, "images that each trial sees, with repetition", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "of the draw of labels, the settings, and the weights", 0, cli.LARGEST_SEED)


def main() -> None:
    from dcgan_jax import checkpoint, compilation, heap
    from dcgan_jax.evaluation import report, supervised
    from dcgan_jax.evaluation.probe import Split
    from dcgan_jax.inference import load

    heap.keep()
    compilation.remember()
    workdir = cli.run_to_add_to(WORKDIR.value, "runs/svhn")
    if LABELS.value != "all" and not cli.is_count(LABELS.value):
        raise UserError(f"--labels_per_class: found {LABELS.value!r}, expected a number, or 'all'")
    gan = load(workdir)
    if gan.config.num_classes:
        raise UserError(f"--workdir: the network in {str(workdir)!r} takes labels, expected one without classes")
    train, test = image_sets.open_training(gan.config), image_sets.open_test(gan.config)
    split = Split(train, test, SEED.value)
    everything = np.arange(split.held_out, len(split.order))
    chosen = everything if LABELS.value == "all" else next(split.draws(int(LABELS.value), 1))
    learned, held_out = (
        supervised.Labelled(np.asarray(train.images[split.order[places]]), split.labels[places])
        for places in (chosen, np.arange(split.held_out))
    )
    about = {
        "step": 0,
        "features": "supervised",
        "images_seen": IMAGES.value,
        "seed": SEED.value,
        "real": image_sets.hashes(train=train, test=test),
        "versions": checkpoint.versions(),
    }

    def note(what: str, value: float, settings: supervised.Trial, **more: float) -> None:
        line = {"metric": f"probe_accuracy_{LABELS.value}_{what}", "value": value}
        report.append(workdir / report.NAME, [line | about | settings._asdict() | more])

    rng = np.random.default_rng(SEED.value)
    best, best_accuracy, best_trial = None, -1.0, None
    for number in range(1, TRIALS.value + 1):
        trial = supervised.draw(rng)
        found = supervised.train(gan.discriminator, split.classes, learned, trial, IMAGES.value, SEED.value)
        accuracy = found.accuracy(held_out)
        told = ", ".join(f"{name} {value:.3g}" for name, value in trial._asdict().items())
        note("held_out", accuracy, trial, trial=number)
        print(f"trial {number} of {TRIALS.value}: {accuracy:.2%} of held-out images ({told})", flush=True)
        if accuracy > best_accuracy:
            best, best_accuracy, best_trial = found, accuracy, trial
    assert best is not None
    assert best_trial is not None
    accuracy = best.accuracy(supervised.Labelled(np.asarray(test.images), test.labels))
    note("test", accuracy, best_trial, held_out=best_accuracy, trials=TRIALS.value)
    print(f"supervised, {len(learned.labels)} labels: accuracy {accuracy:.2%} ({best_accuracy:.2%} held out)")


if __name__ == "__main__":
    cli.run(main, __doc__)
