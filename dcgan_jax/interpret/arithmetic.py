"""Vector arithmetic on the mean z of samples that share an attribute (section 6.3.2, figures 7 and 8)."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from dcgan_jax import latent
from dcgan_jax.interpret.pictures import Figure, Row
from dcgan_jax.interpret.samples import Samples
from dcgan_jax.runtime.errors import UserError

NOISY_RESULTS = 8  # images around the result
TURNED = 6  # samples that the turn vector is added to
TURN_SCALES = np.linspace(-1, 1, 9, dtype=np.float32)

LARGEST_NUMBER = 2**31 - 1

Groups = list[list[int]]


def exemplars(text: str, groups: int, each: int, seed: int = 0) -> Groups:
    """Groups of sample numbers from text such as '1,2,3/4,5,6'; 'random' draws some by the seed.

    Raises UserError unless there are `groups` groups of `each` numbers.
    """
    if text == "random":
        return np.random.default_rng(seed).permutation(groups * each).reshape(groups, each).tolist()
    expected = f"{groups} groups of {each} numbers of the contact sheet, such as " + "/".join(
        ",".join(str(each * group + i) for i in range(each)) for group in range(groups)
    )
    try:
        numbers = [[int(number) for number in group.split(",")] for group in text.split("/")]
    except ValueError:
        raise UserError(f"--exemplars: found {text!r}, expected {expected}") from None
    sizes = [len(group) for group in numbers]
    if sizes != [each] * groups:
        raise UserError(f"--exemplars: found groups of {', '.join(map(str, sizes))} numbers, expected {expected}")
    if not 0 <= min(map(min, numbers)) <= max(map(max, numbers)) <= LARGEST_NUMBER:
        raise UserError(f"--exemplars: found {text!r}, expected numbers from 0 to {LARGEST_NUMBER}")
    return numbers


def named(name: str, groups: Groups) -> str:
    """A figure's file name with the numbers of its exemplars."""
    return "_".join([name, *("-".join(_texts(group)) for group in groups)])


def contact_sheet(samples: Samples, count: int, advice: str, columns: int = 10) -> Figure:
    """Samples with their numbers, from which to choose exemplars."""
    images = samples.images(samples.z(range(count)))
    rows = [
        Row("", images[start : start + columns], _texts(range(start, min(start + columns, count))))
        for start in range(0, count, columns)
    ]
    return Figure(rows, f"Samples by their numbers: {advice}.")


def arithmetic(samples: Samples, groups: Groups, noise: float) -> Figure:
    """A - B + C of the mean z of three groups; around the result, with uniform noise; and the same on pixels."""
    z = [samples.z(group) for group in groups]
    result = np.asarray(latent.arithmetic(*map(jnp.asarray, z)))
    moves = np.random.default_rng(samples.seed).uniform(-noise, noise, (NOISY_RESULTS, len(result)))
    square = np.insert(result + moves, NOISY_RESULTS // 2, result, axis=0).astype(np.float32)
    images, results = [samples.images(group) for group in z], samples.images(square)
    rows = []
    for letter, group, points, group_images in zip("ABC", groups, z, images, strict=True):
        mean = samples.images(points.mean(0, keepdims=True))
        rows.append(Row(letter, np.concatenate([group_images, mean]), (*_texts(group), "mean z")))
    for i, label in enumerate(("", "A - B + C", "")):
        rows.append(Row(label, results[3 * i : 3 * i + 3]))
    a, b, c = (np.concatenate([group, group.mean(0, keepdims=True)]) for group in map(np.float64, images))
    in_pixels = np.clip(np.rint(a - b + c), 0, 255).astype(np.uint8)
    rows.append(Row("in pixels", in_pixels, ("", "", "", "of means")))
    text = (
        "A - B + C of the mean z of 3 samples each. The middle of the square is the result, around it the same with "
        f"uniform noise of {noise:g}. Last row: the same arithmetic on pixels, of each column and of the means."
    )
    return Figure(rows, text, gaps=(3,))


def turn(samples: Samples, groups: Groups, count: int = TURNED) -> Figure:
    """Samples moved along the turn vector, the mean z of the first group minus that of the second."""
    left, right = (samples.z(group) for group in groups)
    vector = np.asarray(latent.turn(jnp.asarray(left), jnp.asarray(right)))
    rows = [
        Row(letter, samples.images(points), _texts(group))
        for letter, points, group in zip("LR", (left, right), groups, strict=True)
    ]
    first = max(map(max, groups)) + 1  # none of the exemplars
    for number in range(first, first + count):
        titles = tuple(f"{scale:+.2f}" if scale else "itself" for scale in TURN_SCALES) if number == first else ()
        moved = samples.z([number]) + TURN_SCALES[:, None] * vector
        rows.append(Row(f"sample {number}", samples.images(moved), titles))
    text = "The turn vector, the mean z of L less that of R, added to samples in shares from -1 to 1."
    return Figure(rows, text)


def _texts(numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(map(str, numbers))
