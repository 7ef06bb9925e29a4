"""Distances between two sets of features, generated and real: FID, KID, Inception score, precision, recall and kin.

Features are float [N, F], logits float [N, K]. All of it is computed in float64 on the host: the features are what
takes time, and these numbers are compared with those of others.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import svdvals
from scipy.special import log_softmax

from dcgan_jax.evaluation.moments import Moments

# The protocols that published numbers have, as torch-fidelity has them.
KID_SUBSETS, KID_SUBSET = 100, 1000
SCORE_SPLITS = 10
SHUFFLE = 2020
NEIGHBOUR = 3  # Kynkaanniemi et al.
NEIGHBOURHOOD = 5  # Naeem et al.

ROWS = 2048  # of a matrix of distances at a time


def frechet(a: Moments, b: Moments) -> float:
    """The squared Frechet distance between the Gaussians of these moments: FID (Heusel et al. 2017).

    |m - n|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2)). The last trace is the sum of the singular values of A^(1/2) B^(1/2):
    nothing becomes complex, and covariances may be singular.
    """
    difference = a.mean - b.mean
    cross = svdvals(_root(a.covariance) @ _root(b.covariance)).sum()
    return float(difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross)


def _root(covariance: np.ndarray) -> np.ndarray:
    """R with R^T R = R R^T = covariance."""
    values, vectors = np.linalg.eigh(covariance)
    # What is below the rounding of the largest is nothing; its root would be a hundred million times as much.
    values[values < len(values) * np.finfo(float).eps * values[-1]] = 0
    return (vectors * np.sqrt(values)) @ vectors.T


class Estimate(NamedTuple):
    """A value with its standard error, and the spread that others report beside it."""

    value: float
    standard_error: float
    spread: float


def kernel(fake: np.ndarray, real: np.ndarray) -> Estimate:
    """KID (Binkowski et al. 2018): the squared maximum mean discrepancy by the kernel (x y / F + 1)^3, unbiased.

    value, spread: mean and standard deviation over 100 subsets of 1,000, drawn as torch-fidelity draws them. As these
    overlap, the standard error is that of disjoint blocks of 1,000, NaN where there are fewer than two.
    At least 1,000 vectors of each kind are needed.
    """
    fake, real = fake.astype(np.float64), real.astype(np.float64)
    rng = np.random.RandomState(SHUFFLE)
    values = []
    for _ in range(KID_SUBSETS):
        chosen = [rng.choice(len(some), KID_SUBSET, replace=False) for some in (fake, real)]
        values.append(discrepancy(fake[chosen[0]], real[chosen[1]]))
    count = min(len(fake), len(real)) // KID_SUBSET
    orders = [np.random.default_rng((SHUFFLE, i)).permutation(len(some)) for i, some in enumerate((fake, real))]
    blocks = [[order[i * KID_SUBSET :][:KID_SUBSET] for order in orders] for i in range(count)]
    apart = [discrepancy(fake[first], real[second]) for first, second in blocks]
    error = np.std(apart, ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return Estimate(float(np.mean(values)), float(error), float(np.std(values)))


def discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased squared maximum mean discrepancy of float64 [N, F] and [M, F], by KID's kernel."""

    def products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        base = a @ b.T / a.shape[1] + 1
        return base * base * base  # ** 3 was 18 times slower in numpy

    def apart(a: np.ndarray) -> float:
        own = products(a, a)
        return (own.sum() - np.trace(own)) / (len(a) * (len(a) - 1))

    return float(apart(x) + apart(y) - 2 * products(x, y).mean())


def inception_score(logits: np.ndarray) -> Estimate:
    """The Inception score (Salimans et al. 2016): exp of the mean divergence of each image's classes from all images'.

    value, spread: mean and standard deviation over 10 parts, shuffled as torch-fidelity does. standard_error: of that
    mean.
    """
    logits = logits[np.random.RandomState(SHUFFLE).permutation(len(logits))].astype(np.float64)
    log_p = log_softmax(logits, axis=1)
    scores = []
    for i in range(SCORE_SPLITS):
        part = log_p[i * len(log_p) // SCORE_SPLITS : (i + 1) * len(log_p) // SCORE_SPLITS]
        log_mean = np.log(np.exp(part).mean(0))
        scores.append(np.exp((np.exp(part) * (part - log_mean)).sum(1).mean()))
    error = np.std(scores, ddof=1) / np.sqrt(SCORE_SPLITS)
    return Estimate(float(np.mean(scores)), float(error), float(np.std(scores)))


def precision_recall(fake: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Four shares in [0, 1] (density may be more).

    precision, recall: of generated images within reach of a real one, and the other way round; the reach of an image is
    the distance of the third nearest of its kind (Kynkaanniemi et al. 2019).
    density, coverage: how many real ones' reaches a generated image is in, over five, and the share of real images with
    a generated one in their reach, by the fifth nearest (Naeem et al. 2020).
    """
    fake, real = fake.astype(np.float64), real.astype(np.float64)
    real_reaches = _reaches(real, (NEIGHBOUR, NEIGHBOURHOOD))
    (fake_reach,) = _reaches(fake, (NEIGHBOUR,))
    precise, dense = [], []
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for start in range(0, len(fake), ROWS):
        distances = squared_distances(fake[start : start + ROWS], real)
        precise.append((distances <= real_reaches[0]).any(1))
        within = distances <= real_reaches[1]
        dense.append(within.sum(1))
        covered |= within.any(0)
        recalled |= (distances <= fake_reach[start : start + ROWS, None]).any(0)
    return {
        "precision": float(np.concatenate(precise).mean()),
        "recall": float(recalled.mean()),
        "density": float(np.concatenate(dense).mean() / NEIGHBOURHOOD),
        "coverage": float(covered.mean()),
    }


def _reaches(points: np.ndarray, ranks: tuple[int, ...]) -> list[np.ndarray]:
    """For each rank k and point, the squared distance of the k-th nearest other point."""
    found = []
    for start in range(0, len(points), ROWS):
        distances = squared_distances(points[start : start + ROWS], points)
        found.append(np.partition(distances, ranks, axis=1)[:, ranks])  # each is its own nearest, at rank 0
    return list(np.concatenate(found).T)


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances, float64 [N, M], of float64 [N, F] and [M, F]; none is negative."""
    squares = np.einsum("nf,nf->n", x, x)[:, None] + np.einsum("mf,mf->m", y, y)
    return np.maximum(squares - 2 * (x @ y.T), 0)


def nearest(queries: np.ndarray, points: np.ndarray, *, apart: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """For each query the nearest point: index int [N], and distance float64 [N].

    apart: the queries are the points, and each looks for the nearest other one.
    """
    queries, points = queries.astype(np.float64), points.astype(np.float64)
    indices, distances = [], []
    for start in range(0, len(queries), ROWS):
        squares = squared_distances(queries[start : start + ROWS], points)
        if apart:
            rows = np.arange(len(squares))
            squares[rows, start + rows] = np.inf
        indices.append(squares.argmin(1))
        distances.append(np.sqrt(squares.min(1)))
    return np.concatenate(indices), np.concatenate(distances)
