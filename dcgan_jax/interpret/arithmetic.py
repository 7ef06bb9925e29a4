"""Arithmetic on mean z of samples that have something in common (section 6.3.2, figures 7 and 8)."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from dcgan_jax import latent
from dcgan_jax.errors import UserError
from dcgan_jax.interpret.pictures import Figure, Row
from dcgan_jax.interpret.samples import Samples

AROUND = 8  # images around the result
TURNED = 6  # samples that the turn vector is added to
SHARES = np.linspace(-1, 1, 9, dtype=np.float32)  # of the turn vector

LARGEST_NUMBER = 2**31 - 1

Groups = list[list[int]]


def exemplars(text: str, groups: int, each: int, seed: int = 0) -> Groups:
    """Numbers of samples, such as '1,2,3/4,5,6', or by the seed if the text is 'random'.

    Raises UserError unless there are so many groups of so many.
    """
    if text == "random":
        return np.random.default_rng(seed).permutation(groups * each).reshape(groups, each).tolist()
    expected = f"{groups} groups of {each} numbers of the contact sheet, such as " + "/".join(
        ",".join(str(each * group + i) for i in range(each)) for group in range(groups)
    )
    try:
        found = [[int(number) for number in group.split(",")] for group in text.split("/")]
    except ValueError:
        raise UserError(f"--exemplars: found {text!r}, expected {expected}") from None
    sizes = [len(group) for group in found]
    if sizes != [each] * groups:
        raise UserError(f"--exemplars: found groups of {', '.join(map(str, sizes))} numbers, expected {expected}")
    if not 0 <= min(map(min, found)) <= max(map(max, found)) <= LARGEST_NUMBER:
        raise UserError(f"--exemplars: found {text!r}, expected numbers from 0 to {LARGEST_NUMBER}")
    return found


def named(name: str, groups: Groups) -> str:
    """A figure's name with the numbers of its exemplars."""
    return "_".join([name, *("-".join(_numbered(group)) for group in groups)])


def contact_sheet(samples: Samples, count: int, advice: str, columns: int = 10) -> Figure:
    """Samples with their numbers: what the exemplars of a figure are chosen from."""
    images = samples.images(samples.z(range(count)))
    rows = [
        Row("", images[start : start + columns], _numbered(range(start, min(start + columns, count))))
        for start in range(0, count, columns)
    ]
    return Figure(rows, f"Samples by their numbers: {advice}.")


def arithmetic(samples: Samples, groups: Groups, noise: float) -> Figure:
    """A - B + C of three groups of three samples; around the result the same with uniform noise; and on pixels."""
    z = [samples.z(group) for group in groups]
    result = np.asarray(latent.arithmetic(*map(jnp.asarray, z)))
    moves = np.random.default_rng(samples.seed).uniform(-noise, noise, (AROUND, len(result)))
    square = np.insert(result + moves, AROUND // 2, result, axis=0).astype(np.float32)
    images, neighbours = [samples.images(group) for group in z], samples.images(square)
    rows = []
    for letter, group, points, shown in zip("ABC", groups, z, images, strict=True):
        mean = samples.images(points.mean(0, keepdims=True))
        rows.append(Row(letter, np.concatenate([shown, mean]), (*_numbered(group), "mean z")))
    for i, label in enumerate(("", "A - B + C", "")):
        rows.append(Row(label, neighbours[3 * i : 3 * i + 3]))
    a, b, c = (np.concatenate([group, group.mean(0, keepdims=True)]) for group in map(np.float64, images))
    in_pixels = np.clip(np.rint(a - b + c), 0, 255).astype(np.uint8)
    rows.append(Row("in pixels", in_pixels, ("", "", "", "of means")))
    text = (
        "A - B + C of the mean z of 3 samples each. The middle of the square is the result, around it the same with "
        f"uniform noise of {noise:g}. Last row: the same arithmetic on pixels, of each column and of the means."
    )
    return Figure(rows, text, gaps=(3,))


def turn(samples: Samples, groups: Groups, count: int = TURNED) -> Figure:
    """Samples moved along the mean z of one group less that of another, there and back."""
    left, right = (samples.z(group) for group in groups)
    vector = np.asarray(latent.turn(jnp.asarray(left), jnp.asarray(right)))
    rows = [
        Row(letter, samples.images(points), _numbered(group))
        for letter, points, group in zip("LR", (left, right), groups, strict=True)
    ]
    first = max(map(max, groups)) + 1  # others than the exemplars
    for number in range(first, first + count):
        titles = tuple(f"{share:+.2f}" if share else "itself" for share in SHARES) if number == first else ()
        moved = samples.z([number]) + SHARES[:, None] * vector
        rows.append(Row(f"sample {number}", samples.images(moved), titles))
    text = "The turn vector, the mean z of L less that of R, added to samples in shares from -1 to 1."
    return Figure(rows, text)


def _numbered(numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(map(str, numbers))
