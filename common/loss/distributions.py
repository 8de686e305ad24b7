"""Log-probabilities and entropies of actions, given a policy's outputs.

`common.acting.sampling` draws such actions. If they are numbers, "probability" means the density of
the Gaussians that they are drawn from, before the environment clips them.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from impala_redis.common.run.spaces import HALF_LOG_2_PI, ActionSpec


class ActionStatistics(NamedTuple):
    """What the policy of each row says about itself and the action that was taken there."""

    log_probs: Tensor  # [...] log-probability of the action
    entropies: Tensor  # [...] in nats; differential if an action is numbers: may be negative
    probabilities: Tensor | None = None  # [..., A] if an action is one choice
    stds: Tensor | None = None  # [..., D] standard deviations if an action is D numbers


def evaluate_actions(action: ActionSpec, outputs: Tensor, actions: Tensor) -> ActionStatistics:
    """The statistics of actions under policies; they carry gradients.

    Args:
      action: what an action is.
      outputs: [..., P] float32, the network's policy outputs.
      actions: [...] or [..., K] int64 choices, or [..., D] numbers.
    """
    if action.kind == "discrete":
        return _one_choice(outputs, actions)
    if action.kind == "continuous":
        return _numbers(outputs, actions)
    groups = torch.split(outputs, list(action.sizes), dim=-1)
    choices = map(_one_choice, groups, actions.unbind(-1))
    log_probs, entropies, *_ = zip(*choices, strict=True)  # they are independent: sums
    return ActionStatistics(torch.stack(log_probs).sum(0), torch.stack(entropies).sum(0))


def _one_choice(logits: Tensor, actions: Tensor) -> ActionStatistics:
    """Statistics of choices [...] under logits [..., A]."""
    log_policy = functional.log_softmax(logits, dim=-1)
    policy = log_policy.exp()
    return ActionStatistics(
        log_probs=log_policy.gather(-1, actions.unsqueeze(-1)).squeeze(-1),
        entropies=-(policy * log_policy).sum(-1),
        probabilities=policy,
    )


def _numbers(outputs: Tensor, actions: Tensor) -> ActionStatistics:
    """Statistics of numbers [..., D] under means and log standard deviations [..., 2D]."""
    means, log_stds = outputs.chunk(2, dim=-1)
    distances = (actions - means) * (-log_stds).exp()  # in standard deviations
    widths = log_stds + HALF_LOG_2_PI
    return ActionStatistics(
        log_probs=-(0.5 * distances.square() + widths).sum(-1),
        entropies=(widths + 0.5).sum(-1),
        stds=log_stds.exp(),
    )
