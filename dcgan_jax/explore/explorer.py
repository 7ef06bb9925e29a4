"""What the explorer computes: samples, walks, arithmetic, directions, forgetting, neighbours, checkpoints.

Each result is a few files in a folder, and the command that makes the same pictures again.
"""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image

from dcgan_jax import inference, latent
from dcgan_jax.data import label_of
from dcgan_jax.data.images import grid
from dcgan_jax.explore import commands, parameters, sheet, training_images
from dcgan_jax.interpret import arithmetic, forget, neighbours, pictures, z_file
from dcgan_jax.interpret.samples import Samples
from dcgan_jax.run import places
from dcgan_jax.runtime.errors import UserError

MAX_SAMPLES = 100  # on a sheet
MAX_TRAY = 16
MAX_FRAMES = 64  # of a walk
MAX_STEPS = 6  # checkpoints side by side
MAX_LOADED = 6  # networks in memory
MAX_SCALE = 3.0
LARGEST_SEED = 2**31 - 1
WAYS = {"line": latent.linear, "arc": latent.spherical}

Trays = dict[str, list[int]]


class View(NamedTuple):
    """What a sheet shows: a checkpoint's first `size` samples of a seed, and of a class if the network has some."""

    step: int
    seed: int
    label: int | None
    size: int


class Result(NamedTuple):
    """shown: pictures with their titles. files: these and what the command, one or more lines, needs."""

    shown: list[tuple[Path, str]]
    files: list[Path]
    command: str
    text: str


class Explorer:
    """The networks of a place that `dcgan_jax.load` takes; any number of threads may use it.

    Raises UserError as `load` does, and for whatever was sent that it cannot use. It writes only into the folders that
    its methods are given, which must be new.
    """

    def __init__(self, workdir: str):
        self.workdir = workdir
        newest = inference.load(workdir)
        self.newest, self.config, self.classes = newest.step, newest.config, newest.classes
        self._lock = threading.Lock()
        self._loaded = {newest.step: newest}
        self.training = training_images.TrainingImages(newest.config)

    def class_names(self) -> list[str]:
        """What the classes are called, or their numbers; [] for a network without classes."""
        known = self.classes if len(self.classes) == self.config.num_classes else ()
        return list(known or map(str, range(self.config.num_classes)))

    def steps(self) -> list[int]:
        """The steps that there are now, oldest first: a run that goes on makes new ones, and removes others."""
        return places.steps(self.workdir) or [self.newest]

    def gan(self, step: int) -> inference.TrainedGAN:
        """The network of a step. Raises UserError if it is not there."""
        with self._lock:
            if step not in self._loaded:
                self._loaded[step] = inference.load(self.workdir, step)
            gan = self._loaded[step] = self._loaded.pop(step)  # the last used is last
            while len(self._loaded) > MAX_LOADED:
                del self._loaded[next(iter(self._loaded))]
        return gan

    def view(self, step: Any, seed: Any, name: Any, count: Any) -> View:
        """A view of what was asked for. Raises UserError unless there is such a one."""
        step = self._step(step)
        label = None
        if self.config.num_classes:
            chosen = parameters.choice(name, "class", tuple(self.class_names()))
            label = label_of(chosen, self.config.num_classes, self.classes, "class")
        seed = parameters.whole(seed, "seed", 0, LARGEST_SEED)
        return View(step, seed, label, parameters.whole(count, "samples", 1, MAX_SAMPLES))

    def samples(self, view: View) -> Samples:
        """The samples of a view by their numbers."""
        return Samples(self.gan(view.step), view.seed, view.label)

    def trays(self, view: View, **texts: Any) -> Trays:
        """The numbers in the trays' texts. Raises UserError unless they are of this view's samples."""
        return {name: parameters.numbers(text, name, view.size, MAX_TRAY) for name, text in texts.items()}

    def images(self, view: View) -> np.ndarray:
        """The images of a view's samples, uint8 [size, H, W, C]."""
        samples = self.samples(view)
        return samples.images(samples.z(range(view.size)))

    def sheet(self, view: View, trays: Trays) -> Image.Image:
        """The samples to click on, with those in trays framed."""
        return sheet.draw(self.images(view), trays)

    def first(self, view: View, folder: Path) -> Result:
        """The samples of the sheet, to be kept."""
        samples = self.samples(view)
        return self._made(view, "samples", samples.z(range(view.size)), folder, f"Samples 0 to {view.size - 1}.")

    def walk(self, view: View, trays: Trays, way: Any, frames: Any, folder: Path) -> Result:
        """From the mean z of A to that of B, as an animation and as its frames."""
        way = parameters.choice(way, "way", tuple(WAYS))
        frames = parameters.whole(frames, "frames", 2, MAX_FRAMES)
        start, end = (jnp.asarray(mean) for mean in self._means(view, trays, "A", "B"))
        z = np.asarray(WAYS[way](start, end, jnp.linspace(0, 1, frames)))
        name = arithmetic.named(f"walk_{way}_{frames}", [trays["A"], trays["B"]])
        result = self._made(view, name, z, folder, f"From the mean of A to that of B ({way}).")
        there = self.samples(view).images(z)
        frames, title = np.concatenate([there, there[-2:0:-1]]), f"seed {view.seed}, {way}"
        gif = pictures.animate(frames, title, folder / f"{name}.gif", milliseconds=80)
        return result._replace(shown=[(gif, ""), *result.shown], files=[gif, *result.files])

    def arithmetic(self, view: View, trays: Trays, folder: Path) -> Result:
        """The means of the trays, and A - B + C of them."""
        a, b, c = (mean[None] for mean in self._means(view, trays, "A", "B", "C"))
        result = latent.arithmetic(*map(jnp.asarray, (a, b, c)))
        z = np.concatenate([a, b, c, np.asarray(result)[None]])
        name = arithmetic.named("arithmetic", [trays[letter] for letter in "ABC"])
        return self._made(view, name, z, folder, "Above the means of A and B, below that of C and A - B + C.")

    def direction(self, view: View, trays: Trays, scale: Any, folder: Path) -> Result:
        """The samples in C, moved by `scale` times the vector from the mean of B to that of A."""
        scale = parameters.number(scale, "scale", -MAX_SCALE, MAX_SCALE)
        left, right = self._means(view, trays, "A", "B")
        vector = np.asarray(latent.turn(jnp.asarray(left[None]), jnp.asarray(right[None])))
        self._filled(trays, "C")
        start = self.samples(view).z(trays["C"])
        name = arithmetic.named(f"direction_{scale:+.2f}", [trays[letter] for letter in "ABC"])
        text = f"Each sample of C moved by {scale:+.2f} times the vector from B to A."
        return self._made(view, name, (start + scale * vector).astype(np.float32), folder, text)

    def forget(self, view: View, boxes: Any, folder: Path) -> Result:
        """Samples without the feature maps that draw what is in boxes, as launch/figure.py draws them."""
        drawn = parameters.boxes(boxes, "boxes")
        if not drawn:
            raise UserError("boxes: found none, expected one; click on two of its corners")
        for box in drawn:
            forget.check(box, self.config.image_size)
            parameters.whole(box.sample, "boxes", 0, view.size - 1)
        samples = self.samples(view)
        layer = forget.layer_of(samples.gan, None)
        entries = [{"sample": box.sample, "box": list(box[1:])} for box in drawn]
        file = folder / "boxes.json"
        file.write_text(json.dumps({"boxes": entries}) + "\n")
        picture = forget.figure(samples, drawn, layer, view.size)
        flags = {"num": view.size, "boxes": file.name}
        return self._figure(view, "forget", picture, flags, [file], folder)

    def neighbours(self, view: View, trays: Trays, folder: Path) -> Result:
        """The samples of A above the training images nearest to them, as launch/figure.py draws them."""
        self._filled(trays, "A")
        _ = self.gan(view.step).discriminator_variables  # a generator alone is an error before images are prepared
        picture = neighbours.figure(self.samples(view), self.training.images(), trays["A"])
        return self._figure(view, "neighbours", picture, {"exemplars": ",".join(map(str, trays["A"]))}, [], folder)

    def checkpoints(self, view: View, trays: Trays, steps: Any, folder: Path) -> Result:
        """The samples in A by several checkpoints: the same z, side by side."""
        self._filled(trays, "A")
        chosen = parameters.numbers(steps, "steps", 2**31 - 1, MAX_STEPS)
        if not chosen:
            raise UserError(f"steps: found none, expected some of {', '.join(map(str, self.steps()))}")
        z = self.samples(view).z(trays["A"])
        name = arithmetic.named("checkpoints", [trays["A"]])
        parts = [self._made(view._replace(step=step), name, z, folder, "") for step in dict.fromkeys(chosen)]
        return Result(
            [(part.shown[0][0], f"step {step}") for part, step in zip(parts, dict.fromkeys(chosen), strict=True)],
            [*(part.shown[0][0] for part in parts), parts[0].files[-1]],
            "\n".join(part.command for part in parts),
            f"The samples in A by {len(parts)} checkpoint{'s' if len(parts) > 1 else ''}.",
        )

    def _step(self, value: Any) -> int:
        step = int(value) if isinstance(value, str) and value.isascii() and value[:10].isdecimal() else value
        return parameters.whole(step, "checkpoint", 0, 2**31 - 1)

    def _means(self, view: View, trays: Trays, *letters: str) -> list[np.ndarray]:
        """The mean z of each of these trays, float32 [Z]."""
        self._filled(trays, *letters)
        samples = self.samples(view)
        return [samples.z(trays[letter]).mean(0) for letter in letters]

    def _filled(self, trays: Trays, *letters: str) -> None:
        for letter in letters:
            if not trays[letter]:
                raise UserError(f"{letter}: empty, expected a sample; choose tray {letter}, and click on one")

    def _made(self, view: View, name: str, z: np.ndarray, folder: Path, text: str) -> Result:
        """Pictures of z, float32 [N, Z], with z in a file, from which launch/sample.py makes them again."""
        samples, stem = self.samples(view), f"{name}_seed_{view.seed}"
        picture = folder / f"{stem}_step_{view.step:08d}.png"
        grid(samples.images(z)).save(picture)
        points = folder / f"{stem}.npz"
        if not points.exists():
            z_file.write(points, z, samples.labels(len(z)))
        flags = {"workdir": self.workdir, "step": view.step, "z": points.name}
        command = commands.command("sample", **flags, out=f"{picture.stem}_again.png")
        return Result([(picture, "")], [picture, points], command, text)

    def _figure(
        self,
        view: View,
        name: str,
        figure: pictures.Figure,
        flags: dict[str, Any],
        files: Sequence[Path],
        folder: Path,
    ) -> Result:
        """A figure of launch/figure.py, and its command."""
        caption = self.samples(view).caption(figure.text, self.workdir)
        picture = pictures.draw(figure.rows, caption, folder / f"{name}.png", gaps=figure.gaps)
        label = {} if view.label is None else {"label": self.class_names()[view.label]}
        shared = {"workdir": self.workdir, "step": view.step, "seed": view.seed} | label
        command = commands.command("figure", name, **shared, **flags, out="again")
        return Result([(picture, "")], [picture, *files], command, figure.text)
