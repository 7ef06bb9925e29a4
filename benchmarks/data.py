"""How fast batches come from a mapped set.

    python benchmarks/data.py [--count=50000] [--batch=128] [--side=64] [--json=FILE]

A set of random pixels is written to a temporary folder and opened as training opens it. Measured in turn, several
times: `Batches` of this package, the same through the background thread, and Grain's MapDataset (its source is the same
mapped array, shuffled anew in each epoch, batched) where Grain is installed. Medians in images a second, and the ratio.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import measure
import numpy as np

from dcgan_jax import data
from dcgan_jax.data import prepared

ROUNDS = 7


def make_set(folder: Path, count: int, side: int) -> data.ImageSet:
    """A prepared set of random pixels, opened."""
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    prepared.write_array(folder / "images.npy", images)
    hashes = {"images": prepared.sha256(folder / "images.npy")}
    card = dict(format=prepared.FORMAT, count=count, image_size=[side, side], channels=3, attributes=[], sha256=hashes)
    prepared.write_card(folder, card)
    return data.open_set(folder)


def contenders(image_set: data.ImageSet, batch: int) -> dict[str, Callable[[range], None]]:
    """What is compared: each goes through the batches of the steps that it is given."""
    batches = data.Batches(image_set, batch, seed=0)

    def direct(steps: range) -> None:
        for step in steps:
            batches(step)

    def ahead(steps: range) -> None:
        for _ in data.ahead(batches, steps):
            pass

    found = {"Batches": direct, "Batches, ahead": ahead}
    try:
        import grain
    except ImportError:
        return found
    grain_batches = grain.MapDataset.source(image_set.images).seed(0).shuffle().repeat().batch(batch)

    def by_grain(steps: range) -> None:
        for step in steps:
            grain_batches[step]

    return found | {"grain.MapDataset": by_grain}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--json", type=Path, help="file to which the record is added as one line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        compared = contenders(make_set(Path(name), options.count, options.side), options.batch)
        rates: dict[str, list[float]] = {title: [] for title in compared}
        length = options.count // options.batch
        for turn in range(ROUNDS):
            for title, run in compared.items():
                began = time.perf_counter()
                run(range(turn * length, (turn + 1) * length))
                rates[title].append(length * options.batch / (time.perf_counter() - began))
    medians = {title: float(np.median(rate)) for title, rate in rates.items()}
    rows = [
        {"who": title, "images/s": round(median), "of Batches": round(median / medians["Batches"], 2)}
        for title, median in medians.items()
    ]
    print(measure.table(rows))
    measure.record(options, rows)


if __name__ == "__main__":
    main()
