"""The linear classifier of the CIFAR-10 probe at its size: python benchmarks/svm.py [--examples=50000 --features=28672]

Trains it on made-up features that are alike in size, and in how far they can be told apart, to those of a network: a
class is told by many features a little. Printed are the seconds, the passes over the features, the accuracy on what it
was trained on and on others, and the memory that the process took at most, the features included.
"""

import argparse
import resource
import time

import numpy as np

from dcgan_jax import heap
from dcgan_jax.evaluation import svm

CLASSES, HELD_OUT = 10, 2000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=28_672)
    parser.add_argument("--c", type=float, nargs="+", default=[1e-4, 1e-3, 1e-2])
    options = parser.parse_args()

    heap.keep()
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, options.examples + HELD_OUT)
    means = 0.02 * rng.standard_normal((CLASSES, options.features), np.float32)
    features = np.empty((len(labels), options.features), np.float16)
    for start in range(0, len(labels), svm.ROWS):
        block = slice(start, start + svm.ROWS)
        noise = rng.standard_normal((len(labels[block]), options.features), np.float32)
        features[block] = np.maximum(means[labels[block]] + noise, 0)
    learned, held_out = slice(options.examples), slice(options.examples, None)
    for c in options.c:
        began = time.perf_counter()
        found = svm.fit(features[learned], labels[learned], CLASSES, c)
        seconds = time.perf_counter() - began
        accuracies = (found.accuracy(features[part], labels[part]) for part in (learned, held_out))
        print(
            f"C {c:g}: {seconds:.1f} s, {found.passes} passes, accuracy {next(accuracies):.2%} of the examples, "
            f"{next(accuracies):.2%} of others",
            flush=True,
        )
    print(f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
