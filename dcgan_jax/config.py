"""A configuration as a whole: recipes, data sets, the layers that follow from it, and the check of all fields.

A file in `configs/` selects and documents one row of `DATA_SETS`. Every field is declared in `fields.py`.
"""

import itertools
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from dcgan_jax.fields import (
    FIELDS,
    GRADIENT_PENALTIES,
    INTERVALS,
    METRICS,
    check_value,
    default_of,
    defaults,
    flatten,
    one_of,
)
from dcgan_jax.runtime.errors import UserError

# Automatic layers stop halving the image before its shorter side falls below this: the paper's 4x4 maps.
SMALLEST_MAP = 4
# Automatic widths double with each layer up to this multiple of `width`, as in the paper's 64x64 network.
MAX_WIDENING = 8

# The networks of the paper's 64x64 experiments, and the batch that they were trained with.
PAPER_NETWORK = dict(kernel_size=5, width=128, prior="uniform", norm_per_unit=True, batch_size=128)
# The network that the paper trained on ImageNet at 32x32 and probed on CIFAR-10.
IMAGENET_NETWORK = dict(
    features=(128, 128, 256, 256, 512, 512), strides=(1, 2, 1, 2, 1, 2), kernel_size=3, latent_dim=256
)
# The released network for MNIST; and what learns faster on a CPU (docs/results.md).
MNIST_NETWORK: dict[str, Any] = dict(
    features=(64, 128), dense=(1024,), kernel_size=5, prior="uniform", output="sigmoid",
    norm_affine=False, norm_epsilon=1e-8, l2=2.5e-5,
)  # fmt: skip
MNIST_SMALL = MNIST_NETWORK | dict(features=(32, 32), dense=(2048,))
MNIST_FAST: dict[str, Any] = dict(
    first_bias=False, instance_noise=0.0, generator_lr=1.5e-3, discriminator_lr=1.5e-3,
    lr_decay_steps=15_000, lr_decay_share=0.0, ema_half_life=0, ema_rampup=0.05,
)  # fmt: skip
MNIST_DENSE = dict(convolutional=False, dense=(1024, 1024))
# The network whose weights the authors released.
SVHN_RELEASED = dict(width=64, prior="normal", generator_lr=5e-4, discriminator_lr=5e-4, batch_size=64)

# What training needs to get better for as long as it runs (docs/stability.md has the evidence): a discriminator that can
# see the contrast of a batch, and cannot learn all images by heart; R1 where neither network is held by its normalisation;
# learning rates that this then allows and that fall at the end; and an average over many steps.
STABLE: dict[str, Any] = dict(
    first_bias=True, instance_noise=0.1, r1=-1.0, generator_lr=5e-4, discriminator_lr=5e-4,
    lr_decay_share=0.5, ema_half_life=500_000, ema_rampup=0.1,
)  # fmt: skip

# 'default': 'stable', with what the data set changes.
# 'stable': the network of `default_config` for all images, trained by `STABLE`.
# 'paper': faithful to the paper and its released code: 5x5 kernels, width 128, uniform z, batch 128, gains per unit in
#     the generator's first batch norm, epsilon 1e-8, L2 1e-5 on every parameter. The released code updates the networks
#     on alternate batches; a step here stands for two of its batches, one update of each. It departs from the paper only
#     in making images by running statistics, so that an image does not depend on its batch.
# 'torch': the widely copied 2015 port: 4x4 kernels, width 64, batch 64, Gaussian z, no moving average. (Its stride-1
#     convolutions from 1x1 to 4x4 and back are the projection and the logit's dense layer here.)
RECIPES: dict[str, dict[str, Any]] = {
    "default": STABLE,
    "stable": STABLE,
    "paper": PAPER_NETWORK | dict(norm_epsilon=1e-8, l2=1e-5, fresh_z=True, ema_decay=0.0),
    "torch": dict(ema_decay=0.0),
}


class DataSet(NamedTuple):
    """Images, where they usually are, and what a recipe changes for them.

    place: data.path, or for tfds data.name. steps: num_steps by recipe; these are the recipes that there are.
    """

    size: int
    channels: int
    classes: int
    source: str
    place: str
    steps: dict[str, int]
    changes: Mapping[str, dict[str, Any]] = MappingProxyType({})


def _steps(default: int, paper: int, torch: int) -> dict[str, int]:
    return {"default": default, "stable": default, "paper": paper, "torch": torch}


# Steps of 'paper' are half of the batches that the paper names, as its networks learn from alternate ones.
DATA_SETS = {
    #                       size  C  classes  source    place                            default   paper    torch
    "celeba":        DataSet(64,  3,  0, "folder", "data/img_align_celeba.zip",  _steps( 40_000,  20_000,  80_000), {"default": PAPER_NETWORK}),
    "cifar10":       DataSet(32,  3,  0, "tfds",   "cifar10",                    _steps( 50_000,  50_000,  50_000), {"paper": IMAGENET_NETWORK}),
    "digits":        DataSet(32,  1,  0, "digits", "",                           _steps(  3_000,   3_000,   3_000), {"default": {"width": 32}}),
    "fashion_mnist": DataSet(28,  1,  0, "idx",    "data/fashion_mnist",         _steps( 20_000,  20_000,  20_000)),
    "folder":        DataSet(64,  3,  0, "folder", "",                           _steps( 20_000,  20_000,  20_000)),
    "imagenet32":    DataSet(32,  3,  0, "tfds",   "imagenet_resized/32x32",     _steps(600_000, 150_000, 600_000), {"paper": IMAGENET_NETWORK}),
    "lsun_bedroom":  DataSet(64,  3,  0, "lmdb",   "data/bedroom_train_lmdb",    _steps(117_000,  58_500, 234_000), {"default": PAPER_NETWORK}),
    "mnist_conditional":
                     DataSet(28,  1, 10, "idx",    "data/mnist",                 _steps( 30_000,  39_000,  20_000) | {"dense": 30_000},
                             {"default": MNIST_SMALL | MNIST_FAST, "paper": MNIST_NETWORK | {"lr_decay_steps": 19_500}, "dense": MNIST_DENSE | MNIST_FAST}),
    "svhn":          DataSet(32,  3,  0, "tfds",   "svhn_cropped",               _steps( 50_000, 114_500,  50_000), {"paper": SVHN_RELEASED}),
}  # fmt: skip


def default_config() -> ConfigDict:
    """Every field with its default: a 64x64 DCGAN with 4x4 kernels, and running on scikit-learn's digits."""
    return ConfigDict(defaults())


def recipe(name: str = "default") -> ConfigDict:
    """The configuration of a row of `RECIPES`. Raises UserError for another name."""
    if name not in RECIPES:
        raise _unknown_recipe(name, RECIPES)
    config = default_config()
    config.recipe = name
    config.update(RECIPES[name])
    return config


def for_data_set(name: str, recipe_name: str = "default") -> ConfigDict:
    """The configuration of a row of `DATA_SETS` by one of its recipes. Raises UserError for another recipe."""
    data_set = DATA_SETS[name]
    if recipe_name not in data_set.steps:
        raise _unknown_recipe(recipe_name, data_set.steps)
    config = recipe(recipe_name if recipe_name in RECIPES else "default")
    config.recipe = recipe_name
    config.image_size = (data_set.size, data_set.size)
    config.channels, config.num_classes = data_set.channels, data_set.classes
    config.data.source = data_set.source
    config.data["name" if data_set.source == "tfds" else "path"] = data_set.place
    config.num_steps = data_set.steps[recipe_name]
    config.update(data_set.changes.get(recipe_name, {}))
    return config


def _unknown_recipe(name: str, known: Iterable[str]) -> UserError:
    return UserError(f"recipe: found {name!r}, expected {one_of(*known).expected}; write configs/NAME.py:RECIPE")


def layers(config: ConfigDict) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Features and strides of the discriminator's convolutions, from the image inwards.

    If `features` is (), they follow from `image_size` and `width`: strided layers until the shorter side is 4 to 7
    pixels long, each twice as wide as the one before, at most 8 times `width`. Dense networks have none.
    """
    if not config.convolutional:
        return (), ()
    if config.features:
        features = tuple(config.features)
        return features, tuple(config.strides) or (2,) * len(features)
    shorter = min(config.image_size)
    depth = len(config.strides) or max(1, int(math.log2(max(1, shorter / SMALLEST_MAP))))
    features = tuple(config.width * min(2**i, MAX_WIDENING) for i in range(depth))
    return features, tuple(config.strides) or (2,) * depth


def validate(config: ConfigDict) -> ConfigDict:
    """A checked copy of the configuration, with `image_size` as (height, width) and no automatic `r1`.

    Raises UserError, one line, for the first mistake found.
    """
    config = ConfigDict(config.to_dict())
    values = flatten(config.to_dict())
    for name in values:
        default_of(name)
    for name in FIELDS:
        check_value(name, values)
    if len(config.image_size) == 1:
        config.image_size = tuple(config.image_size) * 2
    if config.r1 == -1:
        without = config.generator_norm == "none" and config.discriminator_norm not in ("batch", "spectral")
        others = any(config[name] for name in GRADIENT_PENALTIES if name != "r1")
        config.update(dict(r1=1.0, penalty_every=4) if without and not others else dict(r1=0.0))
    _check_together(config)
    _check_steps_per_call(config)
    _check_layers(config)
    _check_sizes(config)
    return config


def best_by(config: Mapping[str, Any]) -> tuple[str, str]:
    """The metric that the best checkpoint is chosen by, '' if there is none; and 'lowest' or 'highest'.

    config: whole, but for fields that are younger than it.
    """
    if config["best_metric"]:
        return config["best_metric"], config["best_is"]
    asked = config["eval_metrics"].split(",") if config["eval_every"] else []
    fids = [name.strip() for name in asked if name.strip().startswith("fid")]
    return next(iter(fids), "quality" if config.get("quality") else ""), "lowest"


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One text for each field in which two configurations differ and that a resumed run may not change."""
    # A field that is younger than the old configuration had what is now its default.
    old, new = flatten(default_config().to_dict()) | flatten(old), flatten(new)
    may_change = {name for name, field in FIELDS.items() if field.may_change}
    # With a decay over so many steps, num_steps sets when it begins. Over a share, a run that is made longer rises again.
    may_change -= {"num_steps"} if new.get("lr_decay_steps") else set()
    names = sorted((old.keys() | new.keys()) - may_change)
    missing = object()
    return [
        f"{name}: {old.get(name, 'absent')!r} there, {new.get(name, 'absent')!r} here"
        for name in names
        if old.get(name, missing) != new.get(name, missing)
    ]


def _check_together(config: ConfigDict) -> None:
    """Values that depend on one another."""
    square = config.image_size[0] == config.image_size[1]
    own = ("", "quality", *METRICS)
    known = config.best_metric in own  # those of an evaluation are checked when it is built
    measured = config.quality or config.best_metric != "quality"
    of_gradients = [name for name in GRADIENT_PENALTIES if config[name]]
    coloured = config.channels in (1, 3, 4) or "color" not in config.augment
    smoothable = not config.label_smoothing or config.loss == "non_saturating"
    for name, holds, expected in (
        (
            "discriminator_norm",
            not of_gradients or config.discriminator_norm != "batch",
            f"'none', 'spectral', 'layer' or 'group' with {' and '.join(of_gradients)}: with batch norm a logit depends on the whole batch, and has no gradient of its own",
        ),
        ("augment", coloured, "translation,cutout: 'color' is of 1, 3 or 4 channels"),
        ("label_smoothing", smoothable, "0 with another loss than 'non_saturating'"),
        ("lr_decay_steps", config.lr_decay_steps <= config.num_steps, f"at most num_steps ({config.num_steps})"),
        ("best_metric", known or config.eval_every > 0, one_of(*own).expected),
        ("best_metric", measured, "another metric, as quality is False"),
        ("eval_metrics", config.eval_metrics or not config.eval_every, "names such as 'fid10k_train' with eval_every"),
        ("data.crop", square or not config.data.crop.startswith("celeba"), "'center' or 'none' for oblong images"),
        ("dense", config.convolutional or config.dense, "widths such as 1024,1024 if convolutional is False"),
    ):
        if not holds:
            raise UserError(f"config.{name}: found {flatten(config.to_dict())[name]!r}, expected {expected}")


def _check_steps_per_call(config: ConfigDict) -> None:
    names, count = [name for name in INTERVALS if config[name]], config.steps_per_call
    if count and any(config[name] % count for name in names):
        every = math.gcd(*(config[name] for name in names))
        nearest = max(smaller for smaller in range(1, min(count, every) + 1) if every % smaller == 0)
        raise UserError(
            f"config.steps_per_call: found {count}, expected 0 or a number that divides "
            f"{', '.join(f'{name} ({config[name]})' for name in names)}; try {nearest}"
        )


def _check_layers(config: ConfigDict) -> None:
    features, strides = layers(config)
    if len(features) != len(strides):
        raise UserError(
            f"config.strides: found {len(strides)} strides for {len(features)} layers, expected one each; "
            "give features and strides of the same length"
        )
    for stride in strides:
        overlap = config.kernel_size - stride
        if overlap < 0 or (stride == 1 and overlap % 2):
            raise UserError(
                f"config.kernel_size: found {config.kernel_size} with a stride of {stride}, expected an odd kernel "
                "for stride 1 and none smaller than the stride; "
                f"try {2 * (max(strides) // 2) + (1 if max(strides) > 2 else 3)}"
            )
    total = math.prod(strides)
    if any(side % total for side in config.image_size):
        nearest = _nearest_size(config)
        raise UserError(
            f"config.image_size: found {config.image_size}, expected multiples of {total}, the product of the "
            f"{len(strides)} strides; try --config.image_size={nearest[0]},{nearest[1]} or other strides"
        )


def _check_sizes(config: ConfigDict) -> None:
    """Refuses what would fit nowhere: arrays have int32 indices. The memory of this machine is not known here."""
    features, strides = layers(config)
    kernels, pixels = (config.channels, *features), math.prod(config.image_size)
    dense = (pixels // math.prod(strides) ** 2 * kernels[-1], *config.dense, config.latent_dim)
    weights = sum(config.kernel_size**2 * ins * outs for ins, outs in itertools.pairwise(kernels))
    weights += sum(ins * outs for ins, outs in itertools.pairwise(dense))
    if weights >= 2**31:
        raise UserError(f"config.width: found {weights:.1e} weights in a network, expected less than 2**31; lower it")
    if (total := config.batch_size * pixels) >= 2**31:
        raise UserError(f"config.batch_size: found {total:.1e} pixels in a batch, expected less than 2**31; lower it")


def _nearest_size(config: ConfigDict) -> tuple[int, ...]:
    """The nearest image size that the strides divide; as the size changes, so may the number of layers."""
    trial = ConfigDict(config.to_dict())
    while True:
        total = math.prod(layers(trial)[1])
        nearest = tuple(max(total, round(side / total) * total) for side in trial.image_size)
        if nearest == trial.image_size:
            return nearest
        trial.image_size = nearest
