"""Every field of a configuration, declared once: default, meaning, allowed values, and whether a resumed run may change it.

`config.validate`, `launch/train.py --help_config`, docs/config.md and the check of a resumed run all follow from `SECTIONS`.
"""

import difflib
import math
import re
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

from dcgan_jax.runtime.errors import UserError

# What a step of training measures.
METRICS = (
    *("d_loss", "g_loss", "d_real", "d_fake", "d_accuracy_real", "d_accuracy_fake", "d_saturated"),
    *("d_grad_norm", "g_grad_norm"),
)
# Fields that say how many steps lie between two of something; 0 is never.
INTERVALS = ("log_every", "sample_every", "checkpoint_every", "eval_every")

# The penalties that differentiate the discriminator with respect to images; they may be lazy.
GRADIENT_PENALTIES = ("r1", "r2", "gradient_penalty", "dragan")


# Far beyond what a DCGAN can be trained on. Counts are int32 on the devices.
MAX_SIDE = 4096
MAX_CHANNELS = 256
LARGEST_COUNT = 2**31 - 1


class Check(NamedTuple):
    """A test of a field's value, and what an error says was expected."""

    holds: Callable[[Any], bool]
    expected: str


ANY = Check(lambda value: True, "any value")
AT_LEAST_1 = Check(lambda value: value >= 1, "at least 1")
NOT_NEGATIVE = Check(lambda value: 0 <= value < math.inf, "0 or more")
ABOVE_0 = Check(lambda value: 0 < value < math.inf, "a number above 0")
BELOW_1 = Check(lambda value: 0 <= value < 1, "a number in [0, 1)")
UP_TO_1 = Check(lambda value: 0 <= value <= 1, "a number in [0, 1]")
SHARE = Check(lambda value: 0 < value <= 1, "a number in (0, 1]")
EACH_AT_LEAST_1 = Check(lambda value: all(item >= 1 for item in value), "numbers of at least 1")


def one_of(*choices: Any) -> Check:
    """The value must be one of these."""
    return Check(lambda value: value in choices, "one of " + ", ".join(map(repr, choices)))


class Field(NamedTuple):
    """One field. may_change: a resumed run may change it, since it does not alter what finished steps computed."""

    default: Any
    help: str
    check: Check = ANY
    may_change: bool = False


# Where images come from may change: their content is compared, by the hash that a checkpoint carries.
_SOURCES = one_of("digits", "folder", "array", "parquet", "webdataset", "idx", "tfds", "lmdb", "prepared")
_CROPS = one_of("center", "celeba108", "celeba140", "celeba178", "none")
_SIZE = Check(
    lambda size: len(size) in (1, 2) and 1 <= min(size) <= max(size) <= MAX_SIDE,
    f"height,width in pixels, or one side, up to {MAX_SIDE}",
)
_SEED = Check(lambda seed: 0 <= seed < 2**31, "0 or more, and less than 2**31")
_BATCH = Check(lambda size: size >= 2, "at least 2, for batch norm's statistics")
_CLASSES = Check(lambda count: count == 0 or count >= 2, "0 (no labels) or at least 2")
_AUGMENTS = Check(
    lambda names: not names or set(names.split(",")) <= {"color", "translation", "cutout"},
    "'', or some of color,translation,cutout",
)
_ACTIVATIONS = one_of("relu", "leaky_relu", "tanh", "softplus")
_AUTOMATIC = Check(lambda value: value == -1 or 0 <= value < math.inf, "-1, or 0 or more")
_BETA_END = Check(lambda value: value == -1 or 0 <= value < 1, "-1, or a number in [0, 1)")
_UPDATES = Check(lambda count: 1 <= count <= 100, "1 to 100: each is compiled by itself")
_PROFILE = Check(
    lambda text: re.fullmatch(r"(\d{1,9}:[1-9]\d{0,8})?", text) is not None,
    "'', or START:STEPS such as 100:20, with at least one step",
)
_CHANNELS = Check(
    lambda count: 1 <= count <= MAX_CHANNELS,
    f"1 (grey), 3 (colour), 4 (colour and opacity), or of arrays any number up to {MAX_CHANNELS}",
)

SECTIONS: dict[str, dict[str, Field]] = {
    "Run": {
        "recipe": Field("default", "the recipe it was made from; for information only", ANY, True),
        "seed": Field(0, "weights, noise and the order of the images follow from it", _SEED),
        "init": Field("", "a run directory: the networks of its newest checkpoint are what this run starts from, with new optimizers; '': untrained networks"),
    },
    "Images": {
        "image_size": Field((64, 64), "(height, width) in pixels; one number is a square", _SIZE),
        "channels": Field(3, "3 for colour, 1 for grey, 4 for colour with transparency: images are converted; or the channels of arrays (docs/data.md)", _CHANNELS),
        "num_classes": Field(0, "0, or the number of labels to condition both networks on", _CLASSES),
        "data.source": Field("digits", "the kind of source (docs/data.md)", _SOURCES, True),
        "data.path": Field("", "folder: a folder, zip or tar of images, and what parquet and webdataset read; array: an .npy, an .npz, or a folder of .npy; parquet: a folder of parquet or arrow files, or hf://datasets/OWNER/NAME; webdataset: a folder of tars; idx: the images' file; lmdb: its folder; tfds: its data_dir, '' for the usual one; prepared: a prepared set, gs:// and s3:// too", ANY, True),
        "data.name": Field("", "tfds: the name of the data set, such as 'celeb_a'; array: of the images, if a file or folder holds several arrays; parquet: the columns of pictures and labels, 'image' or 'image,label'; webdataset: their endings, 'jpg,cls'; '': the usual ones", ANY, True),
        "data.split": Field("train", "tfds: the split; folder, array, parquet, webdataset: the split that is taken, if folders, files or arrays are called train, test or val", ANY, True),
        "data.test": Field("", "held-out images, for measures of quality: as data.path (tfds: as data.split); '': tfds's 'test', the t10k files beside idx's, or the split 'test', else 'val', beside 'train'", ANY, True),
        "data.unreadable": Field(0.01, "the largest share of images that may be unreadable, and are then left out", UP_TO_1, True),
        "data.crop": Field("center", "which part of an image is used", _CROPS),
        "data.prepared": Field("data/prepared", "folder in which prepared sets are kept", ANY, True),
        "data.flip": Field(False, "mirror each image, left and right, with probability 1/2"),
        "data.placement": Field("auto", "'host': read from the prepared set; 'device': all images in the device's memory", one_of("auto", "host", "device"), True),
        "data.device_share": Field(0.25, "'auto' means 'device' on an accelerator if the set fits in this share of its memory", SHARE, True),
    },
    "Networks": {
        "width": Field(64, "features of the layer next to the image; they double with each layer, up to 8 times this", AT_LEAST_1),
        "features": Field((), "features of each convolution of the discriminator; () derives them from width", EACH_AT_LEAST_1),
        "strides": Field((), "stride of each of these convolutions; () means 2 for each", EACH_AT_LEAST_1),
        "dense": Field((), "widths of hidden dense layers between the convolutions and the logit (only for MNIST)", EACH_AT_LEAST_1),
        "convolutional": Field(True, "False: the dense layers alone, the GAN that the paper's MNIST table compares with"),
        "kernel_size": Field(4, "side of the kernels; a multiple of the stride avoids checkerboards", AT_LEAST_1),
        "output": Field("tanh", "'tanh': networks see images in [-1, 1]; 'sigmoid': in [0, 1]", one_of("tanh", "sigmoid")),
        "latent_dim": Field(100, "length of z", AT_LEAST_1),
        "prior": Field("normal", "distribution of z: 'normal', or 'uniform' in [-1, 1]", one_of("normal", "uniform")),
        "generator_activation": Field("relu", "nonlinearity of the generator (guideline 4 of the paper)", _ACTIVATIONS),
        "discriminator_activation": Field("leaky_relu", "nonlinearity of the discriminator (guideline 5)", _ACTIVATIONS),
        "generator_norm": Field("batch", "normalisation of the generator; 'none' and 'spectral' give all layers biases", one_of("batch", "layer", "group", "none")),
        "discriminator_norm": Field("batch", "normalisation of the discriminator; 'spectral' is of its weights", one_of("batch", "spectral", "layer", "group", "none")),
        "first_bias": Field(False, "a bias in the discriminator's first layer, without which it cannot see the contrast of a batch (docs/stability.md)"),
        "last_bias": Field(False, "a bias in the last layer of both networks, as in some that are imported"),
        "norm_epsilon": Field(1e-5, "added to the variance in batch norm", ABOVE_0),
        "norm_momentum": Field(0.9, "share of the old value in a running statistic", BELOW_1),
        "norm_affine": Field(True, "gains and biases in batch norm"),
        "norm_per_unit": Field(False, "the generator's first batch norm: for each unit (True) or channel (False)"),
        "sync_batch_norm": Field(True, "statistics over the global batch; False: over each device's share of it"),
    },
    "Training": {
        "batch_size": Field(64, "images of one update, over all devices", _BATCH),
        "num_steps": Field(20_000, "one step updates the generator once", AT_LEAST_1, True),
        "steps_per_call": Field(0, "steps in one call of the devices: a divisor of log_every, sample_every and checkpoint_every; 0: one on CPUs, elsewhere up to 16. It changes the speed alone", NOT_NEGATIVE, True),
        "generator_lr": Field(2e-4, "learning rate of the generator's Adam", ABOVE_0),
        "discriminator_lr": Field(2e-4, "learning rate of the discriminator's Adam", ABOVE_0),
        "b1": Field(0.5, "Adam's first moment: 0.9 oscillates (section 3 of the paper)", BELOW_1),
        "b2": Field(0.999, "Adam's second moment", BELOW_1),
        "l2": Field(0.0, "coefficient of the L2 penalty on every parameter, added to its gradient", NOT_NEGATIVE),
        "lr_decay_steps": Field(0, "over this many last steps both learning rates fall; 0: by lr_decay_share", NOT_NEGATIVE),
        "lr_decay_share": Field(0.0, "the share of num_steps, at its end, over which they fall; if num_steps is raised later, they rise again", UP_TO_1),
        "lr_decay_shape": Field("linear", "how they fall", one_of("linear", "cosine")),
        "lr_end": Field(0.0, "the share of them that is left at the last step", BELOW_1),
        "lr_warmup_steps": Field(0, "over this many first steps both learning rates rise linearly from zero", NOT_NEGATIVE),
        "fresh_z": Field(False, "True: the generator learns from a z of its own, as in the paper's code"),
        "ema_decay": Field(0.999, "moving average of the generator, from which images are made; 0: its latest weights", BELOW_1),
        "ema_half_life": Field(0, "in place of ema_decay: half of the average's weight lies on the last so many images, or ema_rampup of all so far if these are fewer; 0: ema_decay", NOT_NEGATIVE),
        "ema_rampup": Field(0.05, "the largest share of all images so far that ema_half_life may be", SHARE),
        # float64 is for tests of exactness; JAX computes in it only with JAX_ENABLE_X64=1.
        "dtype": Field("float32", "dtype of activations (parameters and statistics stay float32)", one_of("float32", "bfloat16", "float64")),
    },
    "Stability": {
        "loss": Field("non_saturating", "the adversarial loss (docs/stability.md)", one_of("non_saturating", "hinge", "least_squares", "wasserstein", "relativistic")),
        "label_smoothing": Field(0.0, "subtracted from the label 1 of real images; for 'non_saturating'", BELOW_1),
        "discriminator_steps": Field(1, "updates of the discriminator in a step, each with images of its own", _UPDATES),
        "r1": Field(0.0, "weight of half the squared gradient at real images; -1: 1, every 4 updates, if the generator has no norm, the discriminator neither batch nor spectral norm, and no other of these penalties is set; otherwise 0", _AUTOMATIC),
        "r2": Field(0.0, "weight of half the squared gradient at generated images", NOT_NEGATIVE),
        "gradient_penalty": Field(0.0, "weight of WGAN-GP's penalty; usually 10", NOT_NEGATIVE),
        "dragan": Field(0.0, "weight of DRAGAN's penalty; usually 10", NOT_NEGATIVE),
        "penalty_every": Field(1, "updates of the discriminator from one of these four penalties to the next, each that many times as strong", AT_LEAST_1),
        "consistency_real": Field(0.0, "weight of the squared change of logits when real images are flipped and shifted; usually 10", NOT_NEGATIVE),
        "consistency_fake": Field(0.0, "the same for generated images", NOT_NEGATIVE),
        "augment": Field("", "of all images that the discriminator sees, in both updates: some of DiffAugment's color,translation,cutout", _AUGMENTS),
        "instance_noise": Field(0.0, "standard deviation of noise on all images that the discriminator sees; it falls to 0 over burn_in_steps", NOT_NEGATIVE),
        "burn_in_steps": Field(0, "over this many first steps betas, weights of penalties and instance noise move to their ends; 0: they stay", NOT_NEGATIVE),
        "b1_end": Field(-1.0, "b1 after burn_in_steps; -1: the same", _BETA_END),
        "b2_end": Field(-1.0, "b2 after burn_in_steps; -1: the same", _BETA_END),
        "penalty_end": Field(1.0, "the share of the weights of penalties after burn_in_steps", NOT_NEGATIVE),
    },
    "Output": {
        "log_every": Field(50, "steps between lines of metrics.jsonl", AT_LEAST_1, True),
        "sample_every": Field(500, "steps between grids of samples", AT_LEAST_1, True),
        "checkpoint_every": Field(1000, "steps between checkpoints; the last step always has one", AT_LEAST_1, True),
        "eval_every": Field(0, "steps between measures of quality, with a checkpoint each; 0: none", NOT_NEGATIVE, True),
        "eval_metrics": Field("", "which measures, such as 'fid10k_train,prdc10k_train' (docs/evaluation.md)", ANY, True),
        "eval_features": Field("inception", "the features they are taken on: 'inception', 'classifier', or 'MODULE:FUNCTION'", ANY, True),
        "inception_weights": Field("", "file of Inception's weights; '': the one in the user's cache, fetched if need be", ANY, True),
        "logger": Field("", "also pass metrics, samples and the configuration on, to Weights & Biases or trackio, if it is installed (docs/guide.md)", one_of("", "wandb", "trackio"), True),
        "profile": Field("", "START:STEPS, such as 100:20: a trace of 20 steps from step 100 on, by JAX's profiler, in WORKDIR/profile; '': none", _PROFILE, True),
        "quality": Field(True, "measure samples at each checkpoint, without labels or downloaded weights (docs/reliability.md)", ANY, True),
        "on_collapse": Field("warn", "what happens when training has collapsed or got much worse (docs/reliability.md)", one_of("warn", "stop", "rollback"), True),
        "keep": Field(3, "newest checkpoints kept", AT_LEAST_1, True),
        "keep_best": Field(1, "checkpoints kept besides them: the best ones by best_metric", NOT_NEGATIVE, True),
        "best_metric": Field("", "a metric of metrics.jsonl or evaluation.jsonl, at the checkpoint's step; '': the first fid of eval_metrics, else quality", ANY, True),
        "best_is": Field("lowest", "which values of best_metric are the best", one_of("lowest", "highest"), True),
    },
}  # fmt: skip
FIELDS = {name: field for section in SECTIONS.values() for name, field in section.items()}


def defaults() -> dict[str, Any]:
    """The default of every field, nested as a configuration is."""
    nested: dict[str, Any] = {"data": {}}
    for name, field in FIELDS.items():
        section, _, key = name.rpartition(".")
        (nested[section] if section else nested)[key] = field.default
    return nested


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by whole field names, such as 'data.path'; lists as tuples."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = tuple(value) if isinstance(value, list) else value  # JSON has no tuples
    return flat


def check_value(name: str, values: dict[str, Any]) -> None:
    """Raises UserError unless the value of this field, among all values by name, is there and allowed."""
    if name not in values:
        raise UserError(f"config.{name}: missing; start from dcgan_jax.config.default_config()")
    field, value = FIELDS[name], values[name]
    if isinstance(field.default, tuple):
        fits = isinstance(value, tuple) and all(type(item) is int for item in value)
        kind = "whole numbers such as 64,96"
    else:
        fits = type(value) is type(field.default) or (type(field.default) is float and type(value) is int)
        kind = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}[type(field.default)]
    if not fits:
        raise UserError(f"config.{name}: found {value!r}, expected {kind}")
    if any(type(item) is int and item > LARGEST_COUNT for item in (value if isinstance(value, tuple) else (value,))):
        raise UserError(f"config.{name}: found {value!r}, expected less than 2**31")
    if not field.check.holds(value):
        raise UserError(f"config.{name}: found {value!r}, expected {field.check.expected}")


def default_of(path: str) -> Any:
    """The default of the field of this name, such as 'data.path'. Raises UserError, with the nearest name, if none."""
    fields, prefix = defaults(), ""
    for name in path.split("."):
        if not isinstance(fields, dict) or name not in fields:
            known = list(fields) if isinstance(fields, dict) else []
            close = difflib.get_close_matches(name, known, n=1)
            listed = f"expected one of {', '.join(known)}" if known else f"config.{prefix[:-1]} has no fields"
            advice = f"did you mean config.{prefix}{close[0]}?" if close else listed
            raise UserError(f"config.{path}: unknown field; {advice}")
        fields, prefix = fields[name], f"{prefix}{name}."
    return fields


def help_text() -> str:
    """All fields with their defaults, as `launch/train.py --help_config` shows them."""
    lines = []
    for title, fields in SECTIONS.items():
        lines += [f"{title}:"] + [
            f"  --config.{name}={shown(field.default)}  {field.help}" for name, field in fields.items()
        ]
    return "\n".join(lines)


def names_text() -> str:
    """The names of all fields, as `launch/train.py --help` shows them."""
    lines = ["Fields of a configuration, --config.NAME=VALUE; --help_config explains them:"]
    for title, fields in SECTIONS.items():
        names = textwrap.wrap(" ".join(fields), width=100)
        lines += [f"  {title if i == 0 else '':10}  {line}" for i, line in enumerate(names)]
    return "\n".join(lines)


def markdown() -> str:
    """The text of docs/config.md: `python -m dcgan_jax.fields > docs/config.md`."""
    text = "# Every field of a configuration\n\n"
    text += "`--config.NAME=VALUE` on the command line. Fields marked with * may be changed when a run is resumed.\n"
    for title, fields in SECTIONS.items():
        text += f"\n## {title}\n\n| field | default | allowed | meaning |\n|---|---|---|---|\n"
        for name, field in fields.items():
            allowed = "" if field.check is ANY else field.check.expected
            mark = " *" if field.may_change else ""
            text += f"| `{name}`{mark} | `{shown(field.default) or repr('')}` | {allowed} | {field.help} |\n"
    return text


def shown(value: Any) -> str:
    """A value as a flag takes it: 0.0001, True, 32,64."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    print(markdown(), end="")
