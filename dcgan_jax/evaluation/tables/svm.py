"""A linear L2-SVM (squared hinge loss, one class against the rest) for features that do not fit in memory as float32.

It minimises the objective of LIBLINEAR and scikit-learn's LinearSVC, for each class

    |w|^2 / 2 + C sum_i max(0, 1 - y_i (w x_i + b))^2,    y_i = 1 for the class and -1 for the others,

where the bias b is the weight of an additional feature that is always 1. The method is Newton's, as the objective is
quadratic for a fixed set of examples inside the margin. Each Newton step solves its linear system by preconditioned
conjugate gradients, then does an exact line search. All classes are fitted at once. The features are read in blocks, in
their own dtype, once per iteration of conjugate gradients. Since a network's features vary mostly along few directions,
the preconditioner is made from the principal directions of some examples (Nystrom: Frangella, Tropp and Udell 2021).
If there are far fewer examples than features, the problem is first reduced to the space that the examples span.
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

BLOCK_EXAMPLES = 512  # per block; about ten blocks are in memory at a time
# The problem is reduced to the span of the examples if there are at least so many features per example, and at most
# so many examples.
FEATURES_PER_EXAMPLE, MAX_SPAN_EXAMPLES = 4, 8192
BLOCK_FEATURES = 2048  # per block when the examples' products with one another are summed
RIDGE = 1e-9  # relative to the mean squared length of an example
MAX_CONVERTED_BYTES = 2**30  # features of at most this size in float32 are converted once, not in every pass
# A class has converged if its objective is certainly within this factor of the minimum, and its gradient's norm has
# fallen to this share of the norm at zero weights. The first decides for a large C; the second for a small one, where
# the objective hardly changes any more but the order of the scores does.
OBJECTIVE_GAP, GRADIENT_TOLERANCE = 0.01, 1e-3
NEWTON_STEPS = 50
CG_STEPS = 40
PRECONDITIONER_EXAMPLES = 2048
FORCING_TERM = 0.1  # conjugate gradients stop when this share of the (preconditioned) residual is left
DOUBLINGS, BISECTIONS = 8, 30  # of the line search
TINY = 1e-30  # instead of zero in a denominator

HIGHEST = jax.lax.Precision.HIGHEST  # accelerators multiply with reduced precision by default


class LinearClassifier(NamedTuple):
    """weights: float32 [F + 1, K], the bias last. passes: the number of passes over the features in this fit."""

    weights: np.ndarray
    passes: int

    def scores(self, features: np.ndarray) -> np.ndarray:
        """features [N, F] -> scores float32 [N, K]; the largest is that of the predicted class."""
        passes = _Passes(features, keep=False)
        return np.asarray(passes.product(jnp.asarray(self.weights)))[: len(features)]

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        """The share of features [N, F] that are classified as their labels, int [N], say."""
        return float((self.scores(features).argmax(1) == labels).mean())


def fit(features: np.ndarray, labels: np.ndarray, classes: int, c: float) -> LinearClassifier:
    """The classifier of these examples for one C; see `Solver`."""
    return Solver(features, labels, classes).fit(c)


class Solver:
    """Fits classifiers of the same examples for one C after another; each fit starts from the last one's weights.

    features: [N, F], float32 or float16, in memory or mapped from a file; not to be changed. labels: int [N], below
    `classes`.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, classes: int):
        reduced = len(features) <= min(features.shape[1] // FEATURES_PER_EXAMPLE, MAX_SPAN_EXAMPLES)
        self.span = _Span(features) if reduced else None
        self.passes = _Passes(self.span.coordinates if self.span else features)
        self.preconditioner = _Preconditioner(self.passes.features)
        signs = np.where(labels[:, None] == np.arange(classes), 1, -1).astype(np.float32)
        self.signs = jnp.asarray(_pad_block(signs))  # 0 in the padding, which therefore has no error
        self.square_at_zero = jnp.sum(jnp.square(self.passes.transposed(self.signs)), axis=0)
        self.weights = jnp.zeros((self.passes.features.shape[1] + 1, classes))
        self.outputs = jnp.zeros_like(self.signs)

    def fit(self, c: float) -> LinearClassifier:
        """The classifier for this C; the next fit starts from its weights."""
        passes, signs, before = self.passes, self.signs, self.passes.count
        weights, outputs = self.weights, self.outputs
        for _ in range(NEWTON_STEPS):
            inside = jnp.abs(signs) * (signs * outputs < 1)
            errors = inside * (signs - outputs)
            gradient = weights - 2 * c * passes.transposed(errors)
            objective = jnp.sum(jnp.square(weights), axis=0) / 2 + c * jnp.sum(jnp.square(errors), axis=0)
            square = jnp.sum(jnp.square(gradient), axis=0)
            # The objective contains |w|^2 / 2: it exceeds its minimum by at most half the squared norm of the gradient.
            tolerated = (GRADIENT_TOLERANCE * 2 * c) ** 2 * self.square_at_zero
            moving = (square / 2 > OBJECTIVE_GAP * objective) | (square > tolerated)
            if not moving.any():
                break
            step, change = _newton_step(passes, self.preconditioner, gradient * moving, inside, c)
            length = _line_search(weights, step, signs, outputs, change, c)
            weights, outputs = weights + length * step, outputs + length * change
        else:
            message = "%d of %d classes have not converged after %d Newton steps (C %g)"
            log.warning(message, moving.sum(), len(moving), NEWTON_STEPS, c)
        self.weights, self.outputs = weights, outputs
        weights = self.span.lift(weights) if self.span else weights
        return LinearClassifier(np.asarray(weights), passes.count - before)


class _Span:
    """The space that the examples span, for fewer examples than features.

    In an orthonormal basis of it, the examples are the rows of a triangular matrix (the Cholesky factor of X X^T). A
    classifier's weights, without the bias, lie in it and have the same length there.
    """

    def __init__(self, features: np.ndarray):
        self.features = features
        products = np.zeros((len(features),) * 2)
        for start in range(0, features.shape[1], BLOCK_FEATURES):
            block = features[:, start : start + BLOCK_FEATURES].astype(np.float64)
            products += block @ block.T
        # Keeps the matrix positive definite if examples are linearly dependent.
        products[np.diag_indices_from(products)] += RIDGE * products.trace() / len(products) + TINY
        self.triangle = np.linalg.cholesky(products)
        self.coordinates = self.triangle.astype(np.float32)  # [N, N]

    def lift(self, weights: Array) -> Array:
        """Weights in this basis [N + 1, K] -> weights of the features [F + 1, K]; the bias is the same."""
        coefficients = solve_triangular(self.triangle, np.asarray(weights[:-1]), lower=True, trans="T")
        passes = _Passes(self.features, keep=False)
        lifted = passes.transposed(jnp.asarray(_pad_block(coefficients.astype(np.float32))))
        return lifted.at[-1].set(weights[-1])


class _Passes:
    """Products with the features X [N, F], and with an additional last feature that is always 1, block by block.

    Results of N rows are padded to whole blocks, and so are arguments, with zeros: these add nothing to sums.
    """

    def __init__(self, features: np.ndarray, keep: bool = True):
        self.features, self.count = features, 0
        self.converted: list[tuple[slice, Array]] = []
        if keep and features.size * 4 <= MAX_CONVERTED_BYTES:
            self.converted = list(self._convert())

    def blocks(self) -> Iterator[tuple[slice, Array]]:
        """One pass over the features: rows, and their features as float32."""
        self.count += 1
        yield from self.converted or self._convert()

    def _convert(self) -> Iterator[tuple[slice, Array]]:
        for start in range(0, len(self.features), BLOCK_EXAMPLES):
            block = self.features[start : start + BLOCK_EXAMPLES]
            # Converted in a separate call: inside the product, XLA's conversion takes three times as long.
            yield slice(start, start + BLOCK_EXAMPLES), _float32(jax.device_put(_pad_block(block)))

    def product(self, weights: Array) -> Array:
        """X weights: [F + 1, K] -> [N, K]."""
        return jnp.concatenate([_product(block, weights) for _, block in self.blocks()])

    def transposed(self, values: Array) -> Array:
        """X^T values: [N, K] -> [F + 1, K]."""
        return sum(_transposed(block, values[rows]) for rows, block in self.blocks()).T

    def normal_product(self, weights: Array, inside: Array) -> tuple[Array, Array]:
        """X weights [N, K] and X^T (inside * X weights) [F + 1, K], in one pass."""
        outputs, total = [], jnp.zeros_like(weights.T)
        for rows, block in self.blocks():
            block_outputs, block_total = _normal_product(block, weights, inside[rows])
            outputs.append(block_outputs)
            total += block_total
        return jnp.concatenate(outputs), total.T


def _pad_block(rows: np.ndarray) -> np.ndarray:
    """Rows [N, ...] padded with zeros to whole blocks."""
    missing = -len(rows) % BLOCK_EXAMPLES
    return np.pad(rows, ((0, missing), *((0, 0),) * (rows.ndim - 1))) if missing else rows


class _Preconditioner:
    """An approximate inverse of 1 + curvature X^T X, from the principal directions of some evenly spaced examples."""

    def __init__(self, features: np.ndarray):
        chosen = np.linspace(0, len(features) - 1, min(PRECONDITIONER_EXAMPLES, len(features))).astype(int)
        rows = np.pad(features[chosen].astype(np.float32), ((0, 0), (0, 1)), constant_values=1)
        values, vectors = np.linalg.eigh((rows @ rows.T).astype(np.float64))
        large = values > 1e-6 * values[-1]
        values, vectors = values[large], vectors[:, large]
        self.basis = jnp.asarray(rows.T @ (vectors / np.sqrt(values)).astype(np.float32))  # [F + 1, R], orthonormal
        self.values = jnp.asarray(values * len(features) / len(chosen), jnp.float32)  # ascending

    def __call__(self, residual: Array, curvature: Array) -> Array:
        """residual [F + 1, K], curvature [K] -> [F + 1, K]."""
        return _preconditioned(residual, self.basis, self.values, curvature)


@jax.jit
def _preconditioned(residual: Array, basis: Array, values: Array, curvature: Array) -> Array:
    curved = 1 + values[:, None] * curvature
    along = jnp.matmul(basis.T, residual, precision=HIGHEST)
    # In all other directions, the curvature is taken to be that of the least principal direction.
    return residual + jnp.matmul(basis, (curved[0] / curved - 1) * along, precision=HIGHEST)


_float32 = jax.jit(lambda block: block.astype(jnp.float32))


@jax.jit
def _product(block: Array, weights: Array) -> Array:
    return jnp.matmul(block, weights[:-1], precision=HIGHEST) + weights[-1]


@jax.jit
def _transposed(block: Array, values: Array) -> Array:
    # [K, F + 1], transposed after the sum over blocks: computing [F + 1, K] here is three times as slow on CPUs.
    total = jax.lax.dot_general(values, block, (((0,), (0,)), ((), ())), precision=HIGHEST)
    return jnp.concatenate([total, values.sum(0)[:, None]], axis=1)


@jax.jit
def _normal_product(block: Array, weights: Array, inside: Array) -> tuple[Array, Array]:
    outputs = _product(block, weights)
    return outputs, _transposed(block, inside * outputs)


def _newton_step(
    passes: _Passes, preconditioner: _Preconditioner, gradient: Array, inside: Array, c: float
) -> tuple[Array, Array]:
    """The step s with (1 + 2 C X^T D X) s = -gradient, and the change X s of the outputs.

    D is diagonal, 1 for examples inside the margin (`inside`). Preconditioned conjugate gradients, for all classes at
    once, each with its own step lengths.
    """
    curvature = 2 * c * jnp.sum(inside, axis=0) / len(passes.features)
    residual = -gradient
    step, change = jnp.zeros_like(gradient), jnp.zeros_like(inside)
    scaled = preconditioner(residual, curvature)
    direction = scaled
    product = jnp.sum(residual * scaled, axis=0)
    goal = FORCING_TERM**2 * product
    for _ in range(CG_STEPS):
        unfinished = product > goal
        if not unfinished.any():
            break
        outputs, curved = passes.normal_product(direction, inside)
        curved = direction + 2 * c * curved
        length = jnp.where(unfinished, product / jnp.maximum(jnp.sum(direction * curved, axis=0), TINY), 0)
        step, change = step + length * direction, change + length * outputs
        residual = residual - length * curved
        scaled = preconditioner(residual, curvature)
        before, product = product, jnp.where(unfinished, jnp.sum(residual * scaled, axis=0), product)
        direction = scaled + product / jnp.maximum(before, TINY) * direction
    return step, change


@jax.jit
def _line_search(weights: Array, step: Array, signs: Array, outputs: Array, change: Array, c: float) -> Array:
    """The length [K] of each class's step that minimises its objective: the zero of its slope, which increases."""
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
