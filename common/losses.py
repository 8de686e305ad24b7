"""The loss of section 4.2: policy gradient, baseline and entropy, over real rows only."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from common.config import LossSettings
from common.vtrace import from_importance_weights


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
    entropy: Tensor  # mean over real rows of the target policy's entropy, in nats


class Ratios(NamedTuple):
    """The importance ratios pi/mu of a batch's real rows, as scalars."""

    mean: Tensor
    least: Tensor
    most: Tensor


def impala_loss(
    logits: Tensor, values: Tensor, rows: Rows, settings: LossSettings, entropy_cost: float
) -> tuple[Losses, Ratios]:
    """The weighted sum of the three losses.

    Args:
      logits: [T, B, A] of the target policy.
      values: [T+1, B] baselines; the last row is the bootstrap.
      rows: the batch.
      settings: costs, clips, discount and reductions.
      entropy_cost: the entropy's weight now, after its schedule.
    """
    mask = rows.mask.to(values.dtype)  # [T, B]
    log_policy = functional.log_softmax(logits, dim=-1)  # [T, B, A]
    target_log_probs = log_policy.gather(-1, rows.actions.unsqueeze(-1)).squeeze(-1)  # [T, B]
    log_rhos = (target_log_probs.detach() - rows.behaviour_log_probs).masked_fill(
        ~rows.mask, float("-inf")
    )
    vtrace = from_importance_weights(
        log_rhos=log_rhos,
        discounts=rows.discounts * settings.discounting,
        rewards=shape_rewards(rows.rewards, settings),
        values=values[:-1].detach(),
        bootstrap_value=values[-1].detach(),
        clip_rho_threshold=settings.clip_rho,
        clip_c_threshold=settings.clip_c,
        clip_pg_rho_threshold=settings.clip_pg_rho,
        lambda_=settings.lambda_,
    )
    count = mask.sum().clamp(min=1.0)
    scale = count.reciprocal() if settings.reduction == "mean" else 1.0
    entropies = -(log_policy.exp() * log_policy).sum(-1) * mask  # [T, B]
    # On fake rows the advantage and the target's distance are exactly zero.
    policy = -(target_log_probs * vtrace.pg_advantages).sum() * scale
    baseline = 0.5 * (vtrace.vs - values[:-1]).mul(mask).square().sum() * scale
    total = policy + settings.baseline_cost * baseline - entropy_cost * entropies.sum() * scale
    losses = Losses(total, policy.detach(), baseline.detach(), entropies.detach().sum() / count)
    return losses, _ratios(log_rhos, rows.mask)


def shape_rewards(rewards: Tensor, settings: LossSettings) -> Tensor:
    """Scaled, then clipped as the settings say (paper, Tables D.1 and G.1)."""
    rewards = rewards * settings.reward_scale
    if settings.reward_clipping == "abs_one":
        return rewards.clamp(-1.0, 1.0)
    if settings.reward_clipping == "soft_asymmetric":
        squashed = torch.tanh(rewards)
        return 0.3 * squashed.clamp(max=0.0) + 5.0 * squashed.clamp(min=0.0)
    return rewards


def _ratios(log_rhos: Tensor, mask: Tensor) -> Ratios:
    rhos = log_rhos.exp()  # 0 on fake rows
    least = rhos.masked_fill(~mask, float("inf")).min()
    return Ratios(rhos.sum() / mask.sum().clamp(min=1), least, rhos.max())
