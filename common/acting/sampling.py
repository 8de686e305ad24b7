"""Draws actions from a policy's outputs, in numpy.

`common.loss.distributions` computes the same log-probabilities for the loss.
"""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.run.spaces import HALF_LOG_2_PI, ActionSpec

Floats = NDArray[np.float32]
Actions = NDArray[np.int64] | Floats


def sample(action: ActionSpec, outputs: Floats, rng: np.random.Generator) -> tuple[Actions, Floats]:
    """Drawn actions [N, ...], and their log-probabilities or log-densities [N].

    Outputs that are not finite give the action 0, with a NaN by which the learner leaves it out.

    Args:
      action: the spec of one action.
      outputs: [N, P] of the network's policy head; overwritten.
      rng: the source of randomness.
    """
    if action.kind == "discrete":
        return _choose(outputs, rng)
    if action.kind == "continuous":
        means, log_stds = np.split(outputs, 2, axis=-1)  # [N, D] each
        noise = rng.standard_normal(means.shape, dtype=np.float32)
        densities = -0.5 * noise * noise - log_stds - np.float32(HALF_LOG_2_PI)
        drawn = cast(Floats, means + np.exp(log_stds) * noise)
        log_probs = densities.sum(axis=-1, dtype=np.float32)
        finite = np.isfinite(drawn).all(axis=-1)
        if not finite.all():  # an environment would keep what came of such an action
            drawn[~finite], log_probs[~finite] = 0.0, np.nan
        return drawn, log_probs
    groups = np.split(outputs, _boundaries(action), axis=-1)
    chosen, log_probs = zip(*(_choose(logits, rng) for logits in groups), strict=True)
    return np.stack(chosen, axis=-1), np.sum(log_probs, axis=0, dtype=np.float32)


def likeliest(action: ActionSpec, outputs: Floats) -> Actions:
    """The likeliest actions [N, ...], given outputs [N, P]."""
    if action.kind == "continuous":
        return outputs[:, : action.sizes[0]]
    chosen = [
        np.asarray(logits.argmax(axis=-1), np.int64)
        for logits in np.split(outputs, _boundaries(action), axis=-1)
    ]
    return chosen[0] if action.kind == "discrete" else np.stack(chosen, axis=-1)


def _boundaries(action: ActionSpec) -> NDArray[np.int64]:
    """Indices at which the logits of one choice end and those of the next begin."""
    return np.cumsum(action.sizes)[:-1]


def _choose(logits: Floats, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
    """One choice per row of logits [N, A], and its log-probability; overwrites the logits."""
    by_action = logits.T  # [A, N], as a policy in numpy has them in memory
    by_action -= by_action.max(axis=0)
    totals = np.exp(by_action).cumsum(axis=0)
    total = totals[-1]
    # Below the total, also when rounded: the generator's largest number is 1 - 2^-24.
    draws = rng.random(len(total), dtype=np.float32) * total
    actions = (totals[:-1] <= draws).sum(axis=0, dtype=np.int64)
    log_probs = by_action[actions, np.arange(len(total))] - np.log(total)
    return actions, np.minimum(log_probs, 0.0, out=log_probs)
