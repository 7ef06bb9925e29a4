"""Walks between random z, as frames that play: one picture that holds them all, row by row."""

from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from dcgan_jax import latent
from dcgan_jax.data.images import grid
from dcgan_jax.inference import CHUNK, TrainedGAN
from dcgan_jax.ops.pixels import to_uint8
from dcgan_jax.page import compression

WALKS, WALKS_PER_ROW = 8, 4  # side by side in each frame
POINTS, STEPS = 4, 12  # of each walk, from each point to the next
FRAMES, FRAMES_PER_ROW = POINTS * STEPS, 6
LARGEST_SIDE = 64  # pixels, of an image in a frame


class Walk(NamedTuple):
    """The picture's address; its frames by columns and rows; the step of the checkpoint."""

    frames: str
    columns: int
    rows: int
    step: int


def make(gan: TrainedGAN, limit: int) -> Walk:
    """Closed walks of a generator, along arcs through random z, in at most `limit` bytes; with classes, one each."""
    between = latent.spherical if gan.config.prior == "normal" else latent.linear
    # As many as a grid of samples has: that program is compiled already where a run ends.
    points = gan.latents(np.arange(CHUNK))[: WALKS * POINTS].reshape(WALKS, POINTS, -1)
    walks = jax.jit(jax.vmap(lambda ends: latent.walk(ends, STEPS, between)))(points)
    z = np.asarray(walks).reshape(WALKS, FRAMES, -1).swapaxes(0, 1).reshape(FRAMES * WALKS, -1)  # frame by frame
    classes = gan.config.num_classes
    images = to_uint8(gan.generate(z, np.arange(len(z)) % WALKS % classes if classes else None))
    frames = [_frame(images[i * WALKS : (i + 1) * WALKS]) for i in range(FRAMES)]
    (file,) = compression.fitting([_sheet(frames)], limit)
    return Walk(compression.address(file), FRAMES_PER_ROW, FRAMES // FRAMES_PER_ROW, gan.step)


def _frame(images: np.ndarray) -> Image.Image:
    """The images of all walks at one moment, uint8 [WALKS, H, W, C]."""
    picture = grid(images, columns=WALKS_PER_ROW).convert("RGB")
    share = min(1.0, LARGEST_SIDE / max(images.shape[1:3]))
    return picture.resize((max(1, round(picture.width * share)), max(1, round(picture.height * share))))


def _sheet(frames: list[Image.Image]) -> Image.Image:
    width, height = frames[0].size
    sheet = Image.new("RGB", (FRAMES_PER_ROW * width, FRAMES // FRAMES_PER_ROW * height))
    for number, frame in enumerate(frames):
        row, column = divmod(number, FRAMES_PER_ROW)
        sheet.paste(frame, (column * width, row * height))
    return sheet
