"""Mean and covariance of a stream of vectors, by parts that may be added in any number and order."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Moments:
    """Count, mean and scatter (the sum of outer products of what differs from the mean) of vectors, in float64.

    Parts are merged by the update of Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing
    Sample Variances" (1979), so that no digits are lost where the mean is large beside the spread.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance, float64 [F, F]. At least two vectors must have come."""
        return self.scatter / (self.count - 1)

    def add(self, vectors: np.ndarray) -> None:
        """Adds vectors, float [N, F]."""
        if len(vectors):
            vectors = vectors.astype(np.float64)
            mean = vectors.mean(0)
            centred = vectors - mean
            self.merge(Moments(len(vectors), mean, centred.T @ centred))

    def merge(self, other: "Moments") -> None:
        """Adds what another has seen."""
        if not other.count:
            return
        count = self.count + other.count
        difference = other.mean - self.mean
        self.scatter = self.scatter + other.scatter
        self.scatter += np.outer(difference, difference) * (self.count * other.count / count)
        self.mean = self.mean + difference * (other.count / count)
        self.count = count


def empty(size: int) -> Moments:
    """The moments of no vectors of this length."""
    return Moments(0, np.zeros(size), np.zeros((size, size)))
