"""The linear classifier of the CIFAR-10 probe at full size.

    python benchmarks/svm.py [--examples=50000] [--features=28672] [--c 1e-4 1e-3 1e-2]

It is trained on made-up features, similar to a network's in size and in how hard the classes are to separate: many
features each say a little about the class. Printed are seconds, passes over the features, accuracy on the training and
on other examples, and the process's peak memory, features included.
"""

import resource
import time

import measure
import numpy as np

from dcgan_jax.evaluation.tables import svm

CLASSES, HELD_OUT = 10, 2000
BLOCK = 512  # examples made at a time


def main() -> None:
    parser = measure.plain_parser(__doc__, examples=50_000, features=28_672)
    parser.add_argument("--c", type=float, nargs="+", default=[1e-4, 1e-3, 1e-2])
    options = parser.parse_args()

    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, options.examples + HELD_OUT)
    means = 0.02 * rng.standard_normal((CLASSES, options.features), np.float32)
    features = np.empty((len(labels), options.features), np.float16)
    for start in range(0, len(labels), BLOCK):
        block = slice(start, start + BLOCK)
        noise = rng.standard_normal((len(labels[block]), options.features), np.float32)
        features[block] = np.maximum(means[labels[block]] + noise, 0)
    learned, held_out = slice(options.examples), slice(options.examples, None)
    for c in options.c:
        began = time.perf_counter()
        classifier = svm.fit(features[learned], labels[learned], CLASSES, c)
        seconds = time.perf_counter() - began
        accuracies = [classifier.accuracy(features[part], labels[part]) for part in (learned, held_out)]
        print(
            f"C {c:g}: {seconds:.1f} s, {classifier.passes} passes, accuracy {accuracies[0]:.2%} of the examples, "
            f"{accuracies[1]:.2%} of others",
            flush=True,
        )
    print(f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
