"""What a policy's outputs say about the actions that `common.acting.sampling` drew from such.

Of numbers, "probability" is a density of the Gaussians that were drawn from, nothing clipped.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from impala_redis.common.run.spaces import HALF_LOG_2_PI, ActionSpec


class ActionStatistics(NamedTuple):
    """Of each row's policy, and of the action that was taken there."""

    log_probs: Tensor  # [...] of the action
    entropies: Tensor  # [...] in nats; of numbers the differential entropy, which may be negative
    probabilities: Tensor | None = None  # [..., A] if an action is one choice
    stds: Tensor | None = None  # [..., D] standard deviations if an action is D numbers


def evaluate_actions(action: ActionSpec, outputs: Tensor, actions: Tensor) -> ActionStatistics:
    """What policies say about actions; carries gradients.

    Args:
      action: what an action is.
      outputs: [..., P] of the network's policy head.
      actions: [...] or [..., K] int64 choices, or [..., D] numbers.
    """
    if action.kind == "discrete":
        return _one_choice(outputs, actions)
    if action.kind == "continuous":
        return _numbers(outputs, actions)
    groups = torch.split(outputs, list(action.sizes), dim=-1)
    choices = map(_one_choice, groups, actions.unbind(-1))
    log_probs, entropies, *_ = zip(*choices, strict=True)  # independent: they add up
    return ActionStatistics(torch.stack(log_probs).sum(0), torch.stack(entropies).sum(0))


def _one_choice(logits: Tensor, actions: Tensor) -> ActionStatistics:
    """Of logits [..., A] and choices [...]."""
    log_policy = functional.log_softmax(logits, dim=-1)
    policy = log_policy.exp()
    return ActionStatistics(
        log_probs=log_policy.gather(-1, actions.unsqueeze(-1)).squeeze(-1),
        entropies=-(policy * log_policy).sum(-1),
        probabilities=policy,
    )


def _numbers(outputs: Tensor, actions: Tensor) -> ActionStatistics:
    """Of means and logarithms of deviations [..., 2D], and numbers [..., D]."""
    means, log_stds = outputs.chunk(2, dim=-1)
    away = (actions - means) * (-log_stds).exp()  # in deviations
    widths = log_stds + HALF_LOG_2_PI
    return ActionStatistics(
        log_probs=-(0.5 * away.square() + widths).sum(-1),
        entropies=(widths + 0.5).sum(-1),
        stds=log_stds.exp(),
    )
