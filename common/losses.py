"""The loss of section 4.2: policy gradient, baseline and entropy, over the rows that count.

Those are the real rows; with Monte Carlo returns, those of them whose episode ends in the unroll.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from common.config import LossSettings
from common.corrections import corrected_returns, log_probs_to_learn, whole_returns


class Rows(NamedTuple):
    """What a batch of trajectories brings to the loss."""

    actions: Tensor  # [T, B] int64
    rewards: Tensor  # [T, B] float32, as the environment gave them
    discounts: Tensor  # [T, B] float32, 0 where the environment terminated, else 1
    behaviour_log_probs: Tensor  # [T, B] float32
    mask: Tensor  # [T, B] bool, False on fake rows


class Losses(NamedTuple):
    """Scalars; `total` carries the gradient."""

    total: Tensor
    policy: Tensor
    baseline: Tensor
    entropy: Tensor  # mean over the rows that count of the target policy's entropy, in nats


class Figures(NamedTuple):
    """What a batch tells of the two policies, over the rows that count; scalars but for the last.

    rho is the importance ratio pi/mu. A figure is not finite where there is nothing to tell.
    """

    rho_mean: Tensor
    rho_min: Tensor
    rho_max: Tensor
    rho_clipped_share: Tensor  # of the rows: with rho above rho-bar
    c_clipped_share: Tensor  # of the rows: with rho above c-bar
    learned_share: Tensor  # of the real rows: those that count
    pi_mean: Tensor  # [A] mean probability of each action


def impala_loss(
    logits: Tensor, values: Tensor, rows: Rows, settings: LossSettings, entropy_cost: float
) -> tuple[Losses, Figures]:
    """The weighted sum of the three losses, and what the batch tells.

    Args:
      logits: [T, B, A] of the target policy.
      values: [T+1, B] baselines; the last row is the bootstrap.
      rows: the batch.
      settings: costs, clips, discount and reductions.
      entropy_cost: the entropy's weight now, after its schedule.
    """
    mask = rows.mask  # [T, B]
    if settings.returns == "monte_carlo":
        mask = whole_returns(rows.discounts, rows.mask)
    weights = mask.to(values.dtype)
    log_policy = functional.log_softmax(logits, dim=-1)  # [T, B, A]
    policy = log_policy.exp()
    target_log_probs = log_policy.gather(-1, rows.actions.unsqueeze(-1)).squeeze(-1)  # [T, B]
    log_rhos = (target_log_probs.detach() - rows.behaviour_log_probs).masked_fill(
        ~mask, float("-inf")
    )
    returns = corrected_returns(
        log_rhos,
        rows.discounts * settings.discounting,
        shape_rewards(rows.rewards, settings),
        _baselines(values.detach(), settings),
        settings,
    )
    count = weights.sum().clamp(min=1.0)
    scale = count.reciprocal() if settings.reduction == "mean" else 1.0
    entropies = -(policy * log_policy).sum(-1) * weights  # [T, B]
    # On rows that do not count the advantage and the target's distance are exactly zero.
    learned = log_probs_to_learn(target_log_probs, settings)
    policy_loss = -(learned * returns.pg_advantages).sum() * scale
    baseline = 0.5 * (returns.vs - values[:-1]).mul(weights).square().sum() * scale
    total = policy_loss + settings.baseline_cost * baseline - entropy_cost * entropies.sum() * scale
    losses = Losses(
        total, policy_loss.detach(), baseline.detach(), entropies.detach().sum() / count
    )
    return losses, _figures(policy.detach(), log_rhos, mask, rows.mask, settings)


def shape_rewards(rewards: Tensor, settings: LossSettings) -> Tensor:
    """Scaled, then clipped as the settings say (paper, Tables D.1 and G.1)."""
    rewards = rewards * settings.reward_scale
    if settings.reward_clipping == "abs_one":
        return rewards.clamp(-1.0, 1.0)
    if settings.reward_clipping == "soft_asymmetric":
        squashed = torch.tanh(rewards)
        return 0.3 * squashed.clamp(max=0.0) + 5.0 * squashed.clamp(min=0.0)
    return rewards


def _baselines(values: Tensor, settings: LossSettings) -> Tensor:
    """The network's `[T+1, B]`, or zeros where REINFORCE is to go without a baseline."""
    if settings.returns == "monte_carlo" and settings.baseline_cost == 0:
        return torch.zeros_like(values)
    return values


def _figures(
    policy: Tensor, log_rhos: Tensor, mask: Tensor, real: Tensor, settings: LossSettings
) -> Figures:
    rhos = log_rhos.exp()  # 0 on rows that do not count
    count = mask.sum()  # with none of them, what follows is not finite

    def share_above(clip: float | None) -> Tensor:
        return torch.count_nonzero(rhos > (float("inf") if clip is None else clip)) / count

    return Figures(
        rho_mean=rhos.sum() / count,
        rho_min=rhos.masked_fill(~mask, float("inf")).min(),
        rho_max=rhos.masked_fill(~mask, float("-inf")).max(),
        rho_clipped_share=share_above(settings.clip_rho),
        c_clipped_share=share_above(settings.clip_c),
        learned_share=count / real.sum(),
        pi_mean=(policy * mask.unsqueeze(-1)).sum((0, 1)) / count,  # [A]
    )
