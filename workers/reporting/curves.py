"""A figure as a curve that can be drawn, for one run or for several together.

Nothing here is smoothed: points are means of records, or lie on the line between two of them.
"""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from impala_redis.common.records.figures import reduction_of
from impala_redis.common.records.history import Column, Run, RunRecords, series

# Points of a curve: more than a small chart has pixels for.
POINTS = 400
# With no more records than this, the first one is kept.
FEW = 3


class Curve(NamedTuple):
    """A figure of one run, or its mean over several, against what they have in common."""

    x: Column  # [P], rising
    y: Column  # [P] NaN where there is no value
    low: Column | None = None  # [P] least of the runs, None for a single one
    high: Column | None = None  # [P] greatest


def curve_of(
    runs: Sequence[Run], name: str, over: str = "frames", from_start: bool = True
) -> Curve | None:
    """The figure over another one, in at most POINTS points; None when it has no value.

    Records of a single run are taken together as the table of figures says: by their mean, the
    least or the greatest. Several runs are laid on common points; each counts as far as it went.
    For the same runs and `over` the points are the same whatever the figure. Without `from_start`
    the first record, in which everything starts, is left out unless there are few.
    """
    records = [run.records if from_start else _started(run.records) for run in runs]
    if len(records) == 1:
        return _thinned(records[0].column(over), records[0].column(name), name)
    lines = [series(one, name, over) for one in records]
    if not any(len(x) for x, _ in lines):
        return None
    extents = np.concatenate([one.column(over) for one in records])
    low, high = np.nanmin(extents), np.nanmax(extents)
    grid = np.linspace(low, high, POINTS // 2 if high > low else 1)
    laid = np.stack([_interpolated(grid, *_rising(*line)) for line in lines])  # [runs, P]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # points that no run has a value for
        middle = np.nanmean(laid, axis=0)
        low_y, high_y = np.nanmin(laid, axis=0), np.nanmax(laid, axis=0)
    return Curve(grid, middle, low_y, high_y) if np.isfinite(middle).any() else None


def _started(records: RunRecords) -> RunRecords:
    if records.count <= FEW:
        return records
    numbers = {name: column[1:] for name, column in records.numbers.items()}
    return RunRecords(records.count - 1, numbers, {}, records.every)


def _rising(x: Column, y: Column) -> tuple[Column, Column]:
    """The points at which x is beyond all before it."""
    before = np.concatenate([[-np.inf], np.maximum.accumulate(x)[:-1]])
    return x[x > before], y[x > before]


def _interpolated(grid: Column, x: Column, y: Column) -> Column:
    """y at the grid's points, NaN outside of x."""
    if not len(x):
        return np.full_like(grid, np.nan)
    return np.interp(grid, x, y, left=np.nan, right=np.nan)


def _thinned(x: Column, y: Column, name: str) -> Curve | None:
    """At most POINTS points, each made of equally many consecutive records."""
    y = y[np.isfinite(x)]
    x = x[np.isfinite(x)]
    if not np.isfinite(y).any():
        return None
    if len(x) <= POINTS:
        return Curve(x, y)
    starts = np.arange(POINTS) * len(x) // POINTS
    present = np.add.reduceat(np.isfinite(y).astype(np.float64), starts)
    present[present == 0] = np.nan
    reduction = reduction_of(name)
    if reduction == "min":
        thinned = np.fmin.reduceat(y, starts)
    elif reduction == "max":
        thinned = np.fmax.reduceat(y, starts)
    else:
        thinned = np.add.reduceat(np.nan_to_num(y), starts) / present
    return Curve(np.add.reduceat(x, starts) / np.diff(starts, append=len(x)), thinned)


def spread(records: RunRecords, name: str, over: str) -> tuple[Column, Column]:
    """The values in a figure that is a list, laid evenly between the last record and its own."""
    xs, ys = [np.empty(0)], [np.empty(0)]
    ends = records.column(over)
    for record, values in records.lists.get(name, []):
        before = ends[record - 1] if record else 0.0
        if len(values) and math.isfinite(before) and math.isfinite(ends[record]):
            xs.append(np.linspace(before, ends[record], len(values) + 1)[1:])
            ys.append(values)
    x, y = np.concatenate(xs), np.concatenate(ys)
    return x[np.isfinite(y)], y[np.isfinite(y)]
