"""What a run is made of: every field of the configuration, the recipes, and the check of both.

A file in `configs/` is a lab note and a small change to what `recipe(name)` returns. One description of the layers
serves both networks: the discriminator reads it forwards, the generator, its mirror, backwards.
"""

import difflib
import math
from typing import Any

from ml_collections import ConfigDict

from dcgan_jax.errors import UserError

# Rules for what is kept of an image; data/images.py says what each does.
CROPS = ("center", "celeba108", "celeba140", "celeba178", "none")

# What a step of training measures.
METRICS = (
    *("d_loss", "g_loss", "d_real", "d_fake", "d_accuracy_real", "d_accuracy_fake", "d_saturated"),
    *("d_grad_norm", "g_grad_norm"),
)

# Steps between two of what a run does; a call of several steps ends where one is due. 0 is never.
DUE = ("log_every", "sample_every", "checkpoint_every", "eval_every")

# The layers stop halving the image before its shorter side would fall below this: the paper's 4x4 maps.
SMALLEST_MAP = 4
# Automatic widths double with each layer up to this multiple of `width`, as in the paper's 64x64 network.
WIDEST = 8


def default_config() -> ConfigDict:
    """Every field with its default: a 64x64 DCGAN with 4x4 kernels, and running on scikit-learn's digits."""
    config = ConfigDict()
    config.recipe = "default"  # the recipe it was made from: a record, changing it changes nothing
    config.seed = 0  # weights, noise and the order of the images follow from it

    # Images
    config.image_size = (64, 64)  # (height, width) in pixels; one number is a square
    config.channels = 3  # 3 for colour, 1 for grey; images are converted
    config.num_classes = 0  # 0, or the number of labels to condition both networks on
    config.data = ConfigDict()
    config.data.source = "digits"  # 'digits', 'folder', 'idx', 'tfds', 'lmdb' or 'prepared'
    config.data.path = ""  # folder: a folder, zip or tar of images; idx: the images' file; lmdb: its folder;
    # tfds: its data_dir, '' for the usual one; prepared: a prepared set, gs:// and s3:// too
    config.data.name = ""  # tfds: the name of the data set, such as 'celeb_a'
    config.data.split = "train"  # tfds: the split
    config.data.test = ""  # held-out images, for measures of quality: what data.path is (tfds: data.split) for them;
    # '': tfds's 'test', the t10k files beside idx's, or the folder 'test' beside 'train'
    config.data.crop = "center"  # what is kept of an image: 'center', 'celeba108', 'celeba140', 'celeba178', 'none'
    config.data.prepared = "data/prepared"  # folder in which prepared sets are kept
    config.data.flip = False  # mirror each image, left and right, with probability 1/2
    config.data.placement = "auto"  # 'host': read from the prepared set; 'device': all of it in the device's memory
    config.data.device_share = 0.25  # 'auto' is 'device' on an accelerator where the set fits in this share of memory

    # Networks
    config.width = 64  # features of the layer next to the image; they double with each layer, up to 8 times this
    config.features = ()  # features of each convolution of the discriminator; () derives them from width
    config.strides = ()  # stride of each of these convolutions; () means 2 for each
    config.dense = ()  # widths of hidden dense layers between the convolutions and the logit (only for MNIST)
    config.convolutional = True  # False: the dense layers alone, the GAN that the paper's MNIST table compares with
    config.kernel_size = 4  # side of the kernels; a multiple of the stride avoids checkerboards
    config.output = "tanh"  # 'tanh': networks see images in [-1, 1]; 'sigmoid': in [0, 1]
    config.latent_dim = 100  # length of z
    config.prior = "normal"  # distribution of z: 'normal', or 'uniform' in [-1, 1]
    config.norm_epsilon = 1e-5  # added to the variance in batch norm
    config.norm_momentum = 0.9  # share of the old value in a running statistic
    config.norm_affine = True  # gains and biases in batch norm
    config.norm_per_unit = False  # the generator's first batch norm: of each unit (True) or channel (False)
    config.sync_batch_norm = True  # statistics over the global batch; False: over each device's share of it

    # Training
    config.batch_size = 64  # images a step, over all devices
    config.num_steps = 20_000  # one step updates both networks once
    config.steps_per_call = 0  # steps that a call of the devices makes: a divisor of log_every, sample_every and
    # checkpoint_every; 0: one on CPUs, elsewhere up to 16. It changes the speed alone
    config.generator_lr = 2e-4  # Adam's learning rates
    config.discriminator_lr = 2e-4
    config.b1 = 0.5  # Adam's first moment: 0.9 oscillates (section 3 of the paper)
    config.b2 = 0.999
    config.l2 = 0.0  # coefficient of the L2 penalty on every parameter, added to its gradient
    config.lr_decay_steps = 0  # over this many last steps both learning rates fall linearly to zero
    config.fresh_z = False  # True: the generator learns from a z of its own, as in the paper's code
    config.ema_decay = 0.999  # moving average of the generator, from which images are made; 0: its latest weights
    config.dtype = "float32"  # of activations: 'float32' or 'bfloat16' (parameters and statistics stay float32)

    # Output
    config.log_every = 50  # steps between lines of metrics.jsonl
    config.sample_every = 500  # steps between grids of samples
    config.checkpoint_every = 1000  # steps between checkpoints; the last step always has one
    config.eval_every = 0  # steps between measures of quality, with a checkpoint each; 0: none
    config.eval_metrics = ""  # which, such as 'fid10k_train,prdc10k_train' (dcgan_jax/evaluation/recipes.py)
    config.eval_features = "inception"  # what they are taken on: 'inception', 'classifier', or 'MODULE:FUNCTION'
    config.inception_weights = ""  # file of Inception's weights; '': the one in the user's cache, fetched if need be
    config.on_collapse = "warn"  # when training has collapsed (collapse.py): 'warn', 'stop' or 'rollback'
    config.keep = 3  # newest checkpoints kept
    config.keep_best = 1  # checkpoints kept besides them: the best ones by best_metric
    config.best_metric = ""  # a metric of metrics.jsonl or evaluation.jsonl, at the checkpoint's step; '': newest alone
    config.best_is = "lowest"  # which values of best_metric are the best: 'lowest' or 'highest'
    return config


# The networks of the paper's 64x64 experiments, and the batch that they were trained with.
PAPER_NETWORK = dict(kernel_size=5, width=128, prior="uniform", norm_per_unit=True, batch_size=128)

# The network that the paper trained on ImageNet at 32x32 and probed on CIFAR-10.
IMAGENET_NETWORK = dict(
    features=(128, 128, 256, 256, 512, 512), strides=(1, 2, 1, 2, 1, 2), kernel_size=3, latent_dim=256
)

# Fields that a run may change when it is resumed: none of them alters what an already finished step computed.
# (Where images come from may change: their content is compared, by the hash that a checkpoint carries.)
MAY_CHANGE = frozenset(
    {"recipe", "num_steps", "steps_per_call", "log_every", "sample_every", "checkpoint_every"}
    | {"keep", "keep_best", "best_metric", "best_is"}
    | {"eval_every", "eval_metrics", "eval_features", "inception_weights", "on_collapse"}
    | {f"data.{name}" for name in ("source", "path", "name", "split", "test", "prepared", "placement", "device_share")}
)


def recipe(name: str = "default") -> ConfigDict:
    """A configuration by recipe.

    'default': 'torch' with a moving average of the generator, unless the file in configs/ says otherwise.
    'paper': faithful to the paper and its released code: 5x5 kernels, width 128, uniform z, batch 128, gains per
        unit in the generator's first batch norm, epsilon 1e-8, L2 1e-5 on every parameter. The released code updates
        the networks on alternate batches; a step here stands for two of its batches, one update of each. Only the
        making of images departs from it: by running statistics, so that an image does not depend on its batch.
    'torch': the widely copied 2015 port: 4x4 kernels, width 64, batch 64, Gaussian z, no moving average. (Its stride-1
        convolutions from 1x1 to 4x4 and back are the projection and the logit's dense layer here.)

    Raises UserError for another name.
    """
    config = default_config()
    config.recipe = name
    if name == "default":
        return config
    if name == "torch":
        config.ema_decay = 0.0
        return config
    if name == "paper":
        config.update(PAPER_NETWORK)
        config.norm_epsilon = 1e-8
        config.l2 = 1e-5
        config.fresh_z = True
        config.ema_decay = 0.0
        return config
    raise UserError(
        f"recipe: found {name!r}, expected one of 'default', 'paper', 'torch'; write configs/NAME.py:RECIPE"
    )


def layers(config: ConfigDict) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Features and strides of the discriminator's convolutions, from the image inwards.

    Where `features` is (), they follow from `image_size` and `width`: strided layers until the shorter side is 4 to 7
    pixels long, each twice as wide as the one before, at most 8 times `width`. Dense networks have none.
    """
    if not config.convolutional:
        return (), ()
    if config.features:
        features = tuple(config.features)
        return features, tuple(config.strides) or (2,) * len(features)
    shorter = min(config.image_size)
    depth = len(config.strides) or max(1, int(math.log2(max(1, shorter / SMALLEST_MAP))))
    features = tuple(config.width * min(2**i, WIDEST) for i in range(depth))
    return features, tuple(config.strides) or (2,) * depth


def validate(config: ConfigDict) -> ConfigDict:
    """A checked copy of the configuration, with `image_size` as (height, width).

    Raises UserError, one line, for the first mistake found.
    """
    config = ConfigDict(config.to_dict())
    _check_fields(config.to_dict(), default_config().to_dict(), prefix="")
    if len(config.image_size) == 1:
        config.image_size = tuple(config.image_size) * 2
    _check_values(config)
    _check_layers(config)
    return config


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One text a field in which two configurations differ and that a resumed run may not change."""
    # A field that is younger than the old configuration had what is now its default.
    old, new = flatten(default_config().to_dict()) | flatten(old), flatten(new)
    # With a decay at its end, a run of another length has other learning rates from the first step of the decay on.
    may_change = MAY_CHANGE - ({"num_steps"} if new.get("lr_decay_steps") else set())
    names = sorted((old.keys() | new.keys()) - may_change)
    missing = object()
    return [
        f"{name}: {old.get(name, 'absent')!r} there, {new.get(name, 'absent')!r} here"
        for name in names
        if old.get(name, missing) != new.get(name, missing)
    ]


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields by their whole names, such as 'data.path'; lists as tuples."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = tuple(value) if isinstance(value, list) else value  # JSON has no tuples
    return flat


def check_field(path: str) -> Any:
    """The default of the field of this name, such as 'data.path'. Raises UserError, with the nearest name, if none."""
    fields, prefix = default_config().to_dict(), ""
    for name in path.split("."):
        if not isinstance(fields, dict) or name not in fields:
            known = list(fields) if isinstance(fields, dict) else []
            close = difflib.get_close_matches(name, known, n=1)
            listed = f"expected one of {', '.join(known)}" if known else f"config.{prefix[:-1]} has no fields"
            advice = f"did you mean config.{prefix}{close[0]}?" if close else listed
            raise UserError(f"config.{path}: unknown field; {advice}")
        fields, prefix = fields[name], f"{prefix}{name}."
    return fields


def _check_fields(found: dict[str, Any], expected: dict[str, Any], prefix: str) -> None:
    for name in found:
        check_field(prefix + name)
    for name, default in expected.items():
        where = f"config.{prefix}{name}"
        if name not in found:
            raise UserError(f"{where}: missing; start from dcgan_jax.config.default_config()")
        value = found[name]
        if isinstance(default, dict):
            if not isinstance(value, dict):
                raise UserError(f"{where}: found {value!r}, expected the fields {', '.join(default)}")
            _check_fields(value, default, f"{prefix}{name}.")
            continue
        if isinstance(default, tuple):
            fits = isinstance(value, tuple) and all(type(item) is int for item in value)
            kind = "whole numbers such as 64,96"
        else:
            fits = type(value) is type(default) or (type(default) is float and type(value) is int)
            kind = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}[type(default)]
        if not fits:
            raise UserError(f"{where}: found {value!r}, expected {kind}")


def _check_values(config: ConfigDict) -> None:
    def field(name: str) -> Any:
        return config.data[name.removeprefix("data.")] if name.startswith("data.") else config[name]

    def need(name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise UserError(f"config.{name}: found {field(name)!r}, expected {expected}")

    need(
        "image_size", len(config.image_size) == 2 and min(config.image_size) >= 1, "height,width in pixels, or one side"
    )
    need("channels", config.channels in (1, 3), "1 (grey) or 3 (colour)")
    need("num_classes", config.num_classes == 0 or config.num_classes >= 2, "0 (no labels) or at least 2")
    for name in (
        "width",
        "kernel_size",
        "latent_dim",
        "batch_size",
        "num_steps",
        "log_every",
        "sample_every",
        "checkpoint_every",
        "keep",
    ):
        need(name, config[name] >= 1, "at least 1")
    for name in ("lr_decay_steps", "seed", "keep_best", "steps_per_call", "eval_every"):
        need(name, config[name] >= 0, "0 or more")
    need("seed", config.seed < 2**31, "less than 2**31")
    need("batch_size", config.batch_size >= 2, "at least 2, for batch norm's statistics")
    _check_steps_per_call(config)
    need("lr_decay_steps", config.lr_decay_steps <= config.num_steps, f"at most num_steps ({config.num_steps})")
    for name in ("generator_lr", "discriminator_lr", "norm_epsilon"):
        need(name, 0 < config[name] < math.inf, "a number above 0")
    for name in ("b1", "b2", "ema_decay", "norm_momentum"):
        need(name, 0 <= config[name] < 1, "a number in [0, 1)")
    need("l2", 0 <= config.l2 < math.inf, "0 or more")
    for name, choices in (
        ("data.source", ("digits", "folder", "idx", "tfds", "lmdb", "prepared")),
        ("data.crop", CROPS),
        ("data.placement", ("auto", "host", "device")),
        ("on_collapse", ("warn", "stop", "rollback")),
        ("best_is", ("lowest", "highest")),
        ("output", ("tanh", "sigmoid")),
        ("prior", ("normal", "uniform")),
        # float64 is for tests of exactness; JAX computes in it only with JAX_ENABLE_X64=1.
        ("dtype", ("float32", "bfloat16", "float64")),
    ):
        need(name, field(name) in choices, "one of " + ", ".join(map(repr, choices)))
    known = config.best_metric in ("", *METRICS)  # those of evaluation are checked where the recipes are known
    need("best_metric", known or bool(config.eval_every), "one of " + ", ".join(map(repr, ("", *METRICS))))
    need(
        "eval_metrics",
        not config.eval_every or bool(config.eval_metrics),
        "names such as 'fid10k_train' with eval_every",
    )
    need("data.device_share", 0 < config.data.device_share <= 1, "a number in (0, 1]")
    square = config.image_size[0] == config.image_size[1]
    need("data.crop", square or not config.data.crop.startswith("celeba"), "'center' or 'none' for oblong images")
    need(
        "dense", config.convolutional or len(config.dense) > 0, "widths such as 1024,1024 where convolutional is False"
    )
    for name in ("features", "strides", "dense"):
        need(name, all(item >= 1 for item in config[name]), "numbers of at least 1")


def _check_steps_per_call(config: ConfigDict) -> None:
    names, count = [name for name in DUE if config[name]], config.steps_per_call
    if count and any(config[name] % count for name in names):
        every = math.gcd(*(config[name] for name in names))
        nearest = max(smaller for smaller in range(1, count) if every % smaller == 0)
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
        smallest_overlap = config.kernel_size - stride
        if smallest_overlap < 0 or (stride == 1 and smallest_overlap % 2):
            raise UserError(
                f"config.kernel_size: found {config.kernel_size} with a stride of {stride}, expected an odd kernel "
                "for stride 1 and none smaller than the stride; "
                f"try {2 * (max(strides) // 2) + (1 if max(strides) > 2 else 3)}"
            )
    step = math.prod(strides)
    if any(side % step for side in config.image_size):
        nearest = _nearest_size(config)
        raise UserError(
            f"config.image_size: found {config.image_size}, expected multiples of {step}, the product of the "
            f"{len(strides)} strides; try --config.image_size={nearest[0]},{nearest[1]} or other strides"
        )


def _nearest_size(config: ConfigDict) -> tuple[int, ...]:
    """The nearest image size that the strides divide; as the size changes, so may the number of layers."""
    trial = ConfigDict(config.to_dict())
    while True:
        step = math.prod(layers(trial)[1])
        nearest = tuple(max(step, round(side / step) * step) for side in trial.image_size)
        if nearest == trial.image_size:
            return nearest
        trial.image_size = nearest
