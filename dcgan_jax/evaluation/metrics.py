"""Metrics of generated against real images: FID, KID, Inception score, precision, recall, density, coverage.

Features are float [N, F], logits float [N, K]. Everything is computed in float64 on the host: these numbers are
compared with other people's, and extracting the features takes most of the time anyway.
"""

from typing import NamedTuple

import numpy as np

from dcgan_jax.evaluation.moments import Moments
from dcgan_jax.runtime.progress import Progress, progress

# The protocols behind published numbers, as in torch-fidelity.
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
SCORE_PARTS = 10
SHUFFLE_SEED = 2020
PRECISION_NEIGHBOUR = 3  # Kynkaanniemi et al. 2019
DENSITY_NEIGHBOUR = 5  # Naeem et al. 2020

BLOCK_ROWS = 2048  # rows of a distance matrix that are computed at a time


def frechet_distance(a: Moments, b: Moments) -> float:
    """FID (Heusel et al. 2017): the squared Frechet distance between the Gaussians with these moments.

    |m - n|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)). The last trace is the sum of the singular values of A^(1/2) B^(1/2):
    this stays real, and works for singular covariances.
    """
    from scipy.linalg import svdvals  # imported late: a start of training should not wait for it

    difference = a.mean - b.mean
    with Progress("Frechet distance"):
        cross = svdvals(_square_root(a.covariance) @ _square_root(b.covariance)).sum()
    return float(difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross)


def _square_root(covariance: np.ndarray) -> np.ndarray:
    """R with R^T R = covariance."""
    values, vectors = np.linalg.eigh(covariance)
    # Eigenvalues below the rounding error of the largest are zero; the root of an error of 1e-16 would be 1e-8.
    values[values < len(values) * np.finfo(float).eps * values[-1]] = 0
    return (vectors * np.sqrt(values)) @ vectors.T


class Estimate(NamedTuple):
    """A value, its standard error, and the spread that is usually reported with it."""

    value: float
    standard_error: float
    spread: float


def kid(fake: np.ndarray, real: np.ndarray) -> Estimate:
    """KID (Binkowski et al. 2018): the unbiased squared MMD with the kernel (x y / F + 1)^3.

    value, spread: mean and standard deviation over 100 subsets of 1,000, drawn as torch-fidelity draws them. As these
    overlap, the standard error is taken over disjoint blocks of 1,000, and is NaN if there are fewer than two.
    fake, real: at least 1,000 vectors each.
    """
    fake, real = fake.astype(np.float64), real.astype(np.float64)
    rng = np.random.RandomState(SHUFFLE_SEED)
    values = []
    for _ in progress(range(KID_SUBSETS), "KID", "subsets"):
        chosen = [rng.choice(len(vectors), KID_SUBSET_SIZE, replace=False) for vectors in (fake, real)]
        values.append(squared_mmd(fake[chosen[0]], real[chosen[1]]))
    return Estimate(float(np.mean(values)), _kid_standard_error(fake, real), float(np.std(values)))


def _kid_standard_error(fake: np.ndarray, real: np.ndarray) -> float:
    count = min(len(fake), len(real)) // KID_SUBSET_SIZE
    if count < 2:
        return np.nan
    orders = [
        np.random.default_rng((SHUFFLE_SEED, i)).permutation(len(vectors)) for i, vectors in enumerate((fake, real))
    ]
    blocks = [[order[i * KID_SUBSET_SIZE :][:KID_SUBSET_SIZE] for order in orders] for i in range(count)]
    values = [squared_mmd(fake[fake_block], real[real_block]) for fake_block, real_block in blocks]
    return float(np.std(values, ddof=1) / np.sqrt(count))


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased squared maximum mean discrepancy (MMD) of float64 [N, F] and [M, F], with KID's kernel."""

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        base = a @ b.T / a.shape[1] + 1
        return base * base * base  # ** 3 was 18 times slower in numpy

    def mean_of_pairs(a: np.ndarray) -> float:
        values = kernel(a, a)
        return (values.sum() - np.trace(values)) / (len(a) * (len(a) - 1))

    return float(mean_of_pairs(x) + mean_of_pairs(y) - 2 * kernel(x, y).mean())


def inception_score(logits: np.ndarray) -> Estimate:
    """The Inception score (Salimans et al. 2016): exp of the mean KL divergence of p(class | image) from p(class).

    value, spread: mean and standard deviation over 10 parts, shuffled as in torch-fidelity. standard_error: of the
    mean. logits: of at least 10 images.
    """
    from scipy.special import log_softmax, logsumexp

    logits = logits[np.random.RandomState(SHUFFLE_SEED).permutation(len(logits))].astype(np.float64)
    log_p = log_softmax(logits, axis=1)
    scores = []
    for i in range(SCORE_PARTS):
        part = log_p[i * len(log_p) // SCORE_PARTS : (i + 1) * len(log_p) // SCORE_PARTS]
        log_mean = logsumexp(part, axis=0) - np.log(len(part))
        scores.append(np.exp((np.exp(part) * (part - log_mean)).sum(1).mean()))
    error = np.std(scores, ddof=1) / np.sqrt(SCORE_PARTS)
    return Estimate(float(np.mean(scores)), float(error), float(np.std(scores)))


def prdc(fake: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Precision, recall, density and coverage, each in [0, 1] except density.

    The k-th ball of an image has it as its centre, and its k-th nearest neighbour of the same kind on its surface.
    precision: the share of generated images in the third ball of a real one; recall: the share of real images in the
    third ball of a generated one (Kynkaanniemi et al. 2019).
    density: the number of real images in whose fifth ball a generated one lies, divided by five, on average; coverage:
    the share of real images with a generated one in their fifth ball (Naeem et al. 2020).
    fake, real: at least 6 vectors each.
    """
    fake, real = fake.astype(np.float64), real.astype(np.float64)
    real_third, real_fifth = _neighbour_distances(real, (PRECISION_NEIGHBOUR, DENSITY_NEIGHBOUR))
    (fake_third,) = _neighbour_distances(fake, (PRECISION_NEIGHBOUR,))
    precise, balls = [], []
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for start in progress(range(0, len(fake), BLOCK_ROWS), "precision and recall", "blocks"):
        distances = squared_distances(fake[start : start + BLOCK_ROWS], real)
        precise.append((distances <= real_third).any(1))
        inside = distances <= real_fifth
        balls.append(inside.sum(1))
        covered |= inside.any(0)
        recalled |= (distances <= fake_third[start : start + BLOCK_ROWS, None]).any(0)
    return {
        "precision": float(np.concatenate(precise).mean()),
        "recall": float(recalled.mean()),
        "density": float(np.concatenate(balls).mean() / DENSITY_NEIGHBOUR),
        "coverage": float(covered.mean()),
    }


def _neighbour_distances(points: np.ndarray, ranks: tuple[int, ...]) -> list[np.ndarray]:
    """For each rank k, the squared distances [N] of all points to their k-th nearest other point."""
    blocks = []
    for start in progress(range(0, len(points), BLOCK_ROWS), "distances of neighbours", "blocks"):
        distances = squared_distances(points[start : start + BLOCK_ROWS], points)
        blocks.append(np.partition(distances, ranks, axis=1)[:, ranks])  # at rank 0 is the point itself
    return list(np.concatenate(blocks).T)


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances, float64 [N, M], never negative, between float64 [N, F] and [M, F]."""
    squares = np.einsum("nf,nf->n", x, x)[:, None] + np.einsum("mf,mf->m", y, y)
    return np.maximum(squares - 2 * (x @ y.T), 0)


def nearest_neighbours(
    queries: np.ndarray, points: np.ndarray, *, exclude_self: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """For each query [N, F] the nearest point [M, F]: index int [N], and distance float64 [N].

    exclude_self: the queries are the points, and each gets the nearest other one.
    """
    queries, points = queries.astype(np.float64), points.astype(np.float64)
    indices, distances = [], []
    for start in progress(range(0, len(queries), BLOCK_ROWS), "nearest images", "blocks"):
        squares = squared_distances(queries[start : start + BLOCK_ROWS], points)
        if exclude_self:
            rows = np.arange(len(squares))
            squares[rows, start + rows] = np.inf
        indices.append(squares.argmin(1))
        distances.append(np.sqrt(squares.min(1)))
    return np.concatenate(indices), np.concatenate(distances)
