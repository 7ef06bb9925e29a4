"""Whether training falls over: many runs, each measured from start to end, one JSON line a finished run.

    python benchmarks/stability.py seeds [--only=cifar10_16,stable] [--minutes=8] [--data=FOLDER]
    python benchmarks/stability_tables.py            makes docs/stability.md from the lines

The experiments are the rows of `stability_runs.EXPERIMENTS`. Runs with a line in `benchmarks/stability.jsonl` are not
repeated, so the same command goes on where it was cut off; a run that was cut off goes on from its last measure. On
accelerators runs that differ in their seed alone train at once, in one program; on CPUs one after another.
"""

import argparse
import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Any

import jax
import measure
import numpy as np
from flax import serialization
from ml_collections import ConfigDict
from stability_runs import DRY, EXPERIMENTS, SETS, Run, config_of, settings

from dcgan_jax import data, inference, state, steps
from dcgan_jax.evaluation import metrics
from dcgan_jax.evaluation.feature_classifier import classifier_extractor
from dcgan_jax.evaluation.features import Extractor, Features
from dcgan_jax.evaluation.moments import moments_of
from dcgan_jax.evaluation.quality import Quality
from dcgan_jax.evaluation.reference import Reference
from dcgan_jax.runtime import files
from dcgan_jax.runtime.versions import versions
from dcgan_jax.state import GANState

RESULTS = measure.ROOT / "benchmarks" / "stability.jsonl"
MEASURES = 10  # in a run, evenly spread; the last one is of the last step
OF_ARCHITECTURES = 5  # measures of these, of which there are many
SAMPLES = 5000  # for the classifier's FID; recall is taken on the first 2,000
RECALLED = 2000
VERSIONS = ("code", "jax")  # that decide what comes out
DIGITS = 4  # significant ones of measures in a line
STEPS_PER_CALL = 10  # on accelerators
ON_DEVICE = jax.default_backend() != "cpu"


class Judge:
    """Measures the samples of a run."""

    def __init__(self, config: ConfigDict):
        labelled = data.load(config, labelled=True)
        test = data.held_out(config)
        self.images = labelled._replace(labels=None)
        self.quality = Quality(self.images)
        self._extractor: Extractor | None = None
        if labelled.labels is not None:  # otherwise the quality is all there is
            self._extractor = classifier_extractor(labelled, test)
            reference = Reference(test or labelled, self._extractor, "test" if test else "train")
            self._real = reference.vectors(min(reference.count, 10_000))
            real = reference.image_set.images[reference.chosen(len(self._real))]
            self._shares = _class_shares(self._extractor(real))

    def __call__(self, gan: inference.TrainedGAN, seed: int) -> tuple[dict[str, float], Features | None]:
        """Measures of a checkpoint, and the features behind them."""
        samples = gan.sample_at(np.arange(SAMPLES), seed)
        # The standard deviation of all pixels, relative to that of real images.
        contrast = float(np.std(samples) / np.std(self.images.images[::10]))
        values = {"quality": self.quality(lambda indices: samples[indices]), "contrast": contrast}
        if not self._extractor:
            return values, None
        features = self._extractor(samples)
        fid = metrics.frechet_distance(moments_of(features.vectors), moments_of(self._real))
        least = float(np.min(_class_shares(features) / self._shares))
        return values | {"fid": fid, "least_class": least}, features

    def recall(self, features: Features) -> dict[str, float]:
        """Precision, recall, density and coverage of 2,000 samples against as many real images."""
        return metrics.prdc(features.vectors[:RECALLED], self._real[:RECALLED])


def share_of(images: np.ndarray, share: float) -> np.ndarray:
    """A fixed random choice of images."""
    chosen = np.random.default_rng(0).permutation(len(images))[: round(share * len(images))]
    return images if share == 1 else images[np.sort(chosen)]


def _class_shares(features: Features) -> np.ndarray:
    assert features.logits is not None
    return np.bincount(features.logits.argmax(1), minlength=features.logits.shape[1]) / len(features.logits)


class Together:
    """States of runs that differ in their seed alone: one run, or several that one program trains.

    on_device: the images are there, and a call trains several steps; otherwise one.
    """

    def __init__(self, config: ConfigDict, seeds: list[int], images: data.ImageSet, *, on_device: bool):
        method = steps.from_config(config)
        self._batches = [data.Batches(images, config.batch_size, seed) for seed in seeds]
        self._updates = method.discriminator_steps
        self._steps_per_call = STEPS_PER_CALL if on_device else 1
        self._images = jax.device_put(np.asarray(images.images)) if on_device else images.images
        self._many = len(seeds) > 1
        self._seeds = np.array(seeds if self._many else seeds[0], np.int32)

        def start(seed: jax.Array) -> GANState:
            return state.start(method.generator, method.discriminator, method.optimizers, method.latent_dim, seed)

        def step(seed: jax.Array, current: GANState, images: jax.Array) -> tuple[GANState, Any]:
            return steps.train_step(dataclasses.replace(method, seed=seed), current, {"images": images})

        if self._many:
            # The number of the step is the same for all, so that what is due is a branch, not a choice of two results.
            axes = GANState(None, 0, 0, 0)
            start = jax.vmap(start, out_axes=axes)
            step = jax.vmap(step, in_axes=(0, axes, 0), out_axes=(axes, 0))

        def several(seeds: jax.Array, current: GANState, indices: jax.Array, images: jax.Array) -> tuple[GANState, Any]:
            current, metrics = jax.lax.scan(lambda s, chosen: step(seeds, s, images[chosen]), current, indices)
            return current, jax.tree.map(lambda values: values[-1], metrics)

        self.state = jax.jit(start)(self._seeds)
        self._several = jax.jit(several, donate_argnums=1)
        self._one = jax.jit(step, donate_argnums=1)

    def train(self, first: int, last: int) -> dict[str, np.ndarray]:
        """Trains from step `first` to `last`. Returns the metrics of the last step, [seeds] each."""
        for number in range(first, last, self._steps_per_call):
            numbers = range(number, min(number + self._steps_per_call, last))
            chosen = np.stack([self._indices(number) for number in numbers])
            if self._steps_per_call > 1:
                self.state, values = self._several(self._seeds, self.state, chosen, self._images)
            else:
                self.state, values = self._one(self._seeds, self.state, self._images[chosen[0]])
            if number % 100 == 0:
                jax.block_until_ready(values)  # not thousands of batches ahead
        return {name: np.atleast_1d(value) for name, value in jax.device_get(values).items()}

    def _indices(self, number: int) -> np.ndarray:
        """The images of all updates of a step, [updates * B], with several runs [runs, updates * B]."""
        updates = range(number * self._updates, (number + 1) * self._updates)
        chosen = np.stack([np.concatenate([of.indices(update) for update in updates]) for of in self._batches])
        return chosen if self._many else chosen[0]

    def each(self) -> list[GANState]:
        """The state of each run, of numpy arrays."""
        host = jax.device_get(self.state)
        if not self._many:
            return [host]
        return [jax.tree.map(lambda x, i=i: x[i] if np.ndim(x) else x, host) for i in range(len(self._batches))]


@dataclasses.dataclass
class Progress:
    """Of runs that train together: measures made, seconds of training, of each run its curve and last recall."""

    done: int
    seconds: float
    curves: list[list[dict[str, Any]]]
    recalls: list[dict[str, Any]]

    def save(self, path: Path, together: Together) -> None:
        """Writes all that a later process needs to go on."""
        states = serialization.to_state_dict(jax.device_get(together.state))
        with files.atomic_write(path) as file:
            file.write(serialization.msgpack_serialize({"state": states, "progress": json.dumps(vars(self))}))

    @classmethod
    def restore(cls, path: Path, together: Together) -> "Progress":
        """What `save` wrote, if it is there, and the states into `together`."""
        count = len(together.each())
        if not path.exists():
            return cls(0, 0.0, [[] for _ in range(count)], [{} for _ in range(count)])
        saved = serialization.msgpack_restore(path.read_bytes())
        together.state = serialization.from_state_dict(together.state, saved["state"])
        return cls(**json.loads(saved["progress"]))


def train(runs: list[Run], places: dict[str, str], folder: Path, deadline: float) -> list[dict[str, Any]] | None:
    """The lines of runs that differ in their seed alone, or None if the time was up before their end."""
    first = runs[0]
    config = config_of(first, places)
    judge = _judge(first.images, config)
    images = judge.images._replace(images=share_of(judge.images.images, SETS[first.images].get("share", 1)))
    together = Together(config, [run.seed for run in runs], images, on_device=ON_DEVICE)
    unfinished = folder / f"{files.digest(*(run.key for run in runs))}.msgpack"
    progress = Progress.restore(unfinished, together)
    count = OF_ARCHITECTURES if first.experiment == "architectures" else MEASURES
    marks = [0, *(round((i + 1) * first.steps / count) for i in range(count))]
    while progress.done < count:
        began = time.perf_counter()
        step = marks[progress.done + 1]
        metrics_of_all = together.train(marks[progress.done], step)
        progress.seconds += time.perf_counter() - began
        progress.done += 1
        for i, (run, current) in enumerate(zip(runs, together.each(), strict=True)):
            values = {name: float(value[i]) for name, value in metrics_of_all.items()}
            point, features = measured(judge, config_of(run, places), current, values)
            if features and progress.done == count:
                progress.recalls[i] = judge.recall(features)
            progress.curves[i].append({"step": step} | point)
        ends = [curve[-1] for curve in progress.curves]
        fids = ", ".join(f"{end.get('fid', np.nan):.2f}" for end in ends)
        print(f"{first.images} {first.method} {first.fields}: step {step}, FID {fids}", flush=True)
        if progress.done < count:
            progress.save(unfinished, together)
            if time.monotonic() > deadline:
                return None
    unfinished.unlink(missing_ok=True)
    about = {"device": jax.devices()[0].device_kind, "together": len(runs)}
    about["versions"] = {name: versions()[name] for name in VERSIONS}
    about["steps_per_sec"] = round(len(runs) * first.steps / progress.seconds, 2)
    return [
        run._asdict()
        | {"curve": columns(rounded(curve)), "prdc": rounded(recalls), "config": settings(config_of(run, places))}
        | about
        for run, curve, recalls in zip(runs, progress.curves, progress.recalls, strict=True)
    ]


def columns(curve: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """The points of a curve as a list for each of their values, None where a point has none: a line half as long."""
    names = dict.fromkeys(name for point in curve for name in point)
    return {name: [point.get(name) for point in curve] for name in names}


def rounded(value: Any) -> Any:
    """The same with floats of five significant digits."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def measured(
    judge: Judge, config: ConfigDict, current: GANState, values: dict[str, float]
) -> tuple[dict[str, Any], Features | None]:
    """A point of a run's curve, and the features of its samples. values: the metrics of the last step."""
    point: dict[str, Any] = {"d_loss": values["d_loss"]}
    if not all(map(np.isfinite, values.values())):
        return point | {"finite": False}, None
    average = inference.recalibrate(config, jax.device_put(current.ema))
    gan = inference.TrainedGAN(config, serialization.to_state_dict(current.replace(ema=average)))
    of_samples, features = judge(gan, config.seed)
    return point | of_samples, features


def _judge(images: str, config: ConfigDict) -> Judge:
    if images not in _judges:
        _judges[images] = Judge(config)
    return _judges[images]


_judges: dict[str, Judge] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", choices=EXPERIMENTS)
    parser.add_argument("--only", default="", help="names of images or methods, separated by commas")
    parser.add_argument("--data", default="data", help="folder with cifar10/ and celeba10k/")
    parser.add_argument("--fashion_mnist", default="/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--dry", action="store_true", help="tiny networks and ten steps, one seed of each")
    parser.add_argument("--part", default="0/1", help="I/N: every Nth run from the Ith on, for N processes")
    parser.add_argument("--one", action="store_true", help="train one run at a time on accelerators, too")
    parser.add_argument("--minutes", type=float, default=np.inf, help="stop at the first measure after this time")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    wanted = [run for name in options.experiments for run in EXPERIMENTS[name]]
    if options.dry:
        wanted = [run._replace(fields=run.fields | DRY, steps=10) for run in wanted if run.seed == 0]
    names = set(filter(None, options.only.split(",")))
    wanted = [run for run in wanted if names <= {run.images, run.method}]
    part, parts = map(int, options.part.split("/"))
    wanted = wanted[part::parts]
    folder = options.results.with_suffix(".unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    places = {"data": options.data, "fashion_mnist": options.fashion_mnist}
    done = done_in(options.results)
    left = [run for run in wanted if done.get(run.key) != settings(config_of(run, places))]
    for group in groups(left, together=ON_DEVICE and not options.one):
        lines = train(group, places, folder, deadline)
        if lines:
            files.append_lines(options.results, lines)
        if time.monotonic() > deadline:
            return
    print("all done")


def done_in(results: Path) -> dict[str, dict[str, Any]]:
    """The settings of the runs that have a line, by their keys."""
    if not results.exists():
        return {}
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return {Run(**{name: line[name] for name in Run._fields}).key: line["config"] for line in lines}


def groups(left: list[Run], *, together: bool) -> list[list[Run]]:
    """Runs, those together that train in one program."""
    if not together:
        return [[run] for run in left]
    order = {run.group: i for i, run in reversed(list(enumerate(left)))}
    left = sorted(left, key=lambda run: order[run.group])
    return [list(runs) for _, runs in itertools.groupby(left, key=lambda run: run.group)]


if __name__ == "__main__":
    main()
