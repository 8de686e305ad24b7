"""The engine of a learner in a group: all learners add up their gradients, and take the same step.

An update has two halves, and between them one sum over all learners of one vector:

    the gradient of the summed loss | what a pass has changed in a user's own buffers, times the
    columns | PopArt's sums of each task, if there are some | a row of figures of each learner

Each learner then divides by the rows that count in all batches, if the run wants means: a mean of
the learners' means would be wrong, since their batches have different numbers of such rows. Buffers
become the mean over the columns. On a GPU each half is a CUDA graph, and the host looks at no
number.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from impala_redis.common.devices.device import enough_memory
from impala_redis.common.devices.graph import Capture, capture_for
from impala_redis.common.grouping.joint_figures import (
    COLUMNS,
    COUNT,
    COUNTS,
    REAL,
    joint_figures,
)
from impala_redis.common.learning.gpu_engine import EndStage, GpuEngine, not_timed
from impala_redis.common.learning.torch_inputs import Inputs, Tensors
from impala_redis.common.loss.impala import (
    LEAST_DEVIATION,
    LEAST_WEIGHT,
    rows_that_count,
    squared_by_weight,
)
from impala_redis.common.loss.task_loss import Outcome
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec

log = logging.getLogger(__name__)

# Makes a vector on the device, in place, the sum of all learners' vectors.
AddUp = Callable[[Tensor], None]


class Adding(Protocol):
    """As much of a group of learners as its engines need."""

    rank: int
    ranks: int

    def add_up(self, vector: Tensor) -> None:
        """Makes the vector, in place, the sum of all learners' vectors."""


class GroupEngine(GpuEngine):
    """Computes in torch one learner's part of each update; all learners call it alike.

    A step may be asked for with no column: then the learner takes part with zeros.
    """

    @enough_memory()
    def __init__(
        self,
        spec: RunSpec,
        config: Config,
        device: torch.device,
        ranks: int,
        rank: int,
        add_up: AddUp,
        capture: Capture | None = None,
    ) -> None:
        """A fresh network on the device, the same for each of `ranks` learners.

        `capture` records the halves of an update, None leaves them unrecorded. Every update of
        whole batches calls `add_up` as often for each learner, and so does every `step`.

        Raises DeviceFull.
        """
        if config.loss.normalize_advantages and capture is not None:
            log.warning(
                "updates are computed one operation after the other, since a group normalises "
                "advantages over the batches of all its learners in the middle of an update"
            )
            capture = None
        super().__init__(spec, config, device, capture)
        self.ahead = 1 if device.type == "cuda" else 0
        self._branch_free = device.type != "cpu" or capture is not None
        self._ranks, self._rank, self._add_up = ranks, rank, add_up
        self._summed = dataclasses.replace(config.loss, reduction="sum")
        self._names = [*self._task_loss.names, *COUNTS]
        self._before = self._buffers.copies()
        # One vector, of which the others are views.
        parameters, buffers = len(self._optimizer.flat), sum(t.numel() for t in self._before)
        table, sums = ranks * len(self._names), 3 * spec.num_tasks if config.loss.popart else 0
        self._vector = torch.zeros(parameters + buffers + sums + table, device=device)
        parts = torch.split(self._vector, [parameters, buffers, sums, table])
        self._gradient, self._changes, popart, rows = parts
        self._sums = popart.view(3, -1) if sums else None
        self._table = rows.view(ranks, -1)
        self._figures = torch.empty(table + 1, device=device)

    def _recorded(self, capture: Capture, tensors: Tensors) -> Callable[[EndStage], None]:
        first = capture(lambda: self._fill(tensors, not_timed))
        second = capture(self._step_together)

        def compute(end_stage: EndStage) -> None:
            first()
            end_stage("graph_s")
            self._add_up(self._vector)
            end_stage("exchange_s")
            second()
            end_stage("optimizer_s")

        return compute

    def _compute(self, tensors: Tensors, end_stage: EndStage) -> None:
        self._fill(tensors, end_stage)
        self._add_up(self._vector)
        end_stage("exchange_s")
        self._step_together()
        end_stage("optimizer_s")

    def _fill(self, tensors: Tensors, end_stage: EndStage) -> None:
        """Writes this learner's part to the vector; without a column that is zeros."""
        for kept, now in zip(self._before, self._buffers.copies(), strict=True):
            kept.copy_(now)
        columns = tensors["mask"].shape[1]
        if not columns:
            self._vector.zero_()
            if self._config.loss.normalize_advantages:
                self._sums_of_all(torch.zeros(3, dtype=torch.float64, device=self.device))
            return
        gradients, (_, scalars, sums) = self._find(tensors, end_stage)
        self._optimizer.joined(gradients, out=self._gradient)
        self._buffers.write_changes(self._before, self._changes)
        self._changes.mul_(columns)
        if self._sums is not None and sums is not None:
            self._sums.copy_(sums)
        self._table.zero_()
        torch.stack([scalars[name].float() for name in self._names], out=self._table[self._rank])

    def _step_together(self) -> None:
        """Takes the step that the sum of all vectors says, and tells the figures."""
        if self._config.loss.reduction == "mean":
            self._gradient.div_(self._sum_of(COUNT))
        changes = self._changes / self._sum_of(COLUMNS)
        self._buffers.change(self._before, changes)
        norm = self._take(self._gradient, self._before, self._sums)
        torch.cat([self._table.view(-1), norm.view(1)], out=self._figures)

    def _sum_of(self, count: str) -> Tensor:
        """A count of all learners, at least 1, as a scalar."""
        total: Tensor = self._table[:, self._names.index(count)].sum()
        return total.clamp_(min=1.0)

    def _loss_of_update(self, inputs: Inputs) -> Outcome:
        _, entropy_cost, reward_factor = self._rates
        settings, (_, rows) = self._summed, inputs
        normalize = self._normalized
        outcome = self._loss(inputs, entropy_cost, reward_factor, settings, normalize)
        counts = {
            COUNT: rows_that_count(rows, settings).sum(),
            REAL: rows.mask.sum(),
            COLUMNS: torch.full((), rows.mask.shape[1], device=self.device),
        }
        return outcome._replace(scalars={**outcome.scalars, **counts})

    def _normalized(self, advantages: Tensor, rhos: Tensor) -> Tensor:
        """The same as `loss.impala.normalized`, over the batches of all learners."""
        exact, weights = advantages.double(), rhos.double()
        weight = weights.sum()
        mean = exact.sum() / weight.clamp(min=LEAST_WEIGHT)
        squares = squared_by_weight(exact - weights * mean, weights).sum()
        weight, mean, squares = self._sums_of_all(torch.stack([weight, mean, squares]))
        deviation: Tensor = (squares / weight).sqrt() + LEAST_DEVIATION
        normalized: Tensor = (advantages - rhos * mean.float()) / deviation.float()
        return normalized

    def _sums_of_all(self, own: Tensor) -> Tensor:
        """The weight of all rows, their mean, and their summed squared distances from it.

        `own` [3] float64 are those of this learner's rows (Chan, Golub and LeVeque 1979).
        """
        table = torch.zeros(self._ranks, 3, dtype=torch.float64, device=self.device)
        table[self._rank] = own
        self._add_up(table)
        weights, means, squares = table.unbind(1)
        weight = weights.sum().clamp(min=LEAST_WEIGHT)
        mean = (weights * means).sum() / weight
        return torch.stack(
            [weight, mean, squares.sum() + (weights * (means - mean).square()).sum()]
        )

    def _told(self, numbers: list[float]) -> dict[str, float]:
        *rows, norm = numbers
        table = np.array(rows).reshape(self._ranks, len(self._names))
        is_mean = self._config.loss.reduction == "mean"
        return {**joint_figures(self._names, table, is_mean), "grad_norm": norm}


def make_group_engine(
    device: torch.device, threads: int, spec: RunSpec, config: Config, group: Adding
) -> GroupEngine:
    """The engine of one learner of a group, with a fresh network.

    Args:
      device: where this learner computes.
      threads: processor threads to compute with.
      spec: the run's.
      config: its settings.
      group: the learners, who have met.

    Raises DeviceFull.
    """
    torch.set_num_threads(threads)
    capture = capture_for(device)
    return GroupEngine(spec, config, device, group.ranks, group.rank, group.add_up, capture)
