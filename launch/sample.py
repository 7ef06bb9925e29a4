"""Makes images with a trained generator: python launch/sample.py --workdir=DIR [--num=64] [--format=grid|png|npz]

    python launch/sample.py --workdir=runs/digits
    python launch/sample.py --workdir=runs/digits --num=1000 --format=png --step=best

grid: one picture of all images, of a conditional network with their classes; a PNG, or what the ending of --out says.
png: a folder with one file per image, of 1, 3 or 4 channels (with transparency). npz: one file with the array `images`,
uint8 [N, H, W, C], and of a conditional network `labels`, int [N]. Image i depends on the seed, i and its class alone,
not on --num. --z=FILE makes the images of the points in a file, as launch/explore.py saves them.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import cli
import numpy as np
from absl import flags
from PIL import Image

from dcgan_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from dcgan_jax.inference import TrainedGAN

WORKDIR = flags.DEFINE_string("workdir", None, "run directory, such as runs/digits")
NUM = flags.DEFINE_integer("num", 64, "how many images", lower_bound=1)
FORMAT = flags.DEFINE_enum(
    "format", "grid", ["grid", "png", "npz"], "what to write: one picture, a folder of files, or an array"
)
SCALE = flags.DEFINE_integer("scale", 1, "grid, png: enlarge each image by this whole factor", 1, 64)
OUT = flags.DEFINE_string("out", None, "file (grid, npz) or folder (png) to write; by default in WORKDIR/generated")
SEED = flags.DEFINE_integer("seed", 0, "seed of the images")
STEP = flags.DEFINE(cli.StepParser(), "step", None, "step of the checkpoint, or 'best'; the newest by default")
LABELS = flags.DEFINE_list(
    "labels", None, "for a conditional network: classes to repeat in this order, by name or label, such as 3 or cat,dog"
)
Z = flags.DEFINE_string(
    "z", None, "an .npz with z, float [N, Z], and for a conditional network labels, int [N]: the images to make"
)


def main() -> None:
    from dcgan_jax.runtime import malloc

    malloc.keep_freed_memory()
    from dcgan_jax.data.images import PICTURE_CHANNELS
    from dcgan_jax.inference import load
    from dcgan_jax.interpret import z_file
    from dcgan_jax.ops.pixels import to_uint8

    if WORKDIR.value is None:
        raise UserError("--workdir: missing, expected a run directory, such as runs/digits")
    gan = load(WORKDIR.value, STEP.value)
    if FORMAT.value == "png" and gan.config.channels not in PICTURE_CHANNELS:
        raise UserError(
            f"--format: found 'png', expected 'npz' for images of {gan.config.channels} channels, or 'grid', which "
            "shows the first of them"
        )
    if FORMAT.value == "npz" and SCALE.present:
        raise UserError(f"--scale: found {SCALE.value}, expected none: an array holds the images as they are")
    _check_z_alone()
    points = z_file.read(Z.value, gan, "--z") if Z.value is not None else None
    num = len(points[0]) if points else NUM.value
    nbytes = num * gan.config.image_size[0] * gan.config.image_size[1] * gan.config.channels
    _check_size(nbytes * (SCALE.value**2 if FORMAT.value == "grid" else 1))
    ending = {"grid": ".png", "png": "", "npz": ".npz"}[FORMAT.value]
    chosen = _labels(gan)
    titles = [gan.classes[label] if gan.classes else str(label) for label in chosen or ()]
    names = "-".join(re.sub(r"[^\w.]+", "_", title) for title in titles)[:100]
    named = f"_labels_{names}" if names else ""
    scaled = f"_scale_{SCALE.value}" if SCALE.value > 1 else ""
    origin = f"z_{Path(Z.value).stem}" if points else f"seed_{SEED.value}_num_{num}{named}"
    name = f"step_{gan.step:08d}_{origin}{scaled}{ending}"
    out = cli.output(OUT.value, WORKDIR.value, "generated", name)
    if out.exists():
        raise UserError(f"--out: {str(out)!r} exists, expected a new name; pass another --out, or remove it")
    picture_format = _picture_format(out) if FORMAT.value == "grid" else ""

    all_labels = list(range(gan.config.num_classes))
    labels = np.resize(chosen or all_labels, num) if all_labels else None
    if points:
        z, labels = points
        images = to_uint8(gan.generate(z, labels))
    else:
        images = gan.sample(num, SEED.value, labels)
    out.parent.mkdir(parents=True, exist_ok=True)
    if FORMAT.value == "grid":
        titles = [] if labels is None else [gan.classes[i] if gan.classes else str(i) for i in labels]
        _grid(images, titles).save(out, format=picture_format)
    elif FORMAT.value == "npz":
        with out.open("xb") as file:
            np.savez_compressed(file, images=images, **({} if labels is None else {"labels": labels}))
    else:
        _write_files(images, out)
    print(out)


def _grid(images: np.ndarray, titles: list[str]) -> Image.Image:
    from dcgan_jax.data.captions import titled
    from dcgan_jax.data.images import grid

    images = _enlarged(images)
    return grid(titled(images, titles) if titles else images)


def _enlarged(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C] with each pixel as a square of --scale pixels."""
    return images.repeat(SCALE.value, -3).repeat(SCALE.value, -2)


def _write_files(images: np.ndarray, folder: Path) -> None:
    from dcgan_jax.runtime.progress import progress

    folder.mkdir()
    digits = len(str(len(images) - 1))
    for i, image in enumerate(progress(images, "writing", "files")):
        pixels = _enlarged(image)
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(folder / f"{i:0{digits}d}.png")


def _picture_format(file: Path) -> str:
    """Pillow's name for the format that the ending of a file stands for; PNG for an ending that no picture has."""
    from dcgan_jax.data.images import FORMATS

    if file.suffix.lower() == ".npz":
        raise UserError(f"--out: found {str(file)!r} for one picture, expected a name such as x.png; or --format=npz")
    known = Image.registered_extensions().get(file.suffix.lower())
    return known if known in FORMATS and known in Image.SAVE else "PNG"


def _check_z_alone() -> None:
    """Raises UserError if --z is given with a flag that chooses other images."""
    for flag in ("num", "seed", "labels"):
        if Z.value is not None and flags.FLAGS[flag].present:
            raise UserError(
                f"--{flag}: found {flags.FLAGS[flag].value}, expected none: --z={Z.value} says what to make"
            )


def _check_size(nbytes: int) -> None:
    """Raises UserError if the images do not fit in this machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if nbytes > memory:
        raise UserError(
            f"--num: found {NUM.value}, {nbytes / 1e9:.0f} GB of images, expected at most the {memory / 1e9:.0f} GB of "
            "this machine's memory; make fewer at a time, each with another --seed"
        )


def _labels(gan: "TrainedGAN") -> list[int]:
    """The labels that the flag names, [] if there is none."""
    from dcgan_jax.data import label_of

    if not LABELS.value:
        return []
    if not gan.config.num_classes:
        raise UserError(f"--labels: found {','.join(LABELS.value)}, expected none: it was trained without classes")
    return [label_of(text, gan.config.num_classes, gan.classes, "--labels") for text in LABELS.value]


if __name__ == "__main__":
    cli.run(main, __doc__)
