"""A linear L2-SVM (squared hinge, one class against the rest) for more features than fit in memory as float32.

It minimises what LIBLINEAR's and scikit-learn's LinearSVC do, for each class

    |w|^2 / 2 + C sum_i max(0, 1 - y_i (w x_i + b))^2,    y_i = 1 for the class and -1 for the others,

with the bias b as the weight of a feature that is always 1. It does so by Newton's method: the objective is quadratic
but for which examples are inside the margin. Each step solves its linear system by conjugate gradients and goes to the
lowest point on its way. All classes move together, and the features are passed over in blocks, as they are: one pass an
iteration of conjugate gradients. A network's features vary mostly along few directions; those along which some examples
vary precondition the system (Nystrom: Frangella, Tropp and Udell 2021). Few examples are first turned into as few
coordinates.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.linalg import solve_triangular

log = logging.getLogger("dcgan_jax")

ROWS = 512  # examples of a block: some ten of them are under way at a time
# So many times fewer examples than features, and at most so many, have their own coordinates as features.
FEW, MOST = 4, 8192
COLUMNS = 2048  # features of a block, of which products are summed
RIDGE = 1e-9  # of the mean square of an example's length
KEPT = 2**30  # bytes: features of fewer in float32 are converted once for all passes
# A class is done when its objective is certainly within this share of the lowest, and its gradient's norm has fallen to
# this share of what it is at zero weights. The first decides with a large C, the second with a small one, where the
# objective hardly changes but the order of the scores does.
GAP, TOLERANCE = 0.01, 1e-3
NEWTON_STEPS = 50
CG_STEPS = 40
SKETCH = 2048  # examples from which the preconditioner is made
FORCING = 0.1  # how far conjugate gradients go in one step: the share of the residual that is left
DOUBLINGS, BISECTIONS = 8, 30  # of the line search
TINY = 1e-30  # beside zero, where a class has arrived

HIGHEST = jax.lax.Precision.HIGHEST  # accelerators would round the products to fewer digits


class Classifier(NamedTuple):
    """weights float32 [F + 1, K], the bias last; passes: over the examples, that this fit took."""

    weights: np.ndarray
    passes: int

    def scores(self, features: np.ndarray) -> np.ndarray:
        """features [N, F] -> float32 [N, K]; the largest is the class."""
        passes = _Passes(features, keep=False)
        return np.asarray(passes.product(jnp.asarray(self.weights)))[: len(features)]

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        """The share of features [N, F] that get their label, int [N]."""
        return float((self.scores(features).argmax(1) == labels).mean())


def fit(features: np.ndarray, labels: np.ndarray, classes: int, c: float) -> Classifier:
    """The classifier of these examples, for one C: see `Solver`."""
    return Solver(features, labels, classes).fit(c)


class Solver:
    """Examples made ready for any number of fits, of which each begins where the one before ended.

    features: [N, F], float32 or float16, in memory or mapped from a file; they must stay as they are. labels: int [N],
    below `classes`.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, classes: int):
        self.span = _Span(features) if len(features) <= min(features.shape[1] // FEW, MOST) else None
        self.passes = _Passes(self.span.coordinates if self.span else features)
        self.preconditioner = _Preconditioner(self.passes.features)
        # What fills up the last block has the sign 0, and so no error.
        own = np.where(labels[:, None] == np.arange(classes), 1, -1)
        self.signs = jnp.asarray(self.passes.filled(own.astype(np.float32)))
        self.at_zero = jnp.sum(jnp.square(self.passes.transposed(self.signs)), axis=0)
        self.weights = jnp.zeros((self.passes.features.shape[1] + 1, classes))
        self.outputs = jnp.zeros_like(self.signs)

    def fit(self, c: float) -> Classifier:
        """The classifier for a weight of the errors beside that of |w|^2; the next fit begins with it."""
        passes, signs, before = self.passes, self.signs, self.passes.count
        weights, outputs = self.weights, self.outputs
        for _ in range(NEWTON_STEPS):
            inside = jnp.abs(signs) * (signs * outputs < 1)
            errors = inside * (signs - outputs)
            gradient = weights - 2 * c * passes.transposed(errors)
            objective = jnp.sum(jnp.square(weights), axis=0) / 2 + c * jnp.sum(jnp.square(errors), axis=0)
            square = jnp.sum(jnp.square(gradient), axis=0)
            # As |w|^2 / 2 is part of it, it lies no higher above its lowest value than half the gradient's square.
            moving = (square / 2 > GAP * objective) | (square > (TOLERANCE * 2 * c) ** 2 * self.at_zero)
            if not moving.any():
                break
            step, change = _newton_step(passes, self.preconditioner, gradient * moving, inside, c)  # others stay
            length = _line_search(weights, step, signs, outputs, change, c)
            weights, outputs = weights + length * step, outputs + length * change
        else:
            log.warning("%d of %d had not arrived after %d steps (C %g)", moving.sum(), len(moving), NEWTON_STEPS, c)
        self.weights, self.outputs = weights, outputs
        return Classifier(np.asarray(self.span.lifted(weights) if self.span else weights), passes.count - before)


class _Span:
    """The space that fewer examples than features span: in an orthonormal basis of it, they are a triangular matrix.

    The weights of a classifier lie in it, but for the bias, and have the same length there.
    """

    def __init__(self, features: np.ndarray):
        self.features = features
        products = np.zeros((len(features),) * 2)
        for start in range(0, features.shape[1], COLUMNS):
            block = features[:, start : start + COLUMNS].astype(np.float64)
            products += block @ block.T
        # Examples may be alike: each gets a direction of its own, of hardly any length.
        products[np.diag_indices_from(products)] += RIDGE * products.trace() / len(products) + TINY
        self.triangle = np.linalg.cholesky(products)
        self.coordinates = self.triangle.astype(np.float32)  # [N, N]

    def lifted(self, weights: Array) -> Array:
        """[N + 1, K] -> [F + 1, K], with the bias as it is."""
        share = solve_triangular(self.triangle, np.asarray(weights[:-1]), lower=True, trans="T")  # of each example
        passes = _Passes(self.features, keep=False)
        found = passes.transposed(jnp.asarray(passes.filled(share.astype(np.float32))))
        return found.at[-1].set(weights[-1])


class _Passes:
    """Products with the features and a last one that is always 1, block by block."""

    def __init__(self, features: np.ndarray, keep: bool = True):
        self.features, self.count = features, 0
        self.kept: list[tuple[slice, Array]] = []
        if keep and features.size * 4 <= KEPT:
            self.kept = list(self._converted())

    def filled(self, rows: np.ndarray) -> np.ndarray:
        """Rows [N, ...] with zeros up to a whole block."""
        return rows if len(rows) % ROWS == 0 else np.pad(rows, ((0, -len(rows) % ROWS), *((0, 0),) * (rows.ndim - 1)))

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        self.count += 1
        yield from self.kept or self._converted()

    def _converted(self) -> Iterator[tuple[slice, Array]]:
        for start in range(0, len(self.features), ROWS):
            block = self.features[start : start + ROWS]
            # Converted by a call of its own: XLA would convert within each product, where it takes three times as long.
            yield slice(start, start + ROWS), _float32(jax.device_put(self.filled(block)))

    def product(self, weights: Array) -> Array:
        """[F + 1, K] -> outputs [N, K]."""
        return jnp.concatenate([_product(block, weights) for _, block in self.blocks()])

    def transposed(self, values: Array) -> Array:
        """[N, K] -> [F + 1, K], the sum over the examples of features times values."""
        return sum(_transposed(block, values[rows]) for rows, block in self.blocks()).T

    def both(self, weights: Array, inside: Array) -> tuple[Array, Array]:
        """The product with weights, and the transposed product with what is inside of it, in one pass."""
        outputs, total = [], jnp.zeros_like(weights.T)
        for rows, block in self.blocks():
            found, part = _both(block, weights, inside[rows])
            outputs.append(found)
            total += part
        return jnp.concatenate(outputs), total.T


class _Preconditioner:
    """The inverse of 1 + curvature X^T X, roughly: by the directions in which some evenly spaced examples vary."""

    def __init__(self, features: np.ndarray):
        chosen = np.linspace(0, len(features) - 1, min(SKETCH, len(features))).astype(int)
        rows = np.pad(features[chosen].astype(np.float32), ((0, 0), (0, 1)), constant_values=1)
        values, vectors = np.linalg.eigh((rows @ rows.T).astype(np.float64))
        large = values > 1e-6 * values[-1]
        values, vectors = values[large], vectors[:, large]
        self.basis = jnp.asarray(rows.T @ (vectors / np.sqrt(values)).astype(np.float32))  # [F + 1, R], orthonormal
        self.values = jnp.asarray(values * len(features) / len(chosen), jnp.float32)  # ascending

    def __call__(self, residual: Array, curvature: Array) -> Array:
        """residual [F + 1, K], curvature [K]."""
        return _preconditioned(residual, self.basis, self.values, curvature)


@jax.jit
def _preconditioned(residual: Array, basis: Array, values: Array, curvature: Array) -> Array:
    curved = 1 + values[:, None] * curvature
    along = jnp.matmul(basis.T, residual, precision=HIGHEST)
    # Across the directions it is as along the least of them.
    return residual + jnp.matmul(basis, (curved[0] / curved - 1) * along, precision=HIGHEST)


_float32 = jax.jit(lambda block: block.astype(jnp.float32))


@jax.jit
def _product(block: Array, weights: Array) -> Array:
    return jnp.matmul(block, weights[:-1], precision=HIGHEST) + weights[-1]


@jax.jit
def _transposed(block: Array, values: Array) -> Array:
    # [K, F + 1], to be transposed when all are summed: XLA's own way to [F + 1, K] is three times as slow on CPUs.
    found = jax.lax.dot_general(values, block, (((0,), (0,)), ((), ())), precision=HIGHEST)
    return jnp.concatenate([found, values.sum(0)[:, None]], axis=1)


@jax.jit
def _both(block: Array, weights: Array, inside: Array) -> tuple[Array, Array]:
    outputs = _product(block, weights)
    return outputs, _transposed(block, inside * outputs)


def _newton_step(
    passes: _Passes, preconditioner: _Preconditioner, gradient: Array, inside: Array, c: float
) -> tuple[Array, Array]:
    """The step s with (1 + 2 C X^T D X) s = -gradient, D what is inside the margin, and the change X s of the outputs.

    By preconditioned conjugate gradients for all classes at once; each has its own lengths.
    """
    curvature = 2 * c * jnp.sum(inside, axis=0) / len(passes.features)
    residual = -gradient
    step, change = jnp.zeros_like(gradient), jnp.zeros_like(inside)
    scaled = preconditioner(residual, curvature)
    direction = scaled
    product = jnp.sum(residual * scaled, axis=0)
    goal = FORCING**2 * product
    for _ in range(CG_STEPS):
        open_ = product > goal
        if not open_.any():
            break
        outputs, curved = passes.both(direction, inside)
        curved = direction + 2 * c * curved
        length = jnp.where(open_, product / jnp.maximum(jnp.sum(direction * curved, axis=0), TINY), 0)
        step, change = step + length * direction, change + length * outputs
        residual = residual - length * curved
        scaled = preconditioner(residual, curvature)
        before, product = product, jnp.where(open_, jnp.sum(residual * scaled, axis=0), product)
        direction = scaled + product / jnp.maximum(before, TINY) * direction
    return step, change


@jax.jit
def _line_search(weights: Array, step: Array, signs: Array, outputs: Array, change: Array, c: float) -> Array:
    """How far along a step of each class its objective is lowest, [K]: where its slope, which rises, is zero."""
    linear, quadratic = jnp.sum(weights * step, axis=0), jnp.sum(step * step, axis=0)

    def slope(length: Array) -> Array:
        margins = signs * (outputs + length * change)
        inside = jnp.abs(signs) * jnp.maximum(1 - margins, 0)
        return linear + length * quadratic - 2 * c * jnp.sum(inside * signs * change, axis=0)

    def double(bounds: Array) -> Array:
        return jnp.where(slope(bounds) < 0, 2 * bounds, bounds)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        rising = slope(middle) > 0
        return jnp.where(rising, low, middle), jnp.where(rising, middle, high)

    high = jax.lax.fori_loop(0, DOUBLINGS, lambda _, bounds: double(bounds), jnp.ones(weights.shape[1]))
    low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (jnp.zeros_like(high), high))
    return jnp.where(quadratic > 0, (low + high) / 2, 0)
