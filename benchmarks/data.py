"""Batches per second from a prepared set: python benchmarks/data.py [--count=50000] [--batch=128] [--side=64]

A set of random pixels is written to a temporary folder and opened as in training. In turns run `Batches`, the same
through the prefetching thread, and, if Grain is installed, Grain's MapDataset over the same mapped array, shuffled anew
in each epoch and batched. Printed are the medians in images per second, and the ratios.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import measure
import numpy as np

from dcgan_jax import data
from dcgan_jax.data import prepared
from dcgan_jax.runtime import files

ROUNDS = 7


def make_set(folder: Path, count: int, side: int) -> data.ImageSet:
    """A prepared set of random pixels, opened."""
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    files.write_array(folder / "images.npy", images)
    hashes = {"images": files.sha256(folder / "images.npy")}
    card = dict(format=prepared.FORMAT, count=count, image_size=[side, side], channels=3, attributes=[], sha256=hashes)
    prepared.write_card(folder, card)
    return data.open_set(folder)


def contenders(image_set: data.ImageSet, batch: int) -> dict[str, Callable[[range], None]]:
    """Functions that go through the batches of a range of steps."""
    batches = data.Batches(image_set, batch, seed=0)

    def direct(steps: range) -> None:
        for step in steps:
            batches(step)

    def prefetched(steps: range) -> None:
        for _ in data.prefetch(batches, steps):
            pass

    compared = {"Batches": direct, "Batches, prefetched": prefetched}
    try:
        import grain
    except ImportError:
        return compared
    grain_batches = grain.MapDataset.source(image_set.images).seed(0).shuffle().repeat().batch(batch)

    def by_grain(steps: range) -> None:
        for step in steps:
            grain_batches[step]

    return compared | {"grain.MapDataset": by_grain}


def epochs(run: Callable[[range], None], length: int) -> measure.Run:
    """A run whose every call goes through the next `length` steps."""
    done = 0

    def one_more(calls: int) -> None:
        nonlocal done
        run(range(done, done + calls * length))
        done += calls * length

    return one_more


def main() -> None:
    options = measure.plain_parser(__doc__, count=50_000, batch=128, side=64).parse_args()
    length = options.count // options.batch
    with tempfile.TemporaryDirectory() as name:
        compared = contenders(make_set(Path(name), options.count, options.side), options.batch)
        runs = {who: epochs(run, length) for who, run in compared.items()}
        times = measure.in_turns(runs, ROUNDS, 0.0)
    rates = {who: length * options.batch / float(np.median(column)) for who, column in times.items()}
    rows = [
        {"who": who, "images/s": round(rate), "of Batches": round(rate / rates["Batches"], 2)}
        for who, rate in rates.items()
    ]
    measure.report(options, rows)


if __name__ == "__main__":
    main()
