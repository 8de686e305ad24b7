"""The loss of section 4.2: policy gradient, baseline and entropy, over the rows that count.

The real rows count; with Monte Carlo returns, only those whose episode ends in the unroll.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from impala_redis.common.loss.corrections import (
    corrected_returns,
    log_probs_to_learn,
    policy_gradient_rhos,
    whole_returns,
)
from impala_redis.common.loss.distributions import ActionStatistics, evaluate_actions
from impala_redis.common.run.groups import LossSettings
from impala_redis.common.run.spaces import MOST_NORMALIZED, ActionSpec
from impala_redis.common.vtrace import VTraceReturns

# A ratio pi/mu of densities may be larger than any float; e^20 is far beyond every sensible clip,
# and still finite when it is squared or summed.
MAX_LOG_RHO = 20.0
# What is added to the deviation of the advantages: they may be all alike.
LEAST_DEVIATION = 1e-8
# The least sum of ratios that is divided by: no row may count.
LEAST_WEIGHT = 1e-8


# Gives advantages `[T, B]`, which come multiplied by their ratios `[T, B]`, a common measure.
Normalize = Callable[[Tensor, Tensor], Tensor]
# Is told the targets of the values `[T, B]`, without gradient, and which rows count.
Watch = Callable[[Tensor, Tensor], None]


class LossInput(NamedTuple):
    """The arrays of a batch of trajectories that the loss needs."""

    actions: Tensor  # [T, B, ...] int64 choices, or float32 numbers
    rewards: Tensor  # [T, B] float32, as the environment gave them
    discounts: Tensor  # [T, B] float32, 0 where the environment terminated, else 1
    behaviour_log_probs: Tensor  # [T, B] float32
    mask: Tensor  # [T, B] bool, False on fake rows
    tasks: Tensor  # [B] int64, which of the run's tasks each column is of


class Scales(NamedTuple):
    """What numbers of each column are measured in; None where they are as they are."""

    rewards: Tensor | None = None  # [B] rewards are multiplied by it, beside `reward_scale`
    values: Tensor | None = None  # [B] advantages and distances from targets are divided by it


AS_THEY_ARE = Scales()


class Losses(NamedTuple):
    """The loss and its parts, all scalars; `total` carries the gradient."""

    total: Tensor
    policy: Tensor
    baseline: Tensor
    entropy: Tensor  # the target policy's mean entropy over the rows that count, in nats


class Figures(NamedTuple):
    """What a batch shows about the two policies, over the rows that count; scalars except pi_mean.

    rho is the importance ratio pi/mu, at most e^20. A figure is not finite if no row counts, and
    None if there is no such figure for the kind of action.
    """

    rho_mean: Tensor
    rho_min: Tensor
    rho_max: Tensor
    rho_clipped_share: Tensor  # share of rows with rho above rho-bar
    c_clipped_share: Tensor  # share of rows with rho above c-bar
    learned_share: Tensor  # share of the real rows that count
    pi_mean: Tensor | None  # [A] mean probability of each action, if an action is one choice
    policy_std: Tensor | None  # mean standard deviation, if an action is numbers


def values_of(baseline: Tensor, tasks: Tensor) -> Tensor:
    """The values `[R, B]` of each column's own task, from those of all tasks `[R, B, K]`."""
    if baseline.shape[-1] == 1:
        return baseline[..., 0]
    own = tasks.view(1, -1, 1).expand(len(baseline), -1, 1)
    return baseline.gather(-1, own)[..., 0]


def rows_that_count(inputs: LossInput, settings: LossSettings) -> Tensor:
    """Rows `[T, B]` (bool) that the loss is taken over."""
    if settings.returns == "monte_carlo":
        return whole_returns(inputs.discounts, inputs.mask)
    return inputs.mask


def normalized(advantages: Tensor, rhos: Tensor) -> Tensor:
    """Advantages `[T, B]` that get a mean of 0 and a deviation of 1, times their ratios.

    They come multiplied by the ratios `[T, B]`, and a row weighs as much in both figures as its
    ratio: else rows that the ratio takes out of the policy gradient would come back into it. Rows
    that do not count have a ratio of 0, and stay exactly 0.
    """
    weight = rhos.sum().clamp(min=LEAST_WEIGHT)
    distances = advantages - rhos * (advantages.sum() / weight)
    squares = squared_by_weight(distances, rhos)
    return distances / ((squares.sum() / weight).sqrt() + LEAST_DEVIATION)


def squared_by_weight(distances: Tensor, rhos: Tensor) -> Tensor:
    """What rows `[T, B]` add to the variance, where distances come multiplied by their ratios."""
    return torch.where(rhos > 0, distances / rhos, 0.0) * distances


def impala_loss(
    action: ActionSpec,
    outputs: Tensor,
    values: Tensor,
    inputs: LossInput,
    settings: LossSettings,
    entropy_cost: float | Tensor,
    reward_factor: float | Tensor = 1.0,
    normalize: Normalize = normalized,
    scales: Scales = AS_THEY_ARE,
    watch: Watch | None = None,
) -> tuple[Losses, Figures]:
    """The weighted sum of the three losses, and the figures of the batch.

    Args:
      action: what an action is.
      outputs: [T, B, P] float32, the target policy's.
      values: [T+1, B] baselines; the last row is the bootstrap.
      inputs: the batch.
      settings: costs, clips, discount and reductions.
      entropy_cost: the current weight of the entropy, after its schedule; may be a scalar tensor.
      reward_factor: what normalises the rewards, if they are to be; may be a scalar tensor.
      normalize: normalises the advantages, if they are to be.
      scales: what the columns' numbers are measured in, if they differ.
      watch: is told the targets, if they are of use beside the loss.
    """
    mask = rows_that_count(inputs, settings)  # [T, B]
    weights = mask.to(values.dtype)
    target = evaluate_actions(action, outputs, inputs.actions)
    log_rhos = (target.log_probs.detach() - inputs.behaviour_log_probs).clamp_(max=MAX_LOG_RHO)
    log_rhos = log_rhos.masked_fill_(~mask, float("-inf"))  # [T, B]
    rewards = shape_rewards(inputs.rewards, settings, reward_factor, scales.rewards)
    returns = _returns(log_rhos, rewards, values.detach(), inputs, settings)
    if watch is not None:
        watch(returns.vs, mask)
    advantages = _divided(returns.pg_advantages, scales.values)
    distances = _divided(returns.vs - values[:-1], scales.values)
    count = weights.sum().clamp(min=1.0)
    if settings.normalize_advantages:
        advantages = normalize(advantages, policy_gradient_rhos(log_rhos, settings))
    scale = count.reciprocal() if settings.reduction == "mean" else 1.0
    entropies = target.entropies * weights  # [T, B]
    # On rows that do not count the advantage and the target's distance are exactly zero.
    learned = log_probs_to_learn(target.log_probs, settings)
    policy_loss = -(learned * advantages).sum() * scale
    baseline = 0.5 * distances.mul(weights).square().sum() * scale
    total = policy_loss + settings.baseline_cost * baseline - entropy_cost * entropies.sum() * scale
    entropy = entropies.detach().sum() / count
    losses = Losses(total, policy_loss.detach(), baseline.detach(), entropy)
    return losses, _figures(target, log_rhos, mask, inputs.mask, settings)


def _returns(
    log_rhos: Tensor, rewards: Tensor, values: Tensor, inputs: LossInput, settings: LossSettings
) -> VTraceReturns:
    """Targets and advantages `[T, B]`, from values `[T+1, B]` without gradient."""
    discounts, values = inputs.discounts * settings.discounting, _baselines(values, settings)
    return corrected_returns(log_rhos, discounts, rewards, values, settings)


def _divided(numbers: Tensor, scales: Tensor | None) -> Tensor:
    """Numbers `[T, B]`, divided by the scales of their columns `[B]`, if there are some."""
    return numbers if scales is None else numbers / scales


def shape_rewards(
    rewards: Tensor,
    settings: LossSettings,
    factor: float | Tensor = 1.0,
    scales: Tensor | None = None,
) -> Tensor:
    """Rewards `[T, B]`, scaled and then clipped as the settings say (paper, Tables D.1 and G.1).

    Before that, `factor` normalises them if they are to be. Tasks may have `scales` `[B]` of their
    own.
    """
    if settings.normalize_rewards:
        rewards = (rewards * factor).clamp(-MOST_NORMALIZED, MOST_NORMALIZED)
    rewards = rewards * settings.reward_scale
    if scales is not None:
        rewards = rewards * scales
    if settings.reward_clipping == "abs_one":
        return rewards.clamp(-1.0, 1.0)
    if settings.reward_clipping == "soft_asymmetric":
        squashed = torch.tanh(rewards)
        return 0.3 * squashed.clamp(max=0.0) + 5.0 * squashed.clamp(min=0.0)
    return rewards


def _baselines(values: Tensor, settings: LossSettings) -> Tensor:
    """The network's baselines `[T+1, B]`, or zeros if REINFORCE has no baseline."""
    if settings.returns == "monte_carlo" and settings.baseline_cost == 0:
        return torch.zeros_like(values)
    return values


def _figures(
    target: ActionStatistics, log_rhos: Tensor, mask: Tensor, real: Tensor, settings: LossSettings
) -> Figures:
    rhos = log_rhos.exp()  # 0 on rows that do not count
    count = mask.sum()  # if it is 0, what follows is not finite

    def share_above(clip: float | None) -> Tensor:
        return torch.count_nonzero(rhos > (float("inf") if clip is None else clip)) / count

    def mean(of: Tensor | None) -> Tensor | None:
        return None if of is None else (of.detach() * mask.unsqueeze(-1)).sum((0, 1)) / count

    stds = mean(target.stds)  # [D]
    return Figures(
        rho_mean=rhos.sum() / count,
        rho_min=rhos.masked_fill(~mask, float("inf")).min(),
        rho_max=rhos.masked_fill(~mask, float("-inf")).max(),
        rho_clipped_share=share_above(settings.clip_rho),
        c_clipped_share=share_above(settings.clip_c),
        learned_share=count / real.sum(),
        pi_mean=mean(target.probabilities),
        policy_std=None if stds is None else stds.mean(),
    )
