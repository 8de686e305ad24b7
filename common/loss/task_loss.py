"""The loss of a run's batches, whose columns may be of several tasks."""

from typing import NamedTuple

import torch
from torch import Tensor

from impala_redis.common.loss.impala import (
    Figures,
    Losses,
    LossInput,
    Normalize,
    Scales,
    impala_loss,
    normalized,
    values_of,
)
from impala_redis.common.loss.popart import PopArt
from impala_redis.common.run.groups import LossSettings
from impala_redis.common.run.spaces import MOST_ACTIONS, ActionSpec
from impala_redis.common.run.spec import RunSpec


class Outcome(NamedTuple):
    """The loss of a batch, and what is told of it, still on the device."""

    total: Tensor  # carries the gradient
    scalars: dict[str, Tensor]  # by name, without gradient
    sums: Tensor | None  # [3, K] float64: what PopArt is to learn of it; None without PopArt


class TaskLoss:
    """The loss by a run's settings: rewards are scaled by task, values by PopArt if it is wanted.

    Attributes:
      popart: the statistics of each task; None where values are learned as they are.
      names: of the scalars of a batch, in their order.
    """

    def __init__(self, spec: RunSpec, settings: LossSettings, device: torch.device) -> None:
        """Begins without having seen a batch; `device` is where batches come from."""
        self._action, self._settings = spec.action, settings
        scales = [task.reward_scale for task in spec.tasks] or [1.0]
        self._reward_scales: Tensor | None = None  # [K] float32
        if set(scales) != {1.0}:
            self._reward_scales = torch.tensor(scales, device=device)
        self.popart: PopArt | None = None
        if settings.popart:
            own = [task.reference - task.random for task in spec.tasks] or [1.0]
            ranges = [
                abs(one * scale * settings.reward_scale)
                for one, scale in zip(own, scales, strict=True)
            ]
            self.popart = PopArt(ranges, settings.popart_beta, settings.popart_least, device)
        several = spec.num_tasks > 1
        names = [f"popart_std:{task.name}" for task in spec.tasks] if several else ["popart_std"]
        self._names_of_stds = names if settings.popart else []
        self.names = [*_names_of(spec.action), *self._names_of_stds]

    def of(
        self,
        outputs: Tensor,
        baseline: Tensor,
        inputs: LossInput,
        entropy_cost: float | Tensor,
        reward_factor: float | Tensor,
        settings: LossSettings | None = None,
        normalize: Normalize = normalized,
    ) -> Outcome:
        """The loss of a batch, its figures, and what PopArt is to learn of it.

        Args:
          outputs: [T, B, P] float32, the target policy's.
          baseline: [T+1, B, K] float32, the network's of each task.
          inputs: the batch.
          entropy_cost: the current weight of the entropy; may be a scalar tensor.
          reward_factor: what normalises the rewards, if they are to be; may be a scalar tensor.
          settings: others than the run's, but of the same returns.
          normalize: normalises the advantages, if they are to be.
        """
        popart, tasks = self.popart, inputs.tasks
        values, sums = values_of(baseline, tasks), list[Tensor]()
        scales = Scales(None if self._reward_scales is None else self._reward_scales[tasks])
        if popart is not None:
            values = popart.values(values, tasks)
            scales = scales._replace(values=popart.scales(tasks))

        def watch(targets: Tensor, rows: Tensor) -> None:
            if popart is not None:
                sums.append(popart.sums(targets, rows, tasks))

        losses, figures = impala_loss(
            self._action,
            outputs,
            values,
            inputs,
            settings or self._settings,
            entropy_cost,
            reward_factor,
            normalize,
            scales,
            watch,
        )
        scalars = _scalars(losses, figures)
        if popart is not None:
            scalars |= dict(zip(self._names_of_stds, popart.std.float().unbind(), strict=True))
        return Outcome(losses.total, scalars, sums[0] if sums else None)


def _names_of(action: ActionSpec) -> list[str]:
    """The names of all scalars that there are for such actions, in their order."""
    names = ["total_loss", "policy_loss", "baseline_loss", "entropy", *Figures._fields]
    names.remove("pi_mean")
    if action.kind != "continuous":
        names.remove("policy_std")
    if action.kind == "discrete" and action.num_outputs <= MOST_ACTIONS:
        names += [f"pi_mean_{a}" for a in range(action.num_outputs)]
    return names


def _scalars(losses: Losses, figures: Figures) -> dict[str, Tensor]:
    """Losses and figures by name, each a scalar without gradient."""
    several = figures._asdict()
    shares: Tensor | None = several.pop("pi_mean")
    scalars = {
        "total_loss": losses.total.detach(),
        "policy_loss": losses.policy,
        "baseline_loss": losses.baseline,
        "entropy": losses.entropy,
        **{name: value.detach() for name, value in several.items() if value is not None},
    }
    if shares is not None and len(shares) <= MOST_ACTIONS:
        scalars |= {f"pi_mean_{a}": share for a, share in enumerate(shares)}
    return scalars
