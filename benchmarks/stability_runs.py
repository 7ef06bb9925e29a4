"""The runs of `benchmarks/stability.py`: images, methods, and the experiments that are made of both."""

import itertools
import json
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from dcgan_jax import config as configuration
from dcgan_jax.config import RECIPES
from dcgan_jax.fields import FIELDS

# Images, by name: the row of `DATA_SETS`, the share to train by (FID is by all), and fields; "{data}" is --data.
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
SHARES = {"tenth": 0.1, "hundredth": 0.01}
SETS |= {f"cifar10_16_{name}": SETS["cifar10_16"] | {"share": share} for name, share in SHARES.items()}

AVERAGE: dict[str, Any] = {"ema_half_life": 500_000}
DECAY = AVERAGE | {"lr_decay_steps": lambda steps: steps // 2}
FASTER = DECAY | {"generator_lr": 5e-4, "discriminator_lr": 5e-4}
SPECTRAL = {"discriminator_norm": "spectral"}
LAZY_R1 = {"r1": 0.1, "penalty_every": 4}
# What the runs of an experiment train by: fields beside those of the data set; a function is of the number of steps.
# A name that is a recipe starts from it, others from 'torch'.
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
    "augment_1e-3": FASTER | {"augment": "color,translation", "generator_lr": 1e-3, "discriminator_lr": 1e-3},
    "translation_5e-4": FASTER | {"augment": "translation"},
    "augment_relativistic_5e-4": FASTER | {"augment": "color,translation", "loss": "relativistic"},
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
        Run("architectures", "digits", method, architecture(number, configuration.recipe(method)), steps, number)
        for number in range(count)
        for method in methods
    ]


def architecture(number: int, recipe: ConfigDict) -> dict[str, Any]:
    """Fields of a random network, and its learning rates within a factor of 4 of the recipe's."""
    rng = np.random.default_rng(number)
    kernel_size = int(rng.choice([3, 4, 5]))
    # Layers of stride 1 need an odd kernel.
    strides = [2, 2] if kernel_size == 4 else [[2, 2], [1, 2, 2], [2, 1, 2], [1, 2, 1, 2]][rng.integers(4)]
    width = int(rng.choice([8, 16, 32]))
    widening = itertools.accumulate(strides, lambda before, stride: before * stride, initial=1)
    activations = list(rng.choice(["relu", "leaky_relu", "tanh", "softplus"], 2))
    norms = rng.choice(["batch", "batch", "layer", "none"], 2)
    rates = np.array([recipe.generator_lr, recipe.discriminator_lr]) * 4.0 ** rng.uniform(-1, 1, 2)
    return {
        "kernel_size": kernel_size, "strides": strides,
        "features": [width * share for share in itertools.islice(widening, len(strides))],
        "generator_activation": str(activations[0]), "discriminator_activation": str(activations[1]),
        "generator_norm": str(norms[0]), "discriminator_norm": str(norms[1]),
        "generator_lr": round(float(rates[0]), 6), "discriminator_lr": round(float(rates[1]), 6),
    }  # fmt: skip


TINY = {"width": 16}
SMALL = {"width": 32}
LARGE = {"width": 64}
BOTH = ["torch", "stable"]
SHORT = {"ema_rampup": 0.05}  # the average of 'stable' when these runs were made
EXPERIMENTS: dict[str, list[Run]] = {
    "search": product("search", "cifar10_16", [name for name in METHODS if name not in RECIPES], 3000, 1, **SMALL),
    # All networks see as many images: the batch of 'paper' is twice as large.
    "seeds": [
        *product("seeds", "digits", BOTH, 2000, 10, **TINY),
        *product("seeds", "digits", ["paper"], 1000, 10, **TINY),
        *product("seeds", "cifar10_16", BOTH, 8000, 3, **SMALL),
        *product("seeds", "faces", BOTH, 1500, 1, **TINY),
        *product("seeds", "fashion_mnist", BOTH, 4000, 3, **TINY),
        *product("seeds", "fashion_mnist", ["paper"], 2000, 3, **TINY),
        *product("seeds", "cifar10_16", ["paper"], 4000, 3, **SMALL),
    ],
    "average": [
        *product("average", "digits", ["stable"], 2000, 10, **TINY, **SHORT),
        *product("average", "cifar10_16", ["stable"], 8000, 3, **SMALL, **SHORT),
        *product("average", "faces", ["stable"], 1500, 1, **TINY, **SHORT),
        *product("average", "fashion_mnist", ["stable"], 4000, 1, **TINY, **SHORT),
    ],
    "noise": [
        *product("noise", "digits", ["stable"], 2000, 10, **TINY, **SHORT, instance_noise=0.0),
        *product("noise", "digits", ["stable"], 2000, 3, **TINY, **SHORT, instance_noise=0.05),
        *product("noise", "digits", ["stable"], 2000, 10, **TINY, **SHORT, instance_noise=0.2),
        *product("noise", "cifar10_16", ["stable"], 8000, 3, **SMALL, **SHORT, instance_noise=0.0),
        *product("noise", "cifar10_16", ["stable"], 8000, 3, **SMALL, **SHORT, instance_noise=0.2),
        *product("noise", "fashion_mnist", ["stable"], 4000, 1, **TINY, **SHORT, instance_noise=0.0),
        *product("noise", "fashion_mnist", ["stable"], 4000, 1, **TINY, **SHORT, instance_noise=0.2),
        *product("noise", "faces", ["stable"], 1500, 1, **TINY, **SHORT, instance_noise=0.0),
        *product("noise", "faces", ["stable"], 1500, 1, **TINY, **SHORT, instance_noise=0.2),
        *product("noise", "cifar10_32", ["stable"], 50_000, 3, **LARGE, **SHORT, dtype="bfloat16", instance_noise=0.2),
        *product("noise", "cifar10_32", ["stable"], 50_000, 1, **LARGE, **SHORT, dtype="bfloat16", instance_noise=0.4),
    ],
    "parts": [
        *product("parts", "cifar10_16", ["stable"], 8000, 1, **SMALL, **SHORT, first_bias=False),
        *product(
            "parts", "cifar10_16", ["stable"], 8000, 1, **SMALL, **SHORT, generator_lr=2e-4, discriminator_lr=2e-4
        ),
        *product("parts", "cifar10_16", ["stable"], 8000, 1, **SMALL, **SHORT, lr_decay_share=0.0),
        *product("parts", "cifar10_16", ["stable"], 8000, 1, **SMALL, **SHORT, ema_half_life=0),
        *product("parts", "cifar10_16", ["torch"], 8000, 1, **SMALL, first_bias=True),
    ],
    "data": [
        *(run for share in SHARES for run in product("data", f"cifar10_16_{share}", BOTH, 8000, 1, **SMALL)),
        *product("data", "cifar10_16_tenth", ["stable"], 8000, 1, **SMALL, **SHORT, instance_noise=0.0),
        *product("data", "cifar10_16_tenth", ["stable"], 8000, 1, **SMALL, **SHORT, instance_noise=0.2),
        *product("data", "cifar10_16_hundredth", ["stable"], 8000, 1, **SMALL, **SHORT, instance_noise=0.0),
        *product("data", "cifar10_16_hundredth", ["stable"], 8000, 1, **SMALL, **SHORT, instance_noise=0.2),
    ],
    "length": [
        *product("length", "cifar10_16", BOTH, 40_000, 1, **SMALL),
        *product("length", "cifar10_16", ["stable"], 40_000, 1, **SMALL, **SHORT, instance_noise=0.0),
        *product("length", "faces", ["stable"], 4000, 1, **TINY),
        *product("length", "faces", ["stable"], 4000, 1, **TINY, **SHORT, instance_noise=0.2),
        *product(
            "length", "cifar10_16", ["stable"], 40_000, 1, **SMALL, **SHORT, instance_noise=0.0, augment="translation"
        ),
    ],
    "batch": [
        run
        for batch_size, steps in ((16, 8000), (256, 2000), (512, 1000))
        for run in product("batch", "cifar10_16", BOTH, steps, 1, **SMALL, batch_size=batch_size)
    ],
    # A discriminator without batch norm, by weights of R1.
    "norms": [
        *(
            run
            for images, steps, fields in (("faces", 1500, TINY), ("cifar10_16", 8000, SMALL))
            for norm in ("layer", "none")
            for penalty in ({}, LAZY_R1, LAZY_R1 | {"r1": 1.0}, LAZY_R1 | {"r1": 10.0})
            for run in product("norms", images, ["stable"], steps, 1, **fields, discriminator_norm=norm, **penalty)
        ),
        *(
            run
            for norm in ("layer", "none")
            for penalty in ({"r1": 0.0}, LAZY_R1, LAZY_R1 | {"r1": 1.0})
            for run in product(
                "norms",
                "cifar10_16",
                ["stable"],
                4000,
                1,
                **SMALL,
                generator_norm=norm,
                discriminator_norm=norm,
                **penalty,
            )
        ),
    ],
    "architectures": architectures(BOTH, 60, 2000),
    # Networks without batch norm in the discriminator, against the rule of `stable`.
    "without_r1": [
        run._replace(experiment="without_r1", fields=run.fields | {"r1": 0.0})
        for run in architectures(["stable"], 60, 2000)
        if run.fields["generator_norm"] == "none" and run.fields["discriminator_norm"] != "batch"
    ],
    "with_r1": [
        run._replace(experiment="with_r1", fields=run.fields | LAZY_R1 | {"r1": 1.0})
        for run in architectures(["stable"], 60, 2000)
        if run.fields["generator_norm"] != "none" and run.fields["discriminator_norm"] != "batch"
    ],
    # On a GPU (stability.sh). The first is what `default` was before `stable` (docs/stability.md).
    "repro": [
        run
        for dtype in ("float32", "bfloat16")
        for run in product("repro", "cifar10_32", ["plain", "stable"], 50_000, 4, **LARGE, dtype=dtype)
    ],
    "cifar10": product("cifar10", "cifar10_32", [*BOTH, "paper"], 50_000, 8, **LARGE, dtype="bfloat16"),
    "faces": product("faces", "faces", [*BOTH, "paper"], 40_000, 8, **LARGE, dtype="bfloat16"),
}
DRY = {"width": 4, "features": [], "strides": [], "dtype": "float32", "image_size": [16, 16]}  # and ten steps


def config_of(run: Run, places: dict[str, str]) -> ConfigDict:
    """The validated configuration of a run. places: what stands for the names in braces."""
    images = {name: value for name, value in SETS[run.images].items() if name not in ("set", "share")}
    recipe = run.method if run.method in RECIPES else "torch"
    config = configuration.for_data_set(SETS[run.images]["set"], recipe)
    for name, value in (images | METHODS[run.method] | run.fields).items():
        value = value(run.steps) if callable(value) else value
        value = value.format(**places) if isinstance(value, str) else value
        config.update_from_flattened_dict({name: tuple(value) if isinstance(value, list) else value})
    config.seed, config.num_steps = run.seed, run.steps
    return configuration.validate(config)


def settings(config: ConfigDict) -> dict[str, Any]:
    """The fields that are not at their defaults, but for names and places: with which a line counts as this run."""
    values = configuration.flatten(config.to_dict())
    changed = {name: value for name, value in values.items() if value != FIELDS[name].default and name != "recipe"}
    return json.loads(json.dumps({name: value for name, value in changed.items() if not name.startswith("data.")}))
