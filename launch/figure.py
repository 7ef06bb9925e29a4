"""The paper's figures, of any run: python launch/figure.py NAME --workdir=DIR

walk             between 9 random points, and back: along straight lines and along arcs; PNG and GIF (figure 4)
arithmetic       A - B + C, each the mean z of 3 samples: --exemplars=1,2,3/4,5,6/7,8,9 (figure 7)
turn             random samples moved along the mean z of one group less that of another: --exemplars=1,2,3,4/5,6,7,8
                 (figure 8)
guided_backprop  what excites features of the discriminator's last convolution, beside an untrained one's (figure 5)
maximal          the image patches that excite features most
forget           samples without the feature maps that go with what is in boxes (figure 6)
neighbours       samples beside the training images nearest in pixels and in the discriminator's features

The numbers of exemplars are those of a contact sheet of samples, which `arithmetic` and `turn` write where no exemplars
are given. Pictures go to DIR/figures, each with the checkpoint and the seed in its caption.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import cli
import image_sets
import numpy as np
from absl import flags

from dcgan_jax.errors import UserError, writable_path

if TYPE_CHECKING:
    from dcgan_jax.inference import TrainedGAN

WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run, such as runs/celeba")
STEP = flags.DEFINE_integer("step", None, "checkpoint; the newest by default")
SEED = flags.DEFINE_integer("seed", 0, "which samples")
LABEL = flags.DEFINE_integer("label", None, "for a conditional network: the class of all samples")
OUT = flags.DEFINE_string("out", None, "folder for the pictures; DIR/figures by default")
NUM = flags.DEFINE_integer(
    "num", None, "how many samples: on the contact sheet (100), in the rows of turn (6), neighbours (16), forget (150)"
)
EXEMPLARS = flags.DEFINE_string("exemplars", None, "arithmetic, turn: numbers of samples, groups apart by /")
NOISE = flags.DEFINE_float("noise", 0.25, "arithmetic: uniform noise of this size around the result")
LAYER = flags.DEFINE_integer(
    "layer", None, "guided_backprop, maximal: convolution of the discriminator; forget: map of the generator; from 0"
)
FEATURES = flags.DEFINE_string("features", "first", "guided_backprop, maximal: 'first', 'active', or numbers")
COUNT = flags.DEFINE_integer("count", 6, "guided_backprop, maximal: how many features, first or most active")
BOXES = flags.DEFINE_string("boxes", None, "forget: a JSON file of boxes, or TOP,LEFT,BOTTOM,RIGHT for every sample")

STEPS = 10  # of a walk from each point to the next
POINTS = 9
PATCHES = 8  # of one feature


def main(name: str) -> None:
    from dcgan_jax import compilation, heap
    from dcgan_jax.inference import load

    heap.keep()
    compilation.remember()
    if WORKDIR.value is None:
        raise UserError("--workdir: missing, expected the folder of a run, such as runs/celeba")
    gan = load(WORKDIR.value, STEP.value)
    classes = gan.config.num_classes
    if classes and LABEL.value is None:
        raise UserError(f"--label: missing, expected a class from 0 to {classes - 1}: this network is conditional")
    if not classes and LABEL.value is not None:
        raise UserError(f"--label: found {LABEL.value}, expected none: this network was trained without classes")
    writable_path(_folder(), "--out")
    for file in FIGURES[name](gan):
        print(file)


def walk(gan: "TrainedGAN") -> list[Path]:
    from dcgan_jax import latent
    from dcgan_jax.interpret import pictures

    points = gan.latents(np.arange(POINTS), SEED.value)
    files = []
    for between in (latent.linear, latent.spherical):
        frames = _images(gan, np.asarray(latent.walk(points, STEPS, between)).reshape(-1, gan.latent_dim))
        rows = [
            pictures.Row(f"{i + 1} to {(i + 1) % POINTS + 1}", frames[i * STEPS : (i + 1) * STEPS])
            for i in range(POINTS)
        ]
        name = between.__name__
        way = {"linear": "straight lines", "spherical": "arcs"}[name]
        text = f"A walk along {way} in z through {POINTS} random points and back to the first, {STEPS} steps a row."
        files.append(pictures.draw(rows, _caption(gan, text), _file(gan, f"walk_{name}")))
        files.append(pictures.animate(frames, _file(gan, f"walk_{name}", "gif")))
    return files


def arithmetic(gan: "TrainedGAN") -> list[Path]:
    from dcgan_jax.interpret import pictures

    groups = _exemplars(3, 3)
    if groups is None:
        return _contact_sheet(gan, "--exemplars=A,A,A/B,B,B/C,C,C makes A - B + C")
    z = [gan.latents(np.array(group), SEED.value) for group in groups]
    images = [_images(gan, group) for group in z]
    means = np.stack([group.mean(0) for group in z])
    result = means[0] - means[1] + means[2]
    noise = np.random.default_rng(SEED.value).uniform(-NOISE.value, NOISE.value, (8, gan.latent_dim))
    around = np.concatenate([(result + noise[:4]), result[None], (result + noise[4:])]).astype(np.float32)
    neighbours = _images(gan, around)
    rows = []
    for letter, group, shown, mean in zip("ABC", groups, images, means, strict=True):
        both = np.concatenate([shown, _images(gan, mean[None])])
        rows.append(pictures.Row(letter, both, (*map(str, group), "mean z")))
    for i, label in enumerate(("", "A - B + C", "")):
        rows.append(pictures.Row(label, neighbours[3 * i : 3 * i + 3]))
    pixels = [group.astype(np.float64) for group in images]
    control = [one - two + three for one, two, three in zip(*pixels, strict=True)]
    control.append(np.mean(pixels[0], 0) - np.mean(pixels[1], 0) + np.mean(pixels[2], 0))
    rows.append(pictures.Row("in pixels", np.clip(np.rint(control), 0, 255).astype(np.uint8), ("", "", "", "of means")))
    text = (
        f"A - B + C of the mean z of 3 samples each. The middle of the square is the result, around it the same with "
        f"uniform noise of {NOISE.value:g}. Last row: the same arithmetic on pixels, of each column and of the means."
    )
    name = "arithmetic_" + "_".join("-".join(map(str, group)) for group in groups)
    return [pictures.draw(rows, _caption(gan, text), _file(gan, name), gaps=(3,))]


def turn(gan: "TrainedGAN") -> list[Path]:
    from dcgan_jax.interpret import pictures

    groups = _exemplars(2, 4)
    if groups is None:
        return _contact_sheet(gan, "--exemplars=L,L,L,L/R,R,R,R turns samples from what is in R to what is in L")
    z = [gan.latents(np.array(group), SEED.value) for group in groups]
    vector = z[0].mean(0) - z[1].mean(0)
    shares = np.linspace(-1, 1, 9, dtype=np.float32)
    rows = [
        pictures.Row(letter, _images(gan, group), tuple(map(str, numbers)))
        for letter, group, numbers in zip("LR", z, groups, strict=True)
    ]
    # Other samples than the contact sheet's exemplars.
    start = max(max(group) for group in groups) + 1
    numbers = np.arange(start, start + (NUM.value or 6))
    for i, (number, point) in enumerate(zip(numbers, gan.latents(numbers, SEED.value), strict=True)):
        titles = tuple(f"{share:+.2f}" if share else "itself" for share in shares) if i == 0 else ()
        rows.append(pictures.Row(f"sample {number}", _images(gan, point + shares[:, None] * vector), titles))
    text = "The turn vector, the mean z of L less that of R, added to samples in shares from -1 to 1."
    name = "turn_" + "_".join("-".join(map(str, group)) for group in groups)
    return [pictures.draw(rows, _caption(gan, text), _file(gan, name))]


def guided_backprop(gan: "TrainedGAN") -> list[Path]:
    from dcgan_jax.inference import untrained
    from dcgan_jax.interpret import excitation, guided, pictures, receptive

    layer, images = _layer(gan), _real(gan)
    rows, numbers = [], []
    for name, network in (("trained", gan), ("random", untrained(gan.config, SEED.value).with_statistics_of(images))):
        found = excitation.peaks(network, images, layer, PATCHES)
        field = receptive.field(network.discriminator, layer)
        numbers.append(_features(network, found, layer))
        for feature in numbers[-1]:
            chosen = np.asarray(images[found.images[feature]])
            places = found.rows[feature], found.columns[feature]
            which = np.full(len(chosen), feature)
            gradients = guided.backpropagate(network, chosen, layer, which, *places)
            pairs = zip(chosen, map(guided.shown, gradients), *places, strict=True)
            patches = [
                receptive.patch(picture, row, column, field)
                for image, gradient, row, column in pairs
                for picture in (gradient, image)
            ]
            rows.append(pictures.Row(f"{name}\nfeature {feature}", np.stack(patches)))
    text = (
        f"Guided backpropagation of features of convolution {layer} of the discriminator, each at the {PATCHES} places "
        f"of {len(images)} training images that excite it most: the gradient, and what the place sees. Below, the same "
        "of a network before training."
    )
    gaps = tuple(range(2, 2 * PATCHES, 2))
    return [pictures.draw(rows, _caption(gan, text), _file(gan, f"guided_backprop_{layer}"), gaps=gaps)]


def maximal(gan: "TrainedGAN") -> list[Path]:
    from dcgan_jax.interpret import excitation, pictures, receptive

    layer, images = _layer(gan), _real(gan)
    found = excitation.peaks(gan, images, layer, PATCHES)
    field = receptive.field(gan.discriminator, layer)
    rows = []
    for feature in _features(gan, found, layer):
        places = zip(found.images[feature], found.rows[feature], found.columns[feature], strict=True)
        patches = [receptive.patch(np.asarray(images[i]), row, column, field) for i, row, column in places]
        titles = tuple(f"{value:.2f}" for value in found.values[feature])
        rows.append(pictures.Row(f"feature {feature}", np.stack(patches), titles))
    text = (
        f"The patches of {len(images)} training images that excite features of the discriminator's convolution {layer} "
        "most, with the activation; one of each image, grey beyond its border."
    )
    return [pictures.draw(rows, _caption(gan, text), _file(gan, f"maximal_{layer}"))]


def forget(gan: "TrainedGAN") -> list[Path]:
    from dcgan_jax.interpret import forget as forgetting
    from dcgan_jax.interpret import pictures

    depth = len(gan.discriminator.strides)
    if depth < 2:
        raise UserError("--workdir: its generator has less than 2 maps, expected one with a second-highest")
    layer = depth - 2 if LAYER.value is None else LAYER.value
    if not 0 <= layer < depth:
        raise UserError(f"--layer: found {layer}, expected a map of the generator from 0 to {depth - 1}")
    count = 150 if NUM.value is None else NUM.value
    boxes = _boxes(gan, count)
    z = gan.latents(np.arange(count), SEED.value)
    labels = None if LABEL.value is None else np.full(count, LABEL.value)
    found = forgetting.forget(gan, z, boxes, layer, labels)
    shown = z[:10]
    before, after = _images(gan, shown), _images(found.gan, shown)
    by_sample = {box.sample: box for box in boxes}
    framed = np.stack([_framed(image, by_sample.get(i)) for i, image in enumerate(before)])
    rows = [pictures.Row("boxes", framed), pictures.Row("before", before), pictures.Row("after", after)]
    text = (
        f"Samples before and after {found.dropped.sum()} of the {len(found.dropped)} features of the generator's map "
        f"{layer} were dropped: those with a positive weight in a logistic regression of {len(boxes)} boxes in "
        f"{len(by_sample)} samples, which is right on {found.inside_right:.0%} of the places inside and "
        f"{found.outside_right:.0%} of those outside."
    )
    return [pictures.draw(rows, _caption(gan, text), _file(gan, "forget"))]


def neighbours(gan: "TrainedGAN") -> list[Path]:
    from dcgan_jax.interpret import neighbours as nearest
    from dcgan_jax.interpret import pictures

    count = NUM.value or 16
    images = _real(gan)
    samples = _images(gan, gan.latents(np.arange(count), SEED.value))
    by_pixels = images[nearest.in_pixels(samples, images)]
    rows = [("samples", samples), ("nearest\nin pixels", by_pixels)]
    if not gan.config.num_classes and gan.discriminator.features:
        rows.append(("nearest\nin features", images[nearest.in_features(gan, samples, images)]))
    text = (
        f"Samples 0 to {count - 1}, and of {len(images)} training images the nearest ones in pixels and in the "
        "discriminator's features (all convolutions, max-pooled to 4x4)."
    )
    drawn = [pictures.Row(label, np.asarray(found)) for label, found in rows]
    return [pictures.draw(drawn, _caption(gan, text), _file(gan, "neighbours"))]


FIGURES = {
    function.__name__: function for function in (walk, arithmetic, turn, guided_backprop, maximal, forget, neighbours)
}


def _images(gan: "TrainedGAN", z: np.ndarray) -> np.ndarray:
    from dcgan_jax.inference import to_uint8

    labels = None if LABEL.value is None else np.full(len(z), LABEL.value)
    return to_uint8(gan.generate(z, labels))


def _real(gan: "TrainedGAN") -> np.ndarray:
    return image_sets.open_training(gan.config).images


def _folder() -> Path:
    return Path(OUT.value or Path(WORKDIR.value) / "figures")


def _file(gan: "TrainedGAN", name: str, ending: str = "png") -> Path:
    label = "" if LABEL.value is None else f"_label_{LABEL.value}"
    file = _folder() / f"{name}_step_{gan.step:08d}_seed_{SEED.value}{label}.{ending}"
    if file.exists():
        raise UserError(f"--out: {str(file)!r} exists, expected none; pass another --out, or remove it")
    return file


def _caption(gan: "TrainedGAN", text: str) -> str:
    label = "" if LABEL.value is None else f", label {LABEL.value}"
    return f"{text}\n{Path(WORKDIR.value).resolve().name}, step {gan.step}, seed {SEED.value}{label}"


def _contact_sheet(gan: "TrainedGAN", advice: str) -> list[Path]:
    from dcgan_jax.interpret import pictures

    count = NUM.value or 100
    images = _images(gan, gan.latents(np.arange(count), SEED.value))
    text = f"Samples by their numbers: {advice}."
    return [pictures.contact_sheet(images, _caption(gan, text), _file(gan, "contact_sheet"))]


def _exemplars(groups: int, each: int) -> list[list[int]] | None:
    """The groups of --exemplars, None where there are none."""
    if EXEMPLARS.value is None:
        return None
    expected = f"{groups} groups of {each} numbers of the contact sheet, such as " + "/".join(
        ",".join(str(each * group + i) for i in range(each)) for group in range(groups)
    )
    try:
        found = [[int(number) for number in group.split(",")] for group in EXEMPLARS.value.split("/")]
    except ValueError:
        raise UserError(f"--exemplars: found {EXEMPLARS.value!r}, expected {expected}") from None
    sizes = [len(group) for group in found]
    if sizes != [each] * groups or min(map(min, found)) < 0:
        raise UserError(f"--exemplars: found groups of {', '.join(map(str, sizes))} numbers, expected {expected}")
    return found


def _layer(gan: "TrainedGAN") -> int:
    count = len(gan.discriminator.features)
    if gan.config.num_classes:
        raise UserError("--workdir: the discriminator of this network takes labels, expected one without classes")
    if not count:
        raise UserError("--workdir: this network has no convolutions, expected one with some")
    layer = count - 1 if LAYER.value is None else LAYER.value
    if not 0 <= layer < count:
        raise UserError(f"--layer: found {layer}, expected a convolution of the discriminator from 0 to {count - 1}")
    return layer


def _features(gan: "TrainedGAN", found, layer: int) -> list[int]:
    from dcgan_jax.interpret import excitation

    size = gan.discriminator.features[layer]
    if FEATURES.value == "first":
        return list(range(min(COUNT.value, size)))
    if FEATURES.value == "active":
        return list(excitation.most_active(found, COUNT.value))
    numbers = FEATURES.value.split(",")
    if not all(number.isdecimal() and int(number) < size for number in numbers):
        raise UserError(f"--features: found {FEATURES.value!r}, expected 'first', 'active', or numbers below {size}")
    return [int(number) for number in numbers]


def _boxes(gan: "TrainedGAN", count: int):
    from dcgan_jax.interpret import forget as forgetting

    if BOXES.value is None:
        raise UserError(f"--boxes: missing, expected a file with {forgetting.EXPECTED}, or TOP,LEFT,BOTTOM,RIGHT")
    sides = BOXES.value.split(",")
    if len(sides) == 4 and all(side.isdecimal() for side in sides):
        box = forgetting.Box(0, *map(int, sides))
        forgetting.check(box, gan.config.image_size)
        return [box._replace(sample=i) for i in range(count)]
    return forgetting.read_boxes(BOXES.value, gan.config.image_size)


def _framed(image: np.ndarray, box) -> np.ndarray:
    """An image with the border of a box in it, white."""
    framed = image.copy()
    if box:
        inner = framed[box.top + 1 : box.bottom - 1, box.left + 1 : box.right - 1].copy()
        framed[box.top : box.bottom, box.left : box.right] = 255
        framed[box.top + 1 : box.bottom - 1, box.left + 1 : box.right - 1] = inner
    return framed


if __name__ == "__main__":
    cli.run(main, __doc__, names=tuple(FIGURES))
