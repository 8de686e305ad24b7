"""V-trace and the other corrections of policy lag, in numpy, for a piece of a batch.

`common.vtrace` and `common.loss.corrections` compute the same in torch, and say what it is.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.run.groups import LossSettings

Floats = NDArray[np.float32]


class Returns(NamedTuple):
    """The two things that the losses need."""

    errors: Floats  # [T, C] v_s - V(x_s): how far the baseline is below its target
    pg_advantages: Floats  # [T, C] rho_s (r_s + gamma v_{s+1} - V(x_s)), section 4.2
    pg_rhos: Floats  # [T, C] these rho_s, clipped; 0 on rows that do not count


def corrected_returns(
    rhos: Floats,
    weights: Floats,
    discounts: Floats,
    rewards: Floats,
    values: Floats,
    settings: LossSettings,
) -> Returns:
    """The baseline's errors and the advantages; both are 0 on rows that do not count.

    Args:
      rhos: [T, C] pi/mu of the actions taken; 0 on rows that do not count.
      weights: [T, C] 1, and 0 on rows that do not count.
      discounts: [T, C] gamma, and 0 where the episode terminated.
      rewards: [T, C].
      values: [T+1, C] baselines; the last row is the bootstrap.
      settings: the correction, its clips and lambda.
    """
    if settings.correction == "vtrace":
        clipped_rhos = clip(rhos, settings.clip_rho)
        same = settings.clip_c == settings.clip_rho
        cs = clipped_rhos if same else clip(rhos, settings.clip_c)
        same = settings.clip_pg_rho == settings.clip_rho
        pg_rhos = clipped_rhos if same else clip(rhos, settings.clip_pg_rho)
    else:  # as if every action had been the target policy's own
        clipped_rhos = cs = pg_rhos = weights
        if settings.correction == "one_step":
            pg_rhos = clip(rhos, settings.clip_pg_rho)
    traces = discounts * cs  # [T, C] gamma_s c_s
    if settings.lambda_ != 1.0:
        traces *= settings.lambda_
    deltas = discounts * values[1:]  # [T, C] r_s + gamma V(x_{s+1}) - V(x_s)
    deltas += rewards
    deltas -= values[:-1]
    errors = _errors(clipped_rhos, deltas, traces)  # [T+1, C]
    # v_{s+1} is V(x_{s+1}), which is in the deltas, and its error.
    advantages = discounts * errors[1:]
    advantages += deltas
    advantages *= pg_rhos
    return Returns(errors[:-1], advantages, pg_rhos)


def _errors(rhos: Floats, deltas: Floats, traces: Floats) -> Floats:
    """v_s - V(x_s) [T+1, C] by Remark 1, and 0 at the bootstrap; all arguments are [T, C]."""
    errors = np.zeros((len(deltas) + 1, deltas.shape[1]), np.float32)
    np.multiply(rhos, deltas, out=errors[:-1])
    *rows, following = errors
    for row, trace in zip(reversed(rows), reversed(traces), strict=True):
        row += trace * following
        following = row
    return errors


def clip(rhos: Floats, threshold: float | None) -> Floats:
    """min(rho-bar, rho), of the shape of `rhos`; a threshold of None clips nothing."""
    return rhos if threshold is None else np.minimum(rhos, np.float32(threshold))


def whole_returns(discounts: Floats, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Real rows `[T, B]` whose episode ends inside the unroll (`common.loss.corrections`)."""
    ends = (discounts == 0) | ~mask
    return mask & np.logical_or.accumulate(ends[::-1])[::-1]
