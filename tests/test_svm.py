"""The linear L2-SVM against scikit-learn's LinearSVC, which minimises the same objective."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.svm import LinearSVC

from dcgan_jax.evaluation.tables import svm


@pytest.fixture(scope="module")
def digits():
    features, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(features))
    mixed = features @ np.random.default_rng(1).normal(size=(64, 300)) / 20
    return np.maximum(mixed, 0)[order], labels[order]


@pytest.fixture(autouse=True)
def _small_preconditioner(monkeypatch):
    """Its eigenvectors take most of the time here, and do not change the result."""
    monkeypatch.setattr(svm, "PRECONDITIONER_EXAMPLES", 256)


def objective(weights, features, labels, c):
    signs = np.where(labels[:, None] == np.arange(weights.shape[1]), 1, -1)
    margins = signs * (features @ weights[:-1] + weights[-1])
    return 0.5 * np.square(weights).sum(0) + c * np.square(np.maximum(0, 1 - margins)).sum(0)


@pytest.mark.parametrize("c", [1e-4, 1e-2, 1.0])
def test_it_agrees_with_the_reference(digits, c):
    features, labels = digits
    train, test = slice(1200), slice(1200, None)
    reference = LinearSVC(C=c, tol=1e-6, max_iter=20_000).fit(features[train], labels[train])
    classifier = svm.fit(features[train], labels[train], 10, c)
    expected = np.concatenate([reference.coef_, reference.intercept_[:, None]], axis=1).T
    reached, best = (
        objective(weights.astype(np.float64), features[train], labels[train], c)
        for weights in (classifier.weights, expected)
    )
    assert reached.sum() < 1.01 * best.sum()
    accuracy = classifier.accuracy(features[test], labels[test])
    assert abs(accuracy - reference.score(features[test], labels[test])) <= 0.003


def test_blocks_and_starting_weights_change_nothing(digits, monkeypatch):
    features, labels = digits
    whole = svm.fit(features, labels, 10, 1e-2)
    solver = svm.Solver(features, labels, 10)
    solver.fit(1e-3)
    started = solver.fit(1e-2)
    monkeypatch.setattr(svm, "BLOCK_EXAMPLES", 500)
    monkeypatch.setattr(svm, "MAX_CONVERTED_BYTES", 0)
    in_blocks = svm.fit(features, labels, 10, 1e-2)
    lowest = objective(whole.weights, features, labels, 1e-2).sum()
    for other in (started, in_blocks):
        assert objective(other.weights, features, labels, 1e-2).sum() == pytest.approx(lowest, rel=2e-3)
        assert (other.scores(features).argmax(1) == whole.scores(features).argmax(1)).mean() > 0.997


def test_few_examples_are_learned_in_their_span(digits, monkeypatch):
    features, labels = digits[0][:60].astype(np.float16), digits[1][:60]
    features[30:40] = features[20:30]  # linearly dependent
    monkeypatch.setattr(svm, "BLOCK_FEATURES", 70)
    reduced = svm.Solver(features, labels, 10)
    monkeypatch.setattr(svm, "FEATURES_PER_EXAMPLE", 10**9)
    full = svm.Solver(features, labels, 10)
    assert reduced.passes.features.shape == (60, 60)
    assert full.passes.features.shape == features.shape
    for c in (1e-3, 1e-1):
        one, other = reduced.fit(c), full.fit(c)
        reached, lowest = (objective(each.weights, features, labels, c).sum() for each in (one, other))
        assert reached == pytest.approx(lowest, rel=2e-3)
        assert (one.scores(features).argmax(1) == other.scores(features).argmax(1)).all()


def test_features_may_be_float16_in_a_file(digits, tmp_path):
    features, labels = digits
    np.save(tmp_path / "features.npy", features.astype(np.float16))
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    accuracies = [svm.fit(some, labels, 10, 1e-2).accuracy(some, labels) for some in (mapped, features)]
    assert abs(accuracies[0] - accuracies[1]) < 0.003
