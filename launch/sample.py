"""Makes images with a trained generator: python launch/sample.py --workdir=DIR [--num=64] [--format=grid|png|npz]

grid: one picture of all images. png: a folder with one file per image, of 1, 3 or 4 channels (with transparency). npz:
one file with the array `images`, uint8 [N, H, W, C]. Image i depends on the seed and on i alone, not on --num.
--z=FILE makes the images of the points in a file, as launch/explore.py saves them.
"""

import os
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
    from dcgan_jax.data.images import PICTURE_CHANNELS, grid
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
    _check_z_alone()
    points = z_file.read(Z.value, gan, "--z") if Z.value is not None else None
    _check_size(
        (len(points[0]) if points else NUM.value)
        * gan.config.image_size[0]
        * gan.config.image_size[1]
        * gan.config.channels
    )
    ending = {"grid": ".png", "png": "", "npz": ".npz"}[FORMAT.value]
    chosen = _labels(gan)
    labels = f"_labels_{'-'.join(map(str, chosen))}" if chosen else ""
    origin = f"seed_{SEED.value}_num_{NUM.value}{labels}" if points is None else f"z_{Path(Z.value).stem}"
    name = f"step_{gan.step:08d}_{origin}{ending}"
    out = cli.output(OUT.value, WORKDIR.value, "generated", name)
    if out.exists():
        raise UserError(f"--out: {str(out)!r} exists, expected a new name; pass another --out, or remove it")

    if points:
        images = to_uint8(gan.generate(*points))
    else:
        images = gan.sample(NUM.value, SEED.value, np.resize(chosen, NUM.value) if chosen else None)
    out.parent.mkdir(parents=True, exist_ok=True)
    if FORMAT.value == "grid":
        grid(images).save(out, format="PNG")
    elif FORMAT.value == "npz":
        with out.open("xb") as file:
            np.savez_compressed(file, images=images)
    else:
        out.mkdir()
        digits = len(str(len(images) - 1))
        for i, image in enumerate(images):
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(out / f"{i:0{digits}d}.png")
    print(out)


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
