"""Whether training falls over: many runs, each measured from start to end, one JSON line a finished run.

    python benchmarks/stability.py seeds [--only=cifar10_16,stable] [--minutes=8] [--data=FOLDER]
    python benchmarks/stability_tables.py            makes docs/stability.md from the lines

The experiments are the rows of `EXPERIMENTS`. Runs with a line in `benchmarks/stability.jsonl` are not repeated, so
the same command goes on where it was cut off; a run that was cut off goes on from its last measure. On accelerators
runs that differ in their seed alone train at once, in one program; on CPUs one after another.
"""

import argparse
import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import measure
import numpy as np
from flax import serialization
from ml_collections import ConfigDict

from dcgan_jax import config as configuration
from dcgan_jax import data, inference, state, steps
from dcgan_jax.config import RECIPES
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
SAMPLES = 5000  # for the classifier's FID; recall is taken on the first 2,000
RECALLED = 2000
COVERED = 0.1  # a class counts as covered with at least this share of what it has among the real images
STEPS_PER_CALL = 10  # of vectorised runs
VECTORISED = jax.default_backend() != "cpu"  # a small network leaves a GPU idle at 3% of its peak

# Images, by name: what is to be set beside the row of `DATA_SETS`; "{data}" is --data.
SETS: dict[str, dict[str, Any]] = {
    "digits": {"set": "digits", "image_size": (16, 16)},
    "fashion_mnist": {"set": "fashion_mnist", "data.path": "{fashion_mnist}"},
    **{
        f"cifar10_{size}": {
            "set": "cifar10", "image_size": (size, size), "data.source": "folder", "data.path": "{data}/cifar10/train",
        }
        for size in (16, 32)
    },
    "faces": {"set": "celeba", "image_size": (64, 64), "data.path": "{data}/celeba10k"},
}  # fmt: skip

AVERAGE: dict[str, Any] = {"ema_half_life": 500_000}
DECAY = AVERAGE | {"lr_decay_steps": lambda steps: steps // 2}
FASTER = DECAY | {"generator_lr": 5e-4, "discriminator_lr": 5e-4}
SPECTRAL = {"discriminator_norm": "spectral"}
LAZY_R1 = {"r1": 0.1, "penalty_every": 4}
# What the runs of an experiment train by: fields beside those of the data set; a function is of the number of steps.
# A name that is a recipe starts from it.
METHODS: dict[str, dict[str, Any]] = {
    **{name: {} for name in RECIPES},
    # The network of the paper's 64x64 experiments for all images, not that of its ImageNet experiment.
    "paper": {"features": [], "strides": [], "kernel_size": 5, "latent_dim": 100},
    "plain": {"ema_decay": 0.999},  # the default until this work
    "ema": AVERAGE,
    "decay": DECAY,
    "decay_5e-4": FASTER,
    "augment_5e-4": FASTER | {"augment": "color,translation"},
    "consistency_5e-4": FASTER | {"consistency_real": 10.0},
    "relativistic_5e-4": FASTER | {"loss": "relativistic"},
    "hinge_5e-4": FASTER | {"loss": "hinge"},
    "layer": AVERAGE | {"discriminator_norm": "layer"},
    "layer_r1": AVERAGE | LAZY_R1 | {"discriminator_norm": "layer"},
    "none_r1_fast": AVERAGE | LAZY_R1 | {"discriminator_norm": "none", "generator_lr": 5e-4, "discriminator_lr": 1e-3},
    "spectral": AVERAGE | SPECTRAL,
    "spectral_fast": DECAY | SPECTRAL | {"generator_lr": 5e-4, "discriminator_lr": 1e-3},
    "spectral_faster": DECAY | SPECTRAL | {"generator_lr": 1e-3, "discriminator_lr": 2e-3},
}


class Run(NamedTuple):
    """One run. fields: beside those of the method. Everything that its result depends on, but for the machine."""

    experiment: str
    images: str
    method: str
    fields: dict[str, Any]
    steps: int
    seed: int

    @property
    def key(self) -> str:
        """A text that says it all."""
        return json.dumps(self._asdict(), sort_keys=True)

    @property
    def group(self) -> str:
        """The same for runs that differ in their seed alone."""
        return json.dumps(self._replace(seed=0)._asdict(), sort_keys=True)


def product(experiment: str, images: str, methods: list[str], steps: int, seeds: int, **fields: Any) -> list[Run]:
    """Runs of all methods with all seeds."""
    return [Run(experiment, images, method, fields, steps, seed) for seed in range(seeds) for method in methods]


def architectures(methods: list[str], count: int, steps: int) -> list[Run]:
    """Random networks, in the manner of section 5 of the WGAN-GP paper, each by all methods."""
    return [
        Run("architectures", "cifar10_16", method, architecture(number, METHODS[method]), steps, number)
        for number in range(count)
        for method in methods
    ]


def architecture(number: int, method: dict[str, Any]) -> dict[str, Any]:
    """Fields of a random network and its learning rates: a function of the number.

    The discriminator has the method's own normalisation or another: layer norm in place of none, none in place of batch
    norm, as gradient penalties bar batch norm.
    """
    rng = np.random.default_rng(number)
    kernel_size = int(rng.choice([3, 4, 5]))
    # Layers of stride 1 need an odd kernel.
    strides = [2, 2] if kernel_size == 4 else [[2, 2], [1, 2, 2], [2, 1, 2], [1, 2, 1, 2]][rng.integers(4)]
    width = int(rng.choice([16, 32, 48]))
    widening = itertools.accumulate(strides, lambda before, stride: before * stride, initial=1)
    own = method.get("discriminator_norm", "batch")
    other = {"none": "layer", "batch": "none", "spectral": "none"}[own]
    activations = list(rng.choice(["relu", "leaky_relu", "tanh", "softplus"], 2))
    norms = rng.choice(["batch", "batch", "layer", "none"]), rng.choice([own, other])
    rates = 2e-4 * 4.0 ** rng.uniform(-1, 1, 2)
    return {
        "kernel_size": kernel_size, "strides": strides,
        "features": [width * share for share in itertools.islice(widening, len(strides))],
        "generator_activation": str(activations[0]), "discriminator_activation": str(activations[1]),
        "generator_norm": str(norms[0]), "discriminator_norm": str(norms[1]),
        "generator_lr": round(float(rates[0]), 6), "discriminator_lr": round(float(rates[1]), 6),
    }  # fmt: skip


SMALL = {"width": 32}
LARGE = {"width": 64}
EXPERIMENTS: dict[str, list[Run]] = {
    "search": product("search", "cifar10_16", [name for name in METHODS if name not in RECIPES], 3000, 1, **SMALL),
    # On a GPU (stability.sh). The first is the default of version 0.2, which fell over in bfloat16 (docs/stability.md).
    "repro": [
        run
        for dtype in ("float32", "bfloat16")
        for run in product("repro", "cifar10_32", ["plain"], 50_000, 4, **LARGE, dtype=dtype)
    ],
    "cifar10": product("cifar10", "cifar10_32", ["torch", "paper"], 50_000, 8, **LARGE, dtype="bfloat16"),
    "faces": product("faces", "faces", ["torch", "paper"], 40_000, 8, **LARGE, dtype="bfloat16"),
}
DRY = {"width": 4, "features": [], "strides": [], "dtype": "float32", "image_size": [16, 16]}  # and ten steps


def config_of(run: Run, places: dict[str, str]) -> ConfigDict:
    """The validated configuration of a run. places: what stands for the names in braces."""
    images = {name: value for name, value in SETS[run.images].items() if name != "set"}
    recipe = run.method if run.method in RECIPES else "default"
    config = configuration.for_data_set(SETS[run.images]["set"], recipe)
    for name, value in (images | METHODS[run.method] | run.fields).items():
        value = value(run.steps) if callable(value) else value
        value = value.format(**places) if isinstance(value, str) else value
        config.update_from_flattened_dict({name: tuple(value) if isinstance(value, list) else value})
    config.seed, config.num_steps = run.seed, run.steps
    return configuration.validate(config)


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
        values = {"quality": self.quality(lambda indices: samples[indices])}
        if not self._extractor:
            return values, None
        features = self._extractor(samples)
        fid = metrics.frechet_distance(moments_of(features.vectors), moments_of(self._real))
        least = float(np.min(_class_shares(features) / self._shares))
        return values | {"fid": fid, "least_class": least, "covered": float(least >= COVERED)}, features

    def recall(self, features: Features) -> dict[str, float]:
        """Precision, recall, density and coverage of 2,000 samples against as many real images."""
        return metrics.prdc(features.vectors[:RECALLED], self._real[:RECALLED])


def _class_shares(features: Features) -> np.ndarray:
    assert features.logits is not None
    return np.bincount(features.logits.argmax(1), minlength=features.logits.shape[1]) / len(features.logits)


class Together:
    """States of runs that differ in their seed alone.

    vectorised: one program trains all, several steps a call; otherwise there is one run, and a call is a step.
    """

    def __init__(self, config: ConfigDict, seeds: list[int], images: data.ImageSet, *, vectorised: bool):
        method = steps.from_config(config)
        self._batches = [data.Batches(images, config.batch_size, seed) for seed in seeds]
        self._updates = method.discriminator_steps
        self._vectorised = vectorised
        self._images = jax.device_put(np.asarray(images.images)) if vectorised else images.images
        self._seeds = np.array(seeds, np.int32)

        def start(seed: jax.Array) -> GANState:
            return state.start(method.generator, method.discriminator, method.optimizers, method.latent_dim, seed)

        def step(seed: jax.Array, current: GANState, images: jax.Array) -> tuple[GANState, Any]:
            return steps.train_step(dataclasses.replace(method, seed=seed), current, {"images": images})

        def several(seeds: jax.Array, current: GANState, indices: jax.Array, images: jax.Array) -> tuple[GANState, Any]:
            # The number of the step is the same for all, so that what is due is a branch, not a choice of two results.
            axes = GANState(None, 0, 0, 0)
            every = jax.vmap(step, in_axes=(0, axes, 0), out_axes=(axes, 0))
            current, metrics = jax.lax.scan(lambda s, chosen: every(seeds, s, images[chosen]), current, indices)
            return current, jax.tree.map(lambda values: values[-1], metrics)

        if not vectorised:
            assert len(seeds) == 1
            self.state = jax.jit(start)(self._seeds[0])
            self._step = jax.jit(step, donate_argnums=1)
        else:
            self.state = jax.jit(jax.vmap(start, out_axes=GANState(None, 0, 0, 0)))(self._seeds)
            self._step = jax.jit(several, donate_argnums=1)

    def train(self, first: int, last: int) -> dict[str, np.ndarray]:
        """Trains from step `first` to `last`. Returns the metrics of the last step, [seeds] each."""
        if not self._vectorised:
            for number in range(first, last):
                self.state, values = self._step(self._seeds[0], self.state, self._images[self._indices(number)[0]])
                if number % 100 == 0:
                    jax.block_until_ready(values)  # not thousands of batches ahead
            return {name: np.asarray(value)[None] for name, value in values.items()}
        for number in range(first, last, STEPS_PER_CALL):
            numbers = range(number, min(number + STEPS_PER_CALL, last))
            chosen = np.stack([self._indices(number) for number in numbers])
            self.state, values = self._step(self._seeds, self.state, chosen, self._images)
        return jax.device_get(values)

    def _indices(self, number: int) -> np.ndarray:
        """The images of all updates of a step, [seeds, updates * B]."""
        updates = range(number * self._updates, (number + 1) * self._updates)
        return np.stack([np.concatenate([batches.indices(update) for update in updates]) for batches in self._batches])

    def one(self, i: int) -> GANState:
        """The state of one of the runs, of numpy arrays."""
        host = jax.device_get(self.state)
        return host if not self._vectorised else jax.tree.map(lambda x: x[i] if np.ndim(x) else x, host)


def train(runs: list[Run], places: dict[str, str], folder: Path, deadline: float) -> list[dict[str, Any]] | None:
    """The lines of runs that differ in their seed alone, or None if the time was up before their end."""
    configs = [config_of(run, places) for run in runs]
    if runs[0].images not in _judges:
        _judges[runs[0].images] = Judge(configs[0])
    judge = _judges[runs[0].images]
    together = Together(configs[0], [run.seed for run in runs], judge.images, vectorised=VECTORISED)
    unfinished = folder / f"{files.digest(*(run.key for run in runs))}.msgpack"
    done, curves, seconds = 0, [[] for _ in runs], 0.0
    kept: list[dict[str, Any]] = [{} for _ in runs]
    if unfinished.exists():
        saved = serialization.msgpack_restore(unfinished.read_bytes())
        together.state = serialization.from_state_dict(together.state, saved["state"])
        done, curves, seconds = saved["done"], json.loads(saved["curves"]), saved["seconds"]
        kept = json.loads(saved["kept"])
    marks = [round((i + 1) * runs[0].steps / MEASURES) for i in range(MEASURES)]
    for mark in marks[done:]:
        began = time.perf_counter()
        values = together.train(marks[done - 1] if done else 0, mark)
        seconds += time.perf_counter() - began
        for i, config in enumerate(configs):
            one = {name: float(value[i]) for name, value in values.items()}
            point = {"step": mark} | {name: one[name] for name in ("d_loss", "g_loss", "d_accuracy_real")}
            finite = all(map(np.isfinite, one.values()))
            if finite:
                current = together.one(i)
                average = inference.recalibrate(config, jax.device_put(current.ema))
                gan = inference.TrainedGAN(config, serialization.to_state_dict(current.replace(ema=average)))
                measured, features = judge(gan, config.seed)
                point |= measured
                if features and (
                    mark == marks[-1] or point["fid"] <= min(p.get("fid", np.inf) for p in [point, *curves[i]])
                ):
                    kept[i]["last" if mark == marks[-1] else "best"] = judge.recall(features)
            curves[i].append(point | {"finite": finite})
        done += 1
        if done < len(marks):
            with files.atomic_write(unfinished) as file:
                file.write(
                    serialization.msgpack_serialize(
                        {
                            "state": serialization.to_state_dict(jax.device_get(together.state)),
                            "done": done,
                            "curves": json.dumps(curves),
                            "seconds": seconds,
                            "kept": json.dumps(kept),
                        }
                    )
                )
        print(
            f"{runs[0].images} {runs[0].method} {runs[0].fields} step {mark}: "
            + "  ".join(
                f"{curve[-1].get('fid', float('nan')):.2f}/{curve[-1].get('quality', float('nan')):.2f}"
                for curve in curves
            ),
            flush=True,
        )
        if time.monotonic() > deadline and done < len(marks):
            return None
    unfinished.unlink(missing_ok=True)
    about = {"device": jax.devices()[0].device_kind, "versions": versions(), "together": len(runs)}
    rate = len(runs) * runs[0].steps / seconds
    return [
        run._asdict() | {"curve": curve, "prdc": of_run} | about | {"steps_per_sec": round(rate, 2)}
        for run, curve, of_run in zip(runs, curves, kept, strict=True)
    ]


_judges: dict[str, Judge] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", choices=EXPERIMENTS)
    parser.add_argument("--only", default="", help="names of images or methods, separated by commas")
    parser.add_argument("--data", default="data", help="folder with cifar10/ and celeba10k/")
    parser.add_argument("--fashion_mnist", default="/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--dry", action="store_true", help="tiny networks and ten steps, one seed of each")
    parser.add_argument("--minutes", type=float, default=np.inf, help="stop at the first measure after this time")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    wanted = [run for name in options.experiments for run in EXPERIMENTS[name]]
    if options.dry:
        wanted = [run._replace(fields=run.fields | DRY, steps=10) for run in wanted if run.seed == 0]
    names = set(filter(None, options.only.split(",")))
    wanted = [run for run in wanted if names <= {run.images, run.method}]
    folder = options.results.with_suffix(".unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    places = {"data": options.data, "fashion_mnist": options.fashion_mnist}
    for group in groups(wanted, done_in(options.results)):
        lines = train(group, places, folder, deadline)
        if lines:
            files.append_lines(options.results, lines)
        if time.monotonic() > deadline:
            return
    print("all done")


def done_in(results: Path) -> set[str]:
    """The keys of the runs that have a line."""
    if not results.exists():
        return set()
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    return {Run(**{name: line[name] for name in Run._fields}).key for line in lines}


def groups(wanted: list[Run], done: set[str]) -> list[list[Run]]:
    """The runs that are left, those together that train in one program."""
    left = [run for run in wanted if run.key not in done]
    if not VECTORISED:
        return [[run] for run in left]
    order = {run.group: i for i, run in reversed(list(enumerate(left)))}
    left = sorted(left, key=lambda run: order[run.group])
    return [list(runs) for _, runs in itertools.groupby(left, key=lambda run: run.group)]


if __name__ == "__main__":
    main()
