"""The figures of an update that several learners make together: what one learner's would say.

Each learner has a row of numbers about its own batch. Its losses are sums over its rows that count,
its entropy and its figures are means over these.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# What stands in each row beside a batch's figures: its rows that count, its real rows, its columns.
COUNT, REAL, COLUMNS = "count", "real", "columns"
COUNTS = (COUNT, REAL, COLUMNS)
LOSSES = ("total_loss", "policy_loss", "baseline_loss")


def joint_figures(names: Sequence[str], table: NDArray[Any], is_mean: bool) -> dict[str, float]:
    """The figures of all rows of a table by name, as one learner would tell them.

    Args:
      names: of the S columns, COUNTS among them.
      table: [K, S] numbers of any float dtype, a row for each learner.
      is_mean: whether losses are to be means over the rows that count, and not sums.

    A figure is not finite if no row counts.
    """
    by_name = dict(zip(names, table.astype(np.float64).T, strict=True))  # [K] each
    counts, reals, _ = (by_name.pop(name) for name in COUNTS)
    count = counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {name: _joint(name, of, counts, is_mean) for name, of in by_name.items()}
        if "learned_share" in found:
            found["learned_share"] = float(count / reals.sum())
    return found


def _joint(name: str, of_each: NDArray[Any], counts: NDArray[Any], is_mean: bool) -> float:
    """One figure, from those of each learner, [K], and their rows that count, [K]."""
    count = counts.sum()
    if name in LOSSES:
        return float(of_each.sum() / (max(count, 1.0) if is_mean else 1.0))
    counting = counts > 0  # what the others say is no number
    if name == "rho_min":
        return float(of_each[counting].min(initial=np.inf))
    if name == "rho_max":
        return float(of_each[counting].max(initial=-np.inf))
    total = (of_each[counting] * counts[counting]).sum()
    return float(total / (max(count, 1.0) if name == "entropy" else count))
