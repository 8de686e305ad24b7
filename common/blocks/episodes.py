"""The episodes that ended in a block, as arrays: K of them, with I infos each."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.blocks import ends
from impala_redis.common.blocks.trajectory import NO_INFOS, Episode, Trajectory
from impala_redis.common.errors import MessageRefused
from impala_redis.common.settings.declaring import MAX_INFOS, MAX_NAME

MAX_NUMBERS = 4096  # K x I: a block of many one-step episodes would hold little else
# What the list of names takes in a header, at most: a character has up to 4 bytes.
NAMES_NBYTES = MAX_INFOS * (4 * MAX_NAME + 3)


def info_names(episodes: Sequence[Episode]) -> list[str]:
    """The names that travel: the first 32 by name, and no more than 4,096 numbers have room for."""
    most = min(MAX_INFOS, MAX_NUMBERS // max(1, len(episodes)))
    return sorted({name for episode in episodes for name in episode.infos})[:most]


def as_arrays(episodes: Sequence[Episode], names: Sequence[str]) -> list[NDArray[Any]]:
    """Float32 returns [K], int32 lengths [K] and columns [K], and float32 infos [K, I].

    An info is NaN where an episode has none of that name.
    """
    returns, lengths, columns, infos = zip(*episodes, strict=True) if episodes else ((),) * 4
    numbers = [[info.get(name, np.nan) for name in names] for info in infos] if names else ()
    with np.errstate(over="ignore"):  # beyond float32 a return becomes infinite
        return [
            np.array(returns, "<f4"),
            np.array(lengths, "<i4"),
            np.array(columns, "<i4"),
            np.array(numbers, "<f4"),
        ]


def layout(num_episodes: int, num_infos: int) -> list[tuple[str, tuple[int, ...]]]:
    """The dtype and shape of each of these arrays."""
    k = num_episodes
    return [("float32", (k,)), ("int32", (k,)), ("int32", (k,)), ("float32", (k, num_infos))]


def most_nbytes(num_steps: int) -> int:
    """An upper bound of what the arrays take, in bytes: one-step episodes, with all infos."""
    return 12 * num_steps + 4 * min(MAX_INFOS * num_steps, MAX_NUMBERS)


def from_arrays(
    arrays: Sequence[NDArray[Any]],
    names: Sequence[str],
    rows: Trajectory,
    fit: NDArray[np.bool_],
) -> tuple[Episode, ...]:
    """The episodes in arrays of that layout, of the columns that are `fit` [N] and make `rows`.

    An episode whose return is not finite is left out, and an info that is not finite is absent.
    Raises MessageRefused, "range": a length or a column cannot be, or they do not fit the rows.
    """
    returns, lengths, columns, infos = arrays
    if not len(lengths):
        return ()
    if lengths.min(initial=1) < 1:
        raise MessageRefused("range", "an episode's length is not above 0", "episodes")
    if columns.min(initial=0) < 0 or columns.max(initial=0) >= len(fit):
        words = f"an episode's column is not in 0 .. {len(fit) - 1}"
        raise MessageRefused("range", words, "episodes")
    kept = np.isfinite(returns)
    if len(fit) == rows.mask.shape[1]:
        ends.check(rows, returns, lengths, columns)
    elif (there := fit[columns]).any():
        in_rows = (fit.cumsum() - 1)[columns[there]]
        ends.check(rows, returns[there], lengths[there], in_rows)
    kept &= fit[columns]
    if not kept.all():
        returns, lengths, columns, infos = (array[kept] for array in arrays)
    by_name: list[Mapping[str, float]] = [NO_INFOS] * len(returns)
    if names:
        by_name = [
            {name: value for name, value in zip(names, row, strict=True) if isfinite(value)}
            for row in infos.tolist()
        ]
    return tuple(map(Episode, returns.tolist(), lengths.tolist(), columns.tolist(), by_name))
