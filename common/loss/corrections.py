"""Corrections of policy lag: V-trace, or one of the paper's other variants (section 5.2.2).

    vtrace    targets and policy gradient corrected, equation (1)
    one_step  plain n-step targets; the policy gradient weighted by the clipped ratio
    epsilon   no correction; EPSILON is added to the probability inside the log
    none      no correction

A row whose log_rho is -inf counts for nothing under each of them (`common.vtrace`).
"""

import math

import torch
from torch import Tensor

from impala_redis.common.run.groups import LossSettings
from impala_redis.common.vtrace import VTraceReturns, clip, from_importance_weights

EPSILON = 1e-6
_LOG_EPSILON = math.log(EPSILON)


def corrected_returns(
    log_rhos: Tensor, discounts: Tensor, rewards: Tensor, values: Tensor, settings: LossSettings
) -> VTraceReturns:
    """The baseline's targets and the advantages, both `[T, B]` and without gradient.

    Args:
      log_rhos: [T, B] log pi/mu of the actions taken; -inf on rows that count for nothing.
      discounts: [T, B] gamma, and 0 where the episode terminated.
      rewards: [T, B].
      values: [T+1, B] baselines; the last row is the bootstrap.
      settings: the correction, its clips and lambda.
    """
    if settings.correction == "vtrace":
        return from_importance_weights(
            log_rhos=log_rhos,
            discounts=discounts,
            rewards=rewards,
            values=values[:-1],
            bootstrap_value=values[-1],
            clip_rho_threshold=settings.clip_rho,
            clip_c_threshold=settings.clip_c,
            clip_pg_rho_threshold=settings.clip_pg_rho,
            lambda_=settings.lambda_,
        )
    # As if every action had been the target policy's own: the n-step Bellman target.
    on_policy = torch.zeros_like(log_rhos).masked_fill(log_rhos == float("-inf"), float("-inf"))
    returns = from_importance_weights(
        log_rhos=on_policy,
        discounts=discounts,
        rewards=rewards,
        values=values[:-1],
        bootstrap_value=values[-1],
        clip_rho_threshold=None,
        clip_c_threshold=None,
        clip_pg_rho_threshold=None,
        lambda_=settings.lambda_,
    )
    if settings.correction == "one_step":
        rhos = clip(log_rhos.exp(), settings.clip_pg_rho)
        return returns._replace(pg_advantages=rhos * returns.pg_advantages)
    return returns


def policy_gradient_rhos(log_rhos: Tensor, settings: LossSettings) -> Tensor:
    """What the advantages `[T, B]` are multiplied by already: clipped ratios, or 1; 0 where -inf.

    The arguments are those of `corrected_returns`.
    """
    if settings.correction in ("vtrace", "one_step"):
        return clip(log_rhos.exp(), settings.clip_pg_rho)
    return (log_rhos > float("-inf")).to(log_rhos.dtype)


def log_probs_to_learn(target_log_probs: Tensor, settings: LossSettings) -> Tensor:
    """The log-probabilities whose gradient is taken: log pi, or with epsilon log(pi + EPSILON)."""
    if settings.correction == "epsilon":
        # exp(log pi) might overflow: a density may be larger than any float.
        return torch.logaddexp(target_log_probs, torch.full_like(target_log_probs, _LOG_EPSILON))
    return target_log_probs


def whole_returns(discounts: Tensor, mask: Tensor) -> Tensor:
    """Real rows `[T, B]` (bool) whose episode ends inside the unroll.

    A discount of 0 marks an end (terminated), and so does the fake row after it (truncated, too).
    A terminated episode needs no bootstrap; at a time limit the value of the final observation
    stands for the rewards that were cut off, if there is a baseline.
    """
    ends = (discounts == 0) | ~mask
    return mask & ends.flip(0).cummax(0).values.flip(0)
