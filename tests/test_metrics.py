"""FID, KID, Inception score, precision and recall: closed forms, brute force, invariants."""

import numpy as np
import pytest

from dcgan_jax.evaluation import metrics
from dcgan_jax.evaluation.moments import Moments, moments_of


def rotation(rng, size):
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


def gaussian(mean, covariance):
    return Moments(1001, np.asarray(mean, float), np.asarray(covariance) * 1000)


def test_frechet_distance_of_gaussians_that_commute():
    # With common axes the distance is |m - n|^2 and the squared differences of the standard deviations.
    rng = np.random.default_rng(0)
    axes = rotation(rng, 20)
    a, b = rng.uniform(0.1, 3, (2, 20))
    mean_a, mean_b = rng.normal(size=(2, 20))
    distance = metrics.frechet_distance(
        gaussian(mean_a, (axes * a**2) @ axes.T),
        gaussian(mean_b, (axes * b**2) @ axes.T),
    )
    assert distance == pytest.approx(np.sum((mean_a - mean_b) ** 2) + np.sum((a - b) ** 2), rel=1e-9)


def test_frechet_distance_of_gaussians_that_do_not_commute():
    # In two dimensions tr (A B)^(1/2) is the root of tr(A B) + 2 (det A det B)^(1/2).
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = ((r := rng.normal(size=(2, 2))) @ r.T for _ in range(2))
        cross = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a) * np.linalg.det(b)))
        distance = metrics.frechet_distance(gaussian([0, 0], a), gaussian([0, 0], b))
        assert distance == pytest.approx(np.trace(a) + np.trace(b) - 2 * cross, abs=1e-9)


def test_frechet_distance_of_singular_covariances():
    rng = np.random.default_rng(2)
    axes = rotation(rng, 30)
    a, b = rng.uniform(0.1, 3, (2, 30))
    a[10:], b[15:] = 0, 0
    distance = metrics.frechet_distance(
        gaussian(np.zeros(30), (axes * a**2) @ axes.T), gaussian(np.zeros(30), (axes * b**2) @ axes.T)
    )
    assert distance == pytest.approx(np.sum((a - b) ** 2), rel=1e-6)


def test_frechet_distance_of_a_set_to_itself_is_zero():
    vectors = np.random.default_rng(3).normal(size=(500, 40)).astype(np.float32) + 100
    assert metrics.frechet_distance(moments_of(vectors), moments_of(vectors)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_moments_do_not_depend_on_the_parts(parts):
    # With a mean of a million and a spread of one, a naive sum of squares has no correct digits left.
    vectors = np.random.default_rng(4).normal(size=(3000, 8)) + 1e6
    merged = Moments.empty(8)
    for part in np.array_split(vectors, parts):
        own = Moments.empty(8)
        own.add(part)
        merged.merge(own)
    merged.merge(Moments.empty(8))
    np.testing.assert_allclose(merged.mean, vectors.mean(0), rtol=1e-12)
    np.testing.assert_allclose(merged.covariance, np.cov(vectors.T), rtol=1e-6, atol=1e-9)
    assert merged.count == 3000


def test_squared_mmd_is_unbiased():
    rng = np.random.default_rng(5)
    values = [metrics.squared_mmd(*rng.normal(size=(2, 40, 3))) for _ in range(2000)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))
    assert np.min(values) < 0


def test_squared_mmd_equals_its_sum_over_pairs():
    x, y = np.random.default_rng(6).normal(size=(2, 6, 3))

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6)]
    expected = sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs if i != j) / 30
    expected -= 2 * sum(k(x[i], y[j]) for i, j in pairs) / 36
    assert metrics.squared_mmd(x, y) == pytest.approx(expected, rel=1e-12)


def test_kid_reports_its_standard_error(monkeypatch):
    monkeypatch.setattr(metrics, "KID_SUBSET_SIZE", 200)
    x, y = np.random.default_rng(7).normal(size=(2, 800, 5)).astype(np.float32)
    same, shifted = metrics.kid(x, y), metrics.kid(x, y + 0.5)
    assert abs(same.value) < 5 * same.standard_error < shifted.value
    assert np.isnan(metrics.kid(x[:300], y).standard_error)  # one block has no spread


def test_inception_score_of_known_classes():
    sure = np.tile(np.eye(10) * 1000, (50, 1))
    assert 9 < metrics.inception_score(sure).value <= 10  # a part of 50 has not quite five of each
    assert metrics.inception_score(np.zeros((500, 10))).value == pytest.approx(1, abs=1e-12)


def brute_force(fake, real):
    """The definitions of Kynkaanniemi et al. and Naeem et al., point by point."""

    def reach(points, k):
        return [sorted(np.linalg.norm(points - p, axis=1))[k] for p in points]

    def within(point, points, reaches):
        return [np.linalg.norm(point - p) <= r for p, r in zip(points, reaches, strict=True)]

    real_3, real_5, fake_3 = reach(real, 3), reach(real, 5), reach(fake, 3)
    return {
        "precision": np.mean([any(within(f, real, real_3)) for f in fake]),
        "recall": np.mean([any(within(r, fake, fake_3)) for r in real]),
        "density": np.mean([sum(within(f, real, real_5)) for f in fake]) / 5,
        "coverage": np.mean([min(np.linalg.norm(fake - r, axis=1)) <= d for r, d in zip(real, real_5, strict=True)]),
    }


@pytest.mark.parametrize("shift", [0.0, 1.0, 30.0])
def test_prdc_by_its_definitions(shift, monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK_ROWS", 7)  # several blocks
    rng = np.random.default_rng(8)
    fake, real = rng.normal(size=(40, 3)) * 0.7 + shift, rng.normal(size=(50, 3))
    values = metrics.prdc(fake, real)
    assert values == pytest.approx(brute_force(fake, real))
    if shift == 30:
        assert set(values.values()) == {0.0}


def test_nearest_neighbours(monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK_ROWS", 7)
    points = np.random.default_rng(9).normal(size=(30, 4))
    indices, distances = metrics.nearest_neighbours(points[::-1], points)
    assert indices.tolist() == list(range(30))[::-1]
    np.testing.assert_allclose(distances, 0, atol=1e-6)
    indices, distances = metrics.nearest_neighbours(points, points, exclude_self=True)
    own = np.linalg.norm(points[:, None] - points, axis=-1) + np.diag([np.inf] * 30)
    assert indices.tolist() == own.argmin(1).tolist()
    np.testing.assert_allclose(distances, own.min(1), rtol=1e-9)
