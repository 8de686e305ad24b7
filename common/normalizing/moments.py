"""The mean and the variance of numbers that come in batches, over all of them up to now.

They are kept in float64 as Welford does it, in the form for whole batches (Chan, Golub and LeVeque
1979, "Updating formulae and a pairwise algorithm for computing sample variances").
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

# The least variance, as in Stable-Baselines3: numbers that are always the same have none.
LEAST_VARIANCE = 1e-8
# Larger numbers count as this, of either sign: their squares stay finite.
MOST_MAGNITUDE = 1e30
# Once so many rows are known, a number counts as no further than this from the mean, in deviations.
# One that is absurd would else make all others equal, and for good.
KNOWN_ROWS, MOST_DEVIATIONS = 1000, 1000.0
# No run has more rows, and the next ones must still be counted in int64.
MOST_ROWS = 2**53


class Sample(NamedTuple):
    """What some rows of E numbers bring to the figures of all."""

    num_rows: int
    mean: Doubles  # [E]
    squares: Doubles  # [E] summed distances from that mean, squared


class Moments:
    """Count, mean and sum of squared distances of rows of E numbers."""

    def __init__(self, size: int) -> None:
        """There is no row up to now; each will have E = `size` numbers."""
        self.count = 0
        self.mean: Doubles = np.zeros(size)
        self._squares: Doubles = np.zeros(size)  # summed distances from the mean, squared

    def look_at(self, rows: NDArray[Any]) -> Sample:
        """What rows [n, E] of any real dtype bring, but for those that hold what is no number."""
        exact = rows.astype(np.float64).clip(-MOST_MAGNITUDE, MOST_MAGNITUDE)
        if (unfit := np.isnan(exact).any(axis=1)).any():
            exact = exact[~unfit]
        if not len(exact):
            return Sample(0, np.zeros_like(self.mean), np.zeros_like(self.mean))
        if self.count >= KNOWN_ROWS:
            reach = MOST_DEVIATIONS / self.inverse_std
            exact.clip(self.mean - reach, self.mean + reach, out=exact)
        mean = exact.mean(axis=0)
        exact -= mean
        return Sample(len(exact), mean, np.square(exact).sum(axis=0))

    def take(self, sample: Sample) -> None:
        """Takes in what `look_at` has found."""
        if not sample.num_rows:
            return
        distances = sample.mean - self.mean
        before, self.count = self.count, self.count + sample.num_rows
        share = sample.num_rows / self.count
        self.mean += distances * share
        self._squares += sample.squares + np.square(distances) * (before * share)

    @property
    def inverse_std(self) -> Doubles:
        """[E] one divided by the deviation; ones before the first row."""
        if not self.count:
            return np.ones_like(self.mean)
        inverse: Doubles = 1.0 / np.sqrt(self._squares / self.count + LEAST_VARIANCE)
        return inverse

    def tensors(self) -> dict[str, NDArray[np.generic]]:
        """Copies of everything, by name, for a checkpoint."""
        return {
            "count": np.array([self.count], np.int64),
            "mean": self.mean.copy(),
            "squares": self._squares.copy(),
        }

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Takes over what `tensors` gave.

        Raises KeyError or ValueError with the name of what is missing, or cannot be such.
        """
        found = {name: tensors[name] for name in self.tensors()}
        for name, own in self.tensors().items():
            array = found[name]
            if array.shape != own.shape or array.dtype != own.dtype:
                raise ValueError(f"{name}, which is {array.dtype}{list(array.shape)}")
            least = -np.inf if name == "mean" else 0
            most = MOST_ROWS if name == "count" else np.inf
            if not (np.isfinite(array) & (array >= least) & (array <= most)).all():
                raise ValueError(f"{name}, which no numbers give")
        self.count = int(found["count"][0])
        self.mean = np.array(found["mean"], np.float64)
        self._squares = np.array(found["squares"], np.float64)
