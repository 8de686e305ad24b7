"""The loss of section 4.2 in numpy, and its gradient by the network's outputs, for a piece.

`common.loss.impala` computes the same in torch, with gradients by autograd, and says what it is.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.mlp.actions import Actions
from impala_redis.common.mlp.targets import Returns, corrected_returns, whole_returns
from impala_redis.common.run.groups import LossSettings
from impala_redis.common.run.spaces import MOST_NORMALIZED

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

# The largest log pi/mu, as in `common.loss.impala`.
MAX_LOG_RHO = 20.0
# What is added to the deviation of the advantages, as in `common.loss.impala`.
LEAST_DEVIATION = 1e-8
# The least sum of ratios that is divided by, as there.
LEAST_WEIGHT = 1e-8
# What the correction "epsilon" adds to a probability, as in `common.loss.corrections`.
LOG_EPSILON = np.float32(math.log(1e-6))


class LossRows(NamedTuple):
    """The rows of B columns as the loss takes them; 0 where a row does not count."""

    actions: NDArray[Any]  # [T, B, ...] choices, or float32 numbers
    rewards: Floats  # [T, B] scaled and clipped
    discounts: Floats  # [T, B] gamma, and 0 where the episode terminated
    behaviour_log_probs: Floats  # [T, B]
    weights: Floats  # [T, B] 1 on rows that count

    def columns(self, part: slice) -> "LossRows":
        """The same for some of the columns; the arrays share memory with these."""
        return LossRows._make([array[:, part] for array in self])


class Advantages(NamedTuple):
    """What a batch's advantages are normalised by: sums over the rows of a piece.

    A row weighs as much as in the policy gradient: by its clipped ratio.
    """

    weight: float
    total: float
    squares: float

    def plus(self, other: "Advantages") -> "Advantages":
        """The sums over the rows of both."""
        return Advantages._make([mine + theirs for mine, theirs in zip(self, other, strict=True)])

    @property
    def mean(self) -> float:
        """What is taken off."""
        return self.total / max(self.weight, LEAST_WEIGHT)

    @property
    def factor(self) -> float:
        """What they are multiplied by, once the mean is off: one divided by the deviation."""
        variance = np.float64(self.squares / max(self.weight, LEAST_WEIGHT) - self.mean**2)
        return float(1.0 / (np.sqrt(max(variance, 0.0)) + LEAST_DEVIATION))


def no_advantages() -> Advantages:
    """The sums over no row."""
    return Advantages(0.0, 0.0, 0.0)


class Weighting(NamedTuple):
    """What the terms of the loss are multiplied by."""

    scale: float  # 1, or 1 / count for the mean over the rows that count
    entropy_cost: float  # after its schedule
    # Those of the whole batch, where they are normalised; None where a piece is all of it.
    advantages: Advantages | None = None


class Sums(NamedTuple):
    """What the losses and figures are made of, summed over the rows of a piece."""

    policy: float  # of the policy gradient's loss, before the scale
    baseline: float  # of the squared errors of the baseline
    entropy: float
    probabilities: Floats | float  # [A] if an action is one choice, else 0

    def plus(self, other: "Sums") -> "Sums":
        """The sums over the rows of both."""
        return Sums._make([mine + theirs for mine, theirs in zip(self, other, strict=True)])


def no_sums() -> Sums:
    """The sums over no row."""
    return Sums(0.0, 0.0, 0.0, 0.0)


def counted_rows(discounts: Floats, mask: Flags, settings: LossSettings) -> Flags:
    """The rows [T, B] that count: the real ones, or those whose episode ends in the unroll."""
    return whole_returns(discounts, mask) if settings.returns == "monte_carlo" else mask


def prepared(
    actions: NDArray[Any],
    rewards: Floats,
    discounts: Floats,
    behaviour_log_probs: Floats,
    counted: Flags,
    settings: LossSettings,
    reward_factor: float = 1.0,
) -> LossRows:
    """Rows of a trajectory for the loss: [T, B] each, actions [T, B, ...].

    Rows that do not count may hold any numbers. `reward_factor` normalises the rewards.
    """
    weights = counted.astype(np.float32)
    shaped = shape_rewards(rewards, settings, reward_factor)
    gammas = discounts * settings.discounting
    if not counted.all():
        shaped, gammas = np.where(counted, shaped, 0), np.where(counted, gammas, 0)
        behaviour_log_probs = np.where(counted, behaviour_log_probs, 0)
        if actions.dtype == np.float32:
            actions = np.where(counted[..., None], actions, 0)
    return LossRows(actions, shaped, gammas, behaviour_log_probs, weights)


def shape_rewards(rewards: Floats, settings: LossSettings, factor: float = 1.0) -> Floats:
    """Rewards, scaled and then clipped as the settings say (paper, Tables D.1 and G.1).

    Before that, `factor` normalises them if they are to be.
    """
    if settings.normalize_rewards:
        rewards = (rewards * np.float32(factor)).clip(-MOST_NORMALIZED, MOST_NORMALIZED)
    rewards = rewards * settings.reward_scale
    if settings.reward_clipping == "abs_one":
        return rewards.clip(-1.0, 1.0)
    if settings.reward_clipping == "soft_asymmetric":
        squashed = np.tanh(rewards)
        factors = np.where(squashed < 0, np.float32(0.3), np.float32(5.0))
        return squashed * factors
    return rewards


def impala_loss(
    actions: Actions,
    outputs: Floats,
    rows: LossRows,
    settings: LossSettings,
    weighting: Weighting,
    gradient: Floats,
    others: Floats,
) -> tuple[Sums, Floats]:
    """The sums of a piece, and its ratios pi/mu [T, C]; writes the gradients of the total loss.

    Args:
      actions: what computes with such actions.
      outputs: [P + 1, (T+1) C] of the heads: the policy's outputs, then the baseline.
      rows: those of the piece.
      settings: costs, clips, discount and reductions.
      weighting: the scale and the entropy's current cost.
      gradient: [P + 1, T C] where that by the outputs goes.
      others: [D] where that by the log standard deviations goes; [0] without any.
    """
    steps, columns = rows.rewards.shape
    count = steps * columns
    done = rows.actions.reshape(count, *rows.actions.shape[2:])
    weights = rows.weights.reshape(count)
    target = actions.evaluate(outputs[:-1, :count], done)
    rhos = _ratios(target.log_probs.reshape(steps, columns), rows)
    values = outputs[-1].reshape(steps + 1, columns)
    errors, advantages, pg_rhos = _errors_and_advantages(rhos, rows, values, settings)
    scale, entropy_cost = weighting.scale, weighting.entropy_cost
    if settings.normalize_advantages:
        whole = weighting.advantages or _summed(advantages, pg_rhos)
        # On rows that do not count both are 0.
        advantages -= np.float32(whole.mean) * pg_rhos
        advantages *= np.float32(whole.factor)
    np.multiply(errors, -scale * settings.baseline_cost, out=gradient[-1].reshape(steps, columns))
    advantages = advantages.reshape(count)
    learned, of_log_probs = target.log_probs, advantages * -scale
    if settings.correction == "epsilon":  # log(pi + EPSILON)
        learned = np.logaddexp(learned, LOG_EPSILON)
        of_log_probs *= np.exp(target.log_probs - learned)
    of_entropies = weights * np.float32(-scale * entropy_cost) if entropy_cost else None
    shares = target.probabilities
    sums = Sums(
        policy=-float(np.dot(learned, advantages)),
        baseline=float(np.vdot(errors, errors)),
        entropy=float(np.dot(target.entropies, weights)),
        probabilities=0.0 if shares is None else np.dot(shares, weights),
    )
    actions.backward(of_log_probs, of_entropies, gradient[:-1], others)
    return sums, rhos


def advantages_of(
    actions: Actions, outputs: Floats, rows: LossRows, settings: LossSettings
) -> Advantages:
    """The sums of a piece's advantages; the arguments are those of `impala_loss`."""
    steps, columns = rows.rewards.shape
    count = steps * columns
    done = rows.actions.reshape(count, *rows.actions.shape[2:])
    target = actions.evaluate(outputs[:-1, :count], done)
    rhos = _ratios(target.log_probs.reshape(steps, columns), rows)
    values = outputs[-1].reshape(steps + 1, columns)
    _, advantages, pg_rhos = _errors_and_advantages(rhos, rows, values, settings)
    return _summed(advantages, pg_rhos)


def _summed(advantages: Floats, pg_rhos: Floats) -> Advantages:
    """The sums, given advantages that are multiplied by their ratios, and these; [T, C] both."""
    weighted, weights = advantages.astype(np.float64).ravel(), pg_rhos.astype(np.float64).ravel()
    plain = np.divide(weighted, weights, out=np.zeros_like(weighted), where=weights > 0)
    return Advantages(float(weights.sum()), float(weighted.sum()), float(weighted @ plain))


def _ratios(log_probs: Floats, rows: LossRows) -> Floats:
    """pi/mu [T, C] of the actions, at most e^20, from log pi [T, C]; 0 where a row counts not."""
    log_rhos = log_probs - rows.behaviour_log_probs
    np.minimum(log_rhos, np.float32(MAX_LOG_RHO), out=log_rhos)
    rhos: Floats = np.exp(log_rhos, out=log_rhos)
    rhos *= rows.weights
    return rhos


def _errors_and_advantages(
    rhos: Floats, rows: LossRows, values: Floats, settings: LossSettings
) -> Returns:
    """What the baseline [T+1, C] is below its targets, and the advantages, both [T, C]."""
    if settings.returns == "bootstrapped" or settings.baseline_cost:
        return corrected_returns(rhos, rows.weights, rows.discounts, rows.rewards, values, settings)
    # REINFORCE without a baseline: the targets do not depend on it, and it does not learn.
    returns = corrected_returns(
        rhos, rows.weights, rows.discounts, rows.rewards, np.zeros_like(values), settings
    )
    return returns._replace(errors=returns.errors - values[:-1] * rows.weights)
