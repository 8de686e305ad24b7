"""V-trace targets.

IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner Architectures,
Espeholt, Soyer, Munos et al., 2018, https://arxiv.org/abs/1802.01561. Names are the paper's.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class VTraceReturns(NamedTuple):
    """The two things that the losses need, without gradient."""

    vs: Tensor  # [T, B] targets of the baseline, equation (1)
    pg_advantages: Tensor  # [T, B] rho_s (r_s + gamma v_{s+1} - V(x_s)), section 4.2


@torch.no_grad()
def from_importance_weights(
    log_rhos: Tensor,
    discounts: Tensor,
    rewards: Tensor,
    values: Tensor,
    bootstrap_value: Tensor,
    clip_rho_threshold: float | None = 1.0,
    clip_c_threshold: float | None = 1.0,
    clip_pg_rho_threshold: float | None = 1.0,
    lambda_: float = 1.0,
) -> VTraceReturns:
    """V-trace from the log importance weights of the actions taken.

    Args:
      log_rhos: [T, B] log pi(a_s|x_s) - log mu(a_s|x_s); pi is the target policy, mu the behaviour
        policy. -inf makes a row count for nothing: its target is its own value, and no trace
        passes through it (equation (1) with rho = c = 0). That is how fake rows are cut out.
      discounts: [T, B] gamma, and 0 where the episode terminated.
      rewards: [T, B].
      values: [T, B] V(x_s) under the target policy.
      bootstrap_value: [B] V(x_T).
      clip_rho_threshold: rho-bar, or None for no clip.
      clip_c_threshold: c-bar, or None for no clip.
      clip_pg_rho_threshold: rho-bar in the policy gradient, or None for no clip.
      lambda_: factor on every c (Remark 2), 0 to 1.

    Raises:
      ValueError: the shapes do not fit.
    """
    _check_shapes(log_rhos, discounts, rewards, values, bootstrap_value)
    rhos = log_rhos.exp()
    clipped_rhos = clip(rhos, clip_rho_threshold)
    cs = lambda_ * clip(rhos, clip_c_threshold)

    next_values = torch.cat([values[1:], bootstrap_value[None]])  # [T, B] V(x_{s+1})
    deltas = clipped_rhos * (rewards + discounts * next_values - values)

    vs = _targets(deltas, discounts * cs, values)
    next_vs = torch.cat([vs[1:], bootstrap_value[None]])  # [T, B] v_{s+1}
    pg_rhos = clip(rhos, clip_pg_rho_threshold)
    return VTraceReturns(vs, pg_rhos * (rewards + discounts * next_vs - values))


def _targets(deltas: Tensor, traces: Tensor, values: Tensor) -> Tensor:
    """v_s [T, B] of equation (1), from its deltas, gamma_s c_s and V(x_s), all [T, B].

    By Remark 1, v_s - V(x_s) = delta_s + gamma_s c_s (v_{s+1} - V(x_{s+1})).
    """
    vs_minus_values = torch.empty_like(values)
    accumulated = values.new_zeros(values.shape[1:])  # [B]
    rows = zip(deltas.unbind(), traces.unbind(), vs_minus_values.unbind(), strict=True)
    for delta, trace, row in reversed(list(rows)):
        accumulated = torch.addcmul(delta, trace, accumulated, out=row)
    return vs_minus_values + values


def _check_shapes(
    log_rhos: Tensor, discounts: Tensor, rewards: Tensor, values: Tensor, bootstrap_value: Tensor
) -> None:
    """Raises ValueError: the shapes do not fit."""
    shape = rewards.shape
    if len(shape) != 2 or any(x.shape != shape for x in (log_rhos, discounts, values)):
        shapes = [tuple(x.shape) for x in (log_rhos, discounts, rewards, values)]
        raise ValueError(f"log_rhos, discounts, rewards, values must all be [T, B], not {shapes}")
    if bootstrap_value.shape != shape[1:]:
        raise ValueError(
            f"bootstrap_value must be [B] = {tuple(shape[1:])}, not {tuple(bootstrap_value.shape)}"
        )


def clip(rhos: Tensor, threshold: float | None) -> Tensor:
    """min(rho-bar, rho), of the shape of `rhos`; a threshold of None clips nothing."""
    return rhos if threshold is None else rhos.clamp(max=threshold)
