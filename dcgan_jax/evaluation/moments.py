"""Mean and covariance of a stream of vectors, computed block by block."""

from dataclasses import dataclass

import numpy as np

BLOCK = 1024  # vectors added at a time


@dataclass
class Moments:
    """Number, mean [F] and scatter [F, F] of vectors, float64; scatter = sum_i (x_i - mean)(x_i - mean)^T.

    Parts are merged in any order by the update of Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm
    for Computing Sample Variances" (1979), which stays exact even if the mean is large compared with the spread.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def empty(cls, size: int) -> "Moments":
        """The moments of no vectors; `size` is the length of vectors to come."""
        return cls(0, np.zeros(size), np.zeros((size, size)))

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance, float64 [F, F], of at least two vectors."""
        return self.scatter / (self.count - 1)

    def add(self, vectors: np.ndarray) -> None:
        """Adds vectors, float [N, F]."""
        if len(vectors):
            vectors = vectors.astype(np.float64)
            mean = vectors.mean(0)
            centred = vectors - mean
            self.merge(Moments(len(vectors), mean, centred.T @ centred))

    def merge(self, other: "Moments") -> None:
        """Adds the vectors behind other moments."""
        if not other.count:
            return
        count = self.count + other.count
        difference = other.mean - self.mean
        self.scatter = self.scatter + other.scatter
        self.scatter += np.outer(difference, difference) * (self.count * other.count / count)
        self.mean = self.mean + difference * (other.count / count)
        self.count = count


def moments_of(vectors: np.ndarray) -> Moments:
    """The moments of vectors, float [N, F]."""
    moments = Moments.empty(vectors.shape[1])
    for start in range(0, len(vectors), BLOCK):
        moments.add(vectors[start : start + BLOCK])
    return moments
