"""The losses of a batch, and what it shows about the two policies: as in `common.loss.impala`."""

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.mlp.loss import Sums, Weighting
from impala_redis.common.run.groups import LossSettings

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


def losses(
    sums: Sums, count: int, settings: LossSettings, weighting: Weighting
) -> dict[str, float]:
    """The losses by name, from the sums over `count` rows that count."""
    scale, entropy_cost = weighting.scale, weighting.entropy_cost
    policy, baseline = sums.policy * scale, 0.5 * sums.baseline * scale
    bonus = entropy_cost * sums.entropy * scale
    return {
        "total_loss": policy + settings.baseline_cost * baseline - bonus,
        "policy_loss": policy,
        "baseline_loss": baseline,
        "entropy": sums.entropy / max(count, 1),
    }


def ratios(rhos: Floats, counted: Flags, real: Flags, settings: LossSettings) -> dict[str, float]:
    """Figures of the ratios pi/mu [T, B], which are 0 on rows that do not count.

    They are not finite if no row counts.
    """
    count = np.float64(np.count_nonzero(counted))

    def share_above(clip: float | None) -> float:
        above = 0 if clip is None else np.count_nonzero(rhos > np.float32(clip))
        return float(above / count)

    return {
        "rho_mean": float(rhos.sum() / count),
        "rho_min": float(rhos.min(where=counted, initial=np.inf)),
        "rho_max": float(rhos.max() if count else -np.inf),
        "rho_clipped_share": share_above(settings.clip_rho),
        "c_clipped_share": share_above(settings.clip_c),
        "learned_share": float(count / np.count_nonzero(real)),
    }
