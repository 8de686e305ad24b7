"""Whether the episodes that a block tells of fit the rows that it holds.

What an honest actor cannot send is refused. An episode ends at a real row before a fake one, or at
the last row, behind which the block does not show what came. Of an episode that also begins in the
block the length is the number of its real rows, and the return is the sum of its rewards. One that
began before the block has at least the rows that are here, and each of its other steps brought at
most `MOST_NUMBER`, either way. Not each end ends an episode: a game of Atari goes on after a lost
life.
"""

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.blocks.checks import MOST_NUMBER
from impala_redis.common.blocks.trajectory import Trajectory
from impala_redis.common.errors import MessageRefused

Flags = NDArray[np.bool_]
Integers = NDArray[np.int64]
# The last axis is a number of real rows, or a length, and a sum of rewards, or a return.
Pairs = NDArray[np.float64]

# A return travels in float32. It is a difference of sums in float64, which may be larger than it.
RELATIVE_ERROR, RELATIVE_ERROR_OF_SUMS = 1e-6, 1e-12
# So many episodes are looked at one by one: it takes 4 us for each, and 60 us for all at once.
FEW = 12
# Where ends outnumber episodes, the ends of so many episodes are looked for at most: more could
# only be there to take the reader's time. It takes some 0.1 us for each.
TRIES, TRIES_A_ROW = 200_000, 2


def check(
    rows: Trajectory,
    returns: NDArray[np.float32],
    lengths: NDArray[np.int32],
    columns: Integers | NDArray[np.int32],
) -> None:
    """Takes episodes [K], each column's in the order of their ends, and the rows of the columns.

    Raises MessageRefused, "range": they do not fit the rows.
    """
    if len(columns) <= FEW and _few_fit(rows, returns, lengths, columns):
        return
    has_any = np.zeros(rows.mask.shape[1], np.bool_)
    has_any[columns] = True
    # [C, T], the columns that have any, each in one piece of memory: that takes half the time.
    mask, rewards = rows.mask.T[has_any], rows.rewards.T[has_any]
    order = columns.argsort(kind="stable")
    of: Integers = (has_any.cumsum() - 1)[columns[order]]
    rank = np.arange(len(of)) - of.searchsorted(of)  # in the column
    told = np.empty((len(of), 2))
    told[:, 0], told[:, 1] = lengths[order], returns[order]
    may_end = mask.copy()
    np.greater(mask[:, :-1], mask[:, 1:], out=may_end[:, :-1])
    ends_columns, ends = may_end.nonzero()  # sorted like the episodes
    places = ends_columns.searchsorted(of) + rank
    if places[-1] >= len(ends) or (ends_columns[places] != of).any():
        raise _refusal("more episodes are told of than ended")
    sums = np.empty((2, *mask.shape))
    mask.cumsum(1, out=sums[0])
    rewards.cumsum(1, out=sums[1])
    of_ends = sums[:, ends_columns, ends].T
    # As if each end ended an episode, as it does everywhere but in games with lives.
    fits = _fit(told, of_ends[places], rank > 0, 0.0)
    if not fits.all():
        finite = told[np.isfinite(told)]
        error = RELATIVE_ERROR_OF_SUMS * max(np.abs(finite).max(), np.abs(sums).max())
        others = np.isin(of, of[~fits])
        most = TRIES + TRIES_A_ROW * mask.size
        if not _later_ends_fit(told[others], of[others], of_ends, ends_columns, error, most):
            raise _refusal("an episode's length or return does not fit the rows")


def _few_fit(
    rows: Trajectory,
    returns: NDArray[np.float32],
    lengths: NDArray[np.int32],
    columns: Integers | NDArray[np.int32],
) -> bool:
    """Whether they are of different columns and end where these first do: otherwise look closer."""
    numbers = columns.tolist()
    if len(set(numbers)) < len(numbers):
        return False
    for column, length, told in zip(numbers, lengths.tolist(), returns.tolist(), strict=True):
        real = rows.mask[:, column].tolist()
        start = int(not real[0])  # in front of which an episode ended
        if True not in real[start : start + 1]:
            return False
        stop = real.index(False, start + 1) if False in real[start + 1 :] else len(real)
        before = length - (stop - start)
        gap = abs(told - sum(rows.rewards[:stop, column].tolist()))
        if before < 0 or not gap <= before * MOST_NUMBER + RELATIVE_ERROR * abs(told):
            return False
    return True


def _fit(told: Pairs, sums: Pairs, begun: Flags, error: float) -> Flags:
    """Which episodes [K, 2] can end where the sums up to their ends are these [K, 2].

    Those that have `begun` in this block did so behind the one before. `error` is what may be wrong
    with a sum.
    """
    off = told - sums
    off[1:] += sums[:-1] * begun[1:, None]
    before, gap = off[:, 0], np.abs(off[:, 1])  # steps before the block; return without rewards
    allowed = before * MOST_NUMBER + RELATIVE_ERROR * np.abs(told[:, 1]) + error
    # A return that is not finite costs its episode later, and says nothing about the rows.
    credible = (gap <= allowed) | np.isnan(gap)
    fits: Flags = credible & (before >= 0) & (before * begun == 0)
    return fits


def _later_ends_fit(
    told: Pairs, columns: Integers, of_ends: Pairs, ends_columns: Integers, error: float, most: int
) -> bool:
    """Whether in each column some of the ends, at these sums [E, 2], are those of its episodes.

    By the end of the first episode those of the others are known. The first ends of all columns are
    tried together, then the second ones, and so on, with `most` episodes in all.
    """
    steps = of_ends[:, 0].astype(np.int64)
    width = int(steps.max()) + 1
    keys = ends_columns * width + steps  # sorted, by which an end of a column is found
    for number in range(width):
        most -= len(columns)
        begins = np.flatnonzero(np.diff(columns, prepend=-1))  # the first episode of each column
        of_column = np.repeat(begins, np.diff(begins, append=len(columns)))
        begun = of_column < np.arange(len(columns))
        first = ends_columns.searchsorted(columns) + number
        if most < 0 or (first >= len(keys)).any() or (ends_columns[first] != columns).any():
            return False
        until = told[:, 0].cumsum()
        wanted = steps[first] + until - until[of_column]
        places = keys.searchsorted(columns * width + wanted)
        places[places == len(keys)] = 0
        found = (ends_columns[places] == columns) & (steps[places] == wanted)
        fits = found & _fit(told, of_ends[places], begun, error)
        others = np.isin(columns, columns[~fits])
        told, columns = told[others], columns[others]
        if not len(columns):
            return True
    return False


def _refusal(words: str) -> MessageRefused:
    return MessageRefused("range", words, "episodes")
