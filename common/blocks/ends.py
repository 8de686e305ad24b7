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
# Where ends outnumber episodes, so many ends are tried in a block at most: more could only be there
# to take the reader's time.
MOST_TRIES = 5000


def check(
    rows: Trajectory,
    returns: NDArray[np.float32],
    lengths: NDArray[np.int32],
    columns: Integers | NDArray[np.int32],
) -> None:
    """Takes episodes [K], each column's in the order of their ends, and the rows of the columns.

    Raises MessageRefused, "range": they do not fit the rows.
    """
    order = columns.argsort(kind="stable")
    columns = columns[order]
    rank = np.arange(len(columns)) - columns.searchsorted(columns)  # in the column
    told = np.empty((len(columns), 2))
    told[:, 0], told[:, 1] = lengths[order], returns[order]
    mask = rows.mask
    may_end = mask.copy()  # [T, N]
    np.greater(mask[:-1], mask[1:], out=may_end[:-1])
    ends_columns, ends = may_end.T.nonzero()  # sorted like the episodes
    places = ends_columns.searchsorted(columns) + rank
    if places[-1] >= len(ends) or (ends_columns[places] != columns).any():
        raise _refusal("more episodes are told of than ended")
    sums = np.empty((*mask.shape, 2))
    mask.cumsum(0, out=sums[..., 0])
    rows.rewards.cumsum(0, out=sums[..., 1])
    # As if each end ended an episode, as it does everywhere but in games with lives.
    fits = _fit(told, sums[ends[places], columns], rank > 0, 0.0)
    if not fits.all():
        finite = told[np.isfinite(told)]
        error = RELATIVE_ERROR_OF_SUMS * max(np.abs(finite).max(), np.abs(sums).max())
        tries = 0
        for column in np.unique(columns[~fits]):
            start, stop = columns.searchsorted([column, column + 1])
            first, last = ends_columns.searchsorted([column, column + 1])
            tries += int(last - first)
            of_column = told[start:stop], sums[ends[first:last], column]
            if tries > MOST_TRIES or not _some_ends_fit(*of_column, error):
                raise _refusal("an episode's length or return does not fit the rows")


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


def _some_ends_fit(told: Pairs, sums: Pairs, error: float) -> bool:
    """Whether among the ends of a column, at these sums [E, 2], are those of its episodes [K, 2].

    By the end of the first episode those of the others are known.
    """
    steps, lengths = sums[:, 0], told[:, 0]
    after_first = lengths.cumsum() - lengths[0]
    begun = np.arange(len(told)) > 0
    for end_of_first in range(len(steps) - len(told) + 1):
        wanted = steps[end_of_first] + after_first
        places = steps.searchsorted(wanted)
        found = places[-1] < len(steps) and (steps[places] == wanted).all()
        if found and _fit(told, sums[places], begun, error).all():
            return True
    return False


def _refusal(words: str) -> MessageRefused:
    return MessageRefused("range", words, "episodes")
