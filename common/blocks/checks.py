"""Checks of the values in a block. The lengths of its arrays have been checked before."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.blocks.trajectory import Trajectory, taken_out
from impala_redis.common.errors import MessageRefused
from impala_redis.common.run.spaces import ObservationPart
from impala_redis.common.run.spec import RunSpec


def check_rows(rows: Trajectory, spec: RunSpec) -> None:
    """Raises MessageRefused, "nonfinite" or "range": a value would do harm in the learner."""
    floats = (rows.rewards, rows.discounts, rows.behaviour_log_probs, rows.memory)
    if not all(np.isfinite(values).all() for values in floats):
        raise MessageRefused(
            "nonfinite", "rewards, discounts, log-probabilities or memory are not finite"
        )
    for leaf in spec.observation.leaves:
        _check_observations(rows.observations, leaf, bool(spec.observation.parts))
    _check_actions(rows.actions, spec)
    # A bool made of another byte than 0 and 1 is undefined behaviour where it is used.
    for flags in (rows.is_first, rows.mask):
        if flags.view(np.uint8).max(initial=0) > 1:
            raise MessageRefused("range", "a flag is neither 0 nor 1")
    if not ((rows.discounts >= 0) & (rows.discounts <= 1)).all():
        raise MessageRefused("range", "a discount is not in 0 .. 1")
    if spec.action.kind != "continuous" and rows.behaviour_log_probs.max(initial=0) > 0:
        raise MessageRefused("range", "a log-probability is above 0")


def _check_observations(rows: NDArray[Any], leaf: ObservationPart, in_bytes: bool) -> None:
    if leaf.dtype == "uint8" and not leaf.num_values:
        return  # every byte is allowed
    named = f" ({leaf.name})" if leaf.name else ""
    values = taken_out(leaf, rows) if in_bytes else rows
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise MessageRefused("nonfinite", f"observations{named} are not finite")
    if leaf.num_values and not _within(values.reshape(-1, len(leaf.num_values)), leaf.num_values):
        limits = sorted({limit - 1 for limit in leaf.num_values})
        raise MessageRefused("range", f"an observation{named} is not in 0 .. {limits[-1]}")


def _check_actions(actions: NDArray[Any], spec: RunSpec) -> None:
    if spec.action.kind == "continuous":
        if not np.isfinite(actions).all():
            raise MessageRefused("nonfinite", "actions are not finite")
    elif not _within(actions.reshape(-1, len(spec.action.sizes)), spec.action.sizes):
        raise MessageRefused("range", f"an action is not in 0 .. {max(spec.action.sizes) - 1}")


def _within(values: NDArray[Any], limits: tuple[int, ...]) -> bool:
    """Whether all values [R, K] are in 0 .. limit - 1, by the limit of their column."""
    if len(limits) == 1:  # twenty times as fast as a comparison with an array
        return bool(values.min() >= 0 and values.max() < limits[0])
    return bool((values >= 0).all() and (values < np.array(limits)).all())
