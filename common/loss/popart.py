"""PopArt: every task's values are learned in units of their own spread.

The network's baseline n is normalised. A value is v = std * n + mean, where mean and standard
deviation are those of the targets that the task's values are learned from. After each step they
move towards the batch's, and the last layer is rescaled so that no value changes (van Hasselt et
al. 2016, "Learning values across many orders of magnitude"; Hessel et al. 2018, for many tasks).

Everything stays on the device and nothing looks at a number, so that a GPU can record an update.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# A deviation is at most the task's range times this. A target that is further from the mean, in
# deviations, counts as this far: so the squares have room in float32.
MOST = 1e6


class Head(NamedTuple):
    """The last layer of the baseline, or a mean of it: a row for each of K tasks."""

    weight: Tensor  # [K, F] float32
    bias: Tensor  # [K] float32


class PopArt:
    """The mean and the standard deviation of each task's targets, which running averages give.

    Attributes:
      mean: [K] float64 running mean of the targets, 0 at first.
      second: [K] float64 running mean of their squares; at first it is the range squared.
      seen: [K] float64 how many updates had rows of the task.
      std: [K] float64 the deviation that follows, within its bounds.
    """

    def __init__(
        self, ranges: Sequence[float], beta: float, least: float, device: torch.device
    ) -> None:
        """Begins with a mean of 0 and the range as the deviation.

        Args:
          ranges: of each task, how far the returns of a good and a bad policy are apart, in the
            rewards that are learned from; above 0.
          beta: how far the averages move towards a batch at least.
          least: the least deviation, as a share of the range.
          device: where an update is computed.
        """
        own = torch.tensor(ranges, dtype=torch.float64, device=device)
        self._beta, self._least, self._most = beta, least * own, MOST * own
        self.mean, self.second = torch.zeros_like(own), own.square()
        self.seen, self.std = torch.zeros_like(own), self._std()

    def scales(self, tasks: Tensor) -> Tensor:
        """The deviation of each column, float32 like `tasks` [B] int64."""
        return self.std[tasks].float()

    def values(self, outputs: Tensor, tasks: Tensor) -> Tensor:
        """The values that the network's normalised baselines [R, B] stand for, of the same dtype.

        They carry gradients. `tasks` [B] int64 are those of the columns.
        """
        std, mean = (of[tasks].to(outputs.dtype) for of in (self.std, self.mean))
        return outputs * std + mean

    @torch.no_grad()
    def sums(self, targets: Tensor, rows: Tensor, tasks: Tensor) -> Tensor:
        """[3, K] float64: of each task the number of rows, and sums that `update` needs.

        Those are of the targets' distances from the mean, in deviations, and of their squares. Sums
        of several learners add up to those of all their rows. No number of a task gets into
        another's.

        Args:
          targets: [T, B] what the values are learned from.
          rows: [T, B] bool, which of them count.
          tasks: [B] int64.
        """
        distances = (targets.double() - self.mean[tasks]) / self.std[tasks]
        distances = torch.where(rows, distances.clamp(-MOST, MOST), 0.0)
        of_columns = torch.stack(
            [rows.double().sum(0), distances.sum(0), distances.square().sum(0)]
        )  # [3, B]
        none = of_columns.new_zeros(3, len(self.mean))
        return none.index_add_(1, tasks, of_columns)

    @torch.no_grad()
    def update(self, sums: Tensor, heads: Iterable[Head], taken: Tensor | bool = True) -> None:
        """Moves the statistics towards those of a batch, and rescales the heads in place.

        The first updates of a task count all alike, so that its statistics have the right size
        after one of them. What a task has no rows of stays as it is.

        Args:
          sums: [3, K] what `sums` gave, of any float dtype.
          heads: the layers whose values are to stay the same.
          taken: whether the step was taken, a scalar on the device; nothing changes otherwise.
        """
        count, first, square = sums.double().unbind()
        there = (count > 0) & taken
        self.seen += there
        step = self.seen.clamp(min=1.0).reciprocal().clamp(min=self._beta)
        mean_there = self.mean + self.std * first / count
        second_there = (
            self.mean * (2.0 * mean_there - self.mean) + self.std.square() * square / count
        )
        mean, std = self.mean.clone(), self.std.clone()
        for average, of_batch in ((self.mean, mean_there), (self.second, second_there)):
            average.copy_(torch.where(there, average + step * (of_batch - average), average))
        self.std.copy_(self._std())
        factor, shift = std / self.std, (mean - self.mean) / self.std
        for weight, bias in heads:
            weight.copy_(weight.double() * factor[:, None])
            bias.copy_(bias.double() * factor + shift)

    def tensors(self) -> dict[str, Tensor]:
        """The statistics by name, the tensors themselves."""
        return {"mean": self.mean, "second": self.second, "seen": self.seen, "std": self.std}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over other statistics; the deviation follows from these, within its own bounds."""
        for name in ("mean", "second", "seen"):
            self.tensors()[name].copy_(tensors[name])
        self.std.copy_(self._std())

    def _std(self) -> Tensor:
        # In float32 nothing would be left of the difference of two such numbers.
        variance = self.second - self.mean.square()
        return variance.clamp(self._least.square(), self._most.square()).sqrt()
