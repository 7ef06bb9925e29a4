"""The paper's figures for any run: python launch/figure.py NAME --workdir=DIR

    python launch/figure.py walk --workdir=runs/celeba
    python launch/figure.py arithmetic --workdir=runs/celeba --exemplars=1,2,3/4,5,6/7,8,9

walk             interpolation between 9 random points and back, along lines and along arcs; PNG and GIF (figure 4)
arithmetic       A - B + C, each the mean z of 3 samples: --exemplars=1,2,3/4,5,6/7,8,9 (figure 7)
turn             random samples moved along the difference of two mean z: --exemplars=1,2,3,4/5,6,7,8 (figure 8)
guided_backprop  guided backpropagation from features of the discriminator's last convolution, beside those of an
                 untrained one (figure 5); like `maximal` of a run without classes
maximal          the image patches with the highest activation of each feature
forget           samples without the feature maps that respond to what is in boxes (figure 6)
neighbours       samples beside their nearest training images, in pixels and in the discriminator's features

Exemplars are given by their numbers on a contact sheet of samples, which `arithmetic` and `turn` write if --exemplars
is missing; --exemplars=random draws some by the seed. Pictures go to DIR/figures; captions give checkpoint and seed.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cli
import image_sets
import numpy as np
from absl import flags

from dcgan_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from dcgan_jax.inference import TrainedGAN
    from dcgan_jax.interpret.pictures import Figure
    from dcgan_jax.interpret.samples import Samples

WORKDIR = flags.DEFINE_string("workdir", None, "run directory, such as runs/celeba")
STEP = flags.DEFINE(cli.StepParser(), "step", None, "step of the checkpoint, or 'best'; the newest by default")
SEED = flags.DEFINE_integer("seed", 0, "seed of the samples", 0, cli.LARGEST_SEED)
LABEL = flags.DEFINE_string("label", None, "for a conditional network: the class of all samples, by name or label")
OUT = flags.DEFINE_string("out", None, "folder for the pictures; by default DIR/figures")
NUM = flags.DEFINE_integer(
    "num",
    None,
    "how many samples: on the contact sheet (100), in the rows of turn (6), neighbours (16), forget (150)",
    lower_bound=1,
)
EXEMPLARS = flags.DEFINE_string(
    "exemplars",
    None,
    "arithmetic, turn: numbers of samples, in groups separated by /; or 'random'. neighbours: one group, of any size",
)
NOISE = flags.DEFINE_float("noise", 0.25, "arithmetic: size of the uniform noise around the result")
LAYER = flags.DEFINE_integer(
    "layer",
    None,
    "guided_backprop, maximal: convolution of the discriminator; forget: map of the generator; counted from 0",
)
FEATURES = flags.DEFINE_string("features", "first", "guided_backprop, maximal: 'first', 'active', or numbers")
COUNT = flags.DEFINE_integer("count", 6, "guided_backprop, maximal: how many features", lower_bound=1)
BOXES = flags.DEFINE_string("boxes", None, "forget: a JSON file of boxes, or TOP,LEFT,BOTTOM,RIGHT for every sample")

MAX_NOISE = 100  # far beyond any z
# The flags that each figure uses, besides those that all use.
FLAGS_USED = {
    "walk": (),
    "arithmetic": ("exemplars", "noise", "num"),
    "turn": ("exemplars", "num"),
    "guided_backprop": ("layer", "features", "count", *image_sets.TRAINING),
    "maximal": ("layer", "features", "count", *image_sets.TRAINING),
    "forget": ("layer", "boxes", "num"),
    "neighbours": ("num", "exemplars", *image_sets.TRAINING),
}
UNUSED = ("test",)  # of `image_sets`
OF_DISCRIMINATOR = ("guided_backprop", "maximal", "neighbours")


def main(name: str) -> None:
    from dcgan_jax.inference import load
    from dcgan_jax.interpret import pictures
    from dcgan_jax.interpret.samples import Samples
    from dcgan_jax.runtime import compile_cache, malloc
    from dcgan_jax.runtime.progress import Progress

    malloc.keep_freed_memory()
    compile_cache.enable()
    _check_flags(name)
    if WORKDIR.value is None:
        raise UserError("--workdir: missing, expected a run directory, such as runs/celeba")
    gan = load(WORKDIR.value, STEP.value)
    chosen = _label(gan)
    if not 0 <= NOISE.value <= MAX_NOISE:
        raise UserError(f"--noise: found {NOISE.value:g}, expected a number from 0 to {MAX_NOISE}")
    folder = cli.output(OUT.value, WORKDIR.value, "figures")
    if folder.suffix.lower() in (".png", ".jpg", ".jpeg", ".gif", ".pdf"):
        raise UserError(f"--out: found {OUT.value!r}, expected a folder, in which each figure gets a name of its own")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out: {str(folder)!r} is a file, expected a folder; pass another --out")
    samples = Samples(gan, SEED.value, chosen)
    label = f"_label_{_as_name(samples.title)}" if samples.title else ""
    names, make = _plan(name, samples)
    ending = f"{_given(name)}_step_{gan.step:08d}_seed_{SEED.value}{label}"
    files = [folder / f"{each}{ending}.{kind}" for each in names for kind in ("png", "gif")]
    _refuse_existing(files)
    with Progress(f"computing {name}"):
        figures = make()
    _refuse_existing(files)  # again: the computation may have taken minutes
    for each, figure in zip(names, figures, strict=True):
        file = folder / f"{each}{ending}.png"
        with Progress(f"drawing {file.name}"):
            caption = samples.caption(figure.text, WORKDIR.value)
            print(pictures.draw(figure.rows, caption, file, gaps=figure.gaps))
            if figure.frames is not None:
                origin = caption.splitlines()[-1]
                print(pictures.animate(figure.frames, origin, file.with_suffix(".gif")))


def _label(gan: "TrainedGAN") -> int | None:
    """The label that the flag names; None without classes."""
    from dcgan_jax.data import classes

    count = gan.config.num_classes
    if count and LABEL.value is None:
        wanted = classes.expected(count, gan.classes)
        raise UserError(f"--label: missing, expected {wanted}: this network is conditional")
    if not count and LABEL.value is not None:
        raise UserError(f"--label: found {LABEL.value}, expected none: this network was trained without classes")
    return classes.label_of(LABEL.value, count, gan.classes, "--label") if count else None


def _plan(name: str, samples: "Samples") -> "tuple[list[str], Callable[[], list[Figure]]]":
    """The names of the pictures, and a function that computes them, to be called once the pictures can be written."""
    from dcgan_jax.interpret import arithmetic, excitation, forget, guided, neighbours, walk

    gan = samples.gan
    if name in OF_DISCRIMINATOR:
        _ = gan.discriminator_variables  # a generator alone is an error before images are prepared
    if name == "walk":
        return ["walk_linear", "walk_spherical"], lambda: walk.figures(samples)
    if name in ("arithmetic", "turn") and EXEMPLARS.value is None:
        advice = {
            "arithmetic": "--exemplars=A,A,A/B,B,B/C,C,C makes A - B + C",
            "turn": "--exemplars=L,L,L,L/R,R,R,R turns samples from what is in R to what is in L",
        }[name]
        return [f"{name}_contact_sheet"], lambda: [arithmetic.contact_sheet(samples, NUM.value or 100, advice)]
    if name == "arithmetic":
        groups = arithmetic.exemplars(EXEMPLARS.value, 3, 3, SEED.value)
        return [arithmetic.named(name, groups)], lambda: [arithmetic.arithmetic(samples, groups, NOISE.value)]
    if name == "turn":
        groups, count = arithmetic.exemplars(EXEMPLARS.value, 2, 4, SEED.value), NUM.value or arithmetic.TURNED
        return [arithmetic.named(name, groups)], lambda: [arithmetic.turn(samples, groups, count)]
    if name == "guided_backprop":
        layer = excitation.layer_of(gan, LAYER.value)
        excitation.check_features(gan, layer, FEATURES.value)
        return [f"{name}_{layer}"], lambda: [
            guided.figure(gan, _real(gan), layer, FEATURES.value, COUNT.value, SEED.value)
        ]
    if name == "maximal":
        layer = excitation.layer_of(gan, LAYER.value)
        excitation.check_features(gan, layer, FEATURES.value)
        return [f"{name}_{layer}"], lambda: [excitation.figure(gan, _real(gan), layer, FEATURES.value, COUNT.value)]
    if name == "forget":
        layer, count = forget.layer_of(gan, LAYER.value), NUM.value or 150
        if BOXES.value is None:
            raise UserError(f"--boxes: missing, expected a file with {forget.EXPECTED}, or TOP,LEFT,BOTTOM,RIGHT")
        boxes = forget.boxes_of(BOXES.value, count, gan.config.image_size)
        return [name], lambda: [forget.figure(samples, boxes, layer, count)]
    if EXEMPLARS.value is None:
        return [name], lambda: [neighbours.figure(samples, _real(gan), range(NUM.value or 16))]
    group = arithmetic.exemplars(EXEMPLARS.value, 1, EXEMPLARS.value.count(",") + 1, SEED.value)
    return [arithmetic.named(name, group)], lambda: [neighbours.figure(samples, _real(gan), group[0])]


def _check_flags(name: str) -> None:
    """Raises UserError if a flag is given that this figure does not use."""
    used = set(FLAGS_USED[name])
    if name == "arithmetic":
        used.discard("num" if EXEMPLARS.value else "noise")
    if name == "neighbours" and EXEMPLARS.value:
        used.discard("num")
    for flag in sorted(set().union(UNUSED, *FLAGS_USED.values()) - used):
        if flags.FLAGS[flag].present:
            raise UserError(f"--{flag}: found {flags.FLAGS[flag].value}, expected none: this {name} makes no use of it")


def _given(name: str) -> str:
    """'_boxes_4-4-12-12_num_20': what a figure depends on, as far as flags that are not named elsewhere give it."""
    named = {"exemplars", "prepared"} if name == "forget" else {"exemplars", "prepared", "layer"}
    given = [flag for flag in FLAGS_USED[name] if flags.FLAGS[flag].present and flag not in named]
    return "".join(f"_{flag}_{_as_name(flags.FLAGS[flag].value)}" for flag in given)


def _as_name(value: object) -> str:
    """A flag's value as part of a file name; of a path its last part, and for a file a hash of what is in it."""
    from dcgan_jax.runtime.files import sha256

    text, path = str(value), Path(str(value)).expanduser()
    if path.is_file():
        text = f"{path.stem}-{sha256(path)[:8]}"
    elif path.exists():
        text = path.resolve().name
    return re.sub(r"[^\w.]+", "-", text)[:60].strip("-")


def _refuse_existing(files: list[Path]) -> None:
    for file in files:
        if file.exists() or file.is_symlink():
            raise UserError(
                f"--out: {str(file)!r} exists, of the same step, seed and flags, expected none; pass another --out, or "
                "remove it"
            )


def _real(gan: "TrainedGAN") -> np.ndarray:
    return image_sets.open_training(gan.config).images


if __name__ == "__main__":
    cli.run(main, __doc__, names=FLAGS_USED, unused=UNUSED)
