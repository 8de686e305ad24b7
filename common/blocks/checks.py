"""Checks of the values in a block, column by column: one bad number costs its column alone.

The lengths of the block's arrays have been checked before.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.blocks.trajectory import Trajectory, Unfit, taken_out
from impala_redis.common.encoding.masks import allowed, nothing_left, offsets
from impala_redis.common.errors import MessageRefused
from impala_redis.common.run.spaces import MASK_NAME, ObservationPart
from impala_redis.common.run.spec import RunSpec

Flags = NDArray[np.bool_]

# The network computes in float32.
MOST = float(np.finfo(np.float32).max)
# The largest reward, action of a Box, log-probability and number of a memory, by its absolute
# value. A cell of an LSTM, which an honest step changes by 1 at most, stays below 2**24 in float32;
# and rewards up to here leave room below `MOST` for the square of a sum of thousands of them.
MOST_NUMBER = 1e9
# --reward-scale works in the learner, behind these checks.
REMEDY = "; divide them in the environment, for --reward-scale comes too late"


def fit_part(rows: Trajectory, spec: RunSpec) -> tuple[Trajectory, Flags, tuple[Unfit, ...]]:
    """The columns whose values do no harm in the learner, which of the N these are, and the others.

    A column with several faults counts once, under the first. Raises MessageRefused, "nonfinite"
    or "range": no column is fit.
    """
    fit = np.ones(rows.actions.shape[1], np.bool_)
    unfit = []
    for reason, kind, explanation, bad in _faults(rows, spec):
        count = int(np.count_nonzero(fit & bad))
        if count:
            unfit.append(Unfit(reason, kind, explanation, count))
            fit &= ~bad
        if not fit.any():
            raise MessageRefused(unfit[0].reason, unfit[0].explanation, unfit[0].kind)
    if unfit:
        kept: list[NDArray[Any]] = [values[:, fit] for values in rows]
        rows = Trajectory(*kept)
    return rows, fit, tuple(unfit)


def _faults(rows: Trajectory, spec: RunSpec) -> Iterator[tuple[str, str, str, Flags]]:
    """Reason, kind, explanation and columns [N] of each fault that there is."""
    continuous = spec.action.kind == "continuous"
    for leaf in spec.observation.leaves:
        yield from _faults_of_observations(rows.observations, leaf, bool(spec.observation.parts))
    log_probs, most = rows.behaviour_log_probs, MOST_NUMBER if continuous else 0
    yield from _faults_of_numbers("rewards", "rewards", rows.rewards, advice=REMEDY)
    yield from _faults_of_numbers("log_probs", "log-probabilities", log_probs, most=most)
    yield from _faults_of_numbers("memory", "memories of the network", rows.memory)
    if continuous:
        yield from _faults_of_numbers("actions", "actions", rows.actions)
    elif (bad := _outside(rows.actions, spec.action.sizes)) is not None:
        words = f"an action is not in 0 .. {max(spec.action.sizes) - 1}"
        yield "range", "actions", words, bad
    if (bad := _outside(rows.tasks, (spec.num_tasks,))) is not None:
        yield "range", "tasks", f"a task's number is not in 0 .. {spec.num_tasks - 1}", bad
    if spec.observation.mask:
        yield from _faults_of_masks(rows, spec)
    yield from _faults_of_numbers("flags", "discounts", rows.discounts, least=0, most=1)
    # A bool made of another byte than 0 and 1 is undefined behaviour where it is used.
    for flags in (rows.is_first, rows.mask):
        if (bad := _beyond(flags.view(np.uint8), 0, 1)) is not None:
            yield "range", "flags", "a flag is neither 0 nor 1", bad


def _faults_of_observations(
    rows: NDArray[Any], leaf: ObservationPart, in_bytes: bool
) -> Iterator[tuple[str, str, str, Flags]]:
    if leaf.dtype == "uint8" and not leaf.num_values:
        return  # every byte is allowed
    named = f" ({leaf.name})" if leaf.name else ""
    values = taken_out(leaf, rows) if in_bytes else rows
    if values.dtype.kind == "f" and (bad := _not_finite(values)) is not None:
        yield "nonfinite", "observations", f"observations{named} are not finite", bad
    if values.dtype == np.float64 and (bad := _beyond(values, -MOST, MOST)) is not None:
        yield "range", "observations", f"observations{named} are beyond float32", bad
    if leaf.num_values and (bad := _outside(values, leaf.num_values)) is not None:
        limits = sorted({limit - 1 for limit in leaf.num_values})
        words = f"an observation{named} is not in 0 .. {limits[-1]}"
        yield "range", "observations", words, bad


def _faults_of_masks(rows: Trajectory, spec: RunSpec) -> Iterator[tuple[str, str, str, Flags]]:
    """Faults of the action masks, and of the actions under them; the rest has been checked."""
    history, sizes = spec.observation.history, spec.action.sizes
    # Rows of zeros stand for those before an episode's first.
    masks = allowed(spec.observation, rows.observations[history:])  # [T+1, N, P]
    if (without := nothing_left(masks, sizes)).any():
        words = f"an {MASK_NAME} allows nothing; it must leave one choice, if only a pass"
        yield "range", "observations", words, _columns(without)
    choices = rows.actions.reshape(*rows.actions.shape[:2], -1)  # [T, N, K]
    places = np.clip(choices, 0, np.array(sizes) - 1) + offsets(sizes)
    if not (taken := np.take_along_axis(masks[:-1], places, axis=-1)).all():
        words = f"an action is one that its {MASK_NAME} does not allow"
        yield "range", "actions", words, _columns(~taken)


def _faults_of_numbers(
    kind: str,
    words: str,
    values: NDArray[Any],
    least: float = -MOST_NUMBER,
    most: float = MOST_NUMBER,
    advice: str = "",
) -> Iterator[tuple[str, str, str, Flags]]:
    """Faults of float32 numbers that must lie in `least` .. `most`."""
    if (bad := _beyond(values, least, most)) is None:
        return  # nor is there a NaN
    if (nonfinite := _not_finite(values)) is not None:
        yield "nonfinite", kind, f"{words} are not finite", nonfinite
    yield "range", kind, f"{words} are not in {least:g} .. {most:g}{advice}", bad


# Each of these gives the columns [N] of values [R, N, ...] that are at fault; None if none is.


def _not_finite(values: NDArray[Any]) -> Flags | None:
    finite = np.isfinite(values)
    return None if finite.all() else _columns(~finite)


def _beyond(values: NDArray[Any], least: float, most: float) -> Flags | None:
    """Not in `least` .. `most`, as no NaN is."""
    if not values.size:
        return None
    if (values.dtype.kind == "u" or values.min() >= least) and values.max() <= most:
        return None
    return _columns(~((values >= least) & (values <= most)))


def _outside(values: NDArray[Any], limits: tuple[int, ...]) -> Flags | None:
    """Not in 0 .. limit - 1, by the limit of each of the last K values."""
    if len(limits) == 1:  # twenty times as fast as a comparison with an array
        return _beyond(values, 0, limits[0] - 1)
    several = values.reshape(*values.shape[:2], -1, len(limits))
    inside = (several >= 0) & (several < np.array(limits))
    return None if inside.all() else _columns(~inside)


def _columns(bad: Flags) -> Flags:
    """Those with any value that is bad [R, N, ...]."""
    return np.asarray(bad.any(axis=(0, *range(2, bad.ndim))))
