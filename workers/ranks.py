"""What a group of learners shows of its ranks: shares of their time, and a row of impala-status."""

from collections import deque
from collections.abc import Mapping, Sequence

from impala_redis.common.transport.situation import (
    MOST_RANKS,
    STANDBY_SHARE,
    WAIT_SHARE,
    shares_by_rank,
    slow_rank_in,
)

# The shares in a record are of that time, or of the time since the last record if it is longer.
MEAN_OVER_S = 5.0
# A row names the wait of this many ranks one by one.
MOST_SHOWN = 8
# A greater number was not written by a learner.
MOST_LEARNERS = 1_000_000


class RankTimes:
    """For each rank of a group, how long it has waited."""

    def __init__(self) -> None:
        self.ranks = 1
        self._sums: dict[str, float] = {}  # since the start, by the names of their shares
        self._now_s = 0.0  # since the start, as of the last record
        # As of some records: the time, and the sums then. Only the first is older than the mean.
        self._taken: deque[tuple[float, dict[str, float]]] = deque([(0.0, {})])

    def note(self, waited_s: Sequence[float], stood_by_s: Sequence[float]) -> None:
        """Sets the newest sums, one of each for every rank, in seconds since the start."""
        self.ranks = len(waited_s)
        self._sums = {
            f"{family}{rank}": time_s
            for family, times_s in ((WAIT_SHARE, waited_s), (STANDBY_SHARE, stood_by_s))
            for rank, time_s in enumerate(times_s[:MOST_RANKS])
        }

    def take(self, elapsed_s: float) -> dict[str, float]:
        """The figures for a record, `elapsed_s` after the one before; none for one learner alone.

        They are of the time since the last record that is MEAN_OVER_S old: two learners that do
        the same wait for each other in turns. A wait counts when it has ended, so that a share
        could be a little above 1: it is held to 1.
        """
        self._now_s += elapsed_s
        if self.ranks < 2:
            return {}
        while len(self._taken) > 1 and self._taken[1][0] <= self._now_s - MEAN_OVER_S:
            self._taken.popleft()
        since_s, before = self._taken[0]
        self._taken.append((self._now_s, self._sums))
        shares = {
            name: min(max(sum_s - before.get(name, 0.0), 0.0) / (self._now_s - since_s), 1.0)
            for name, sum_s in self._sums.items()
        }
        return {"ranks": self.ranks, **shares}


def group_of(figures: Mapping[str, float]) -> str:
    """ "group of 4, " for such a group's figures; empty for a learner alone."""
    ranks = figures.get("ranks", 1.0)
    return f"group of {ranks:,.0f}, " if 2 <= ranks <= MOST_LEARNERS else ""


def in_words(figures: Mapping[str, float]) -> str:
    """How long each rank waits for batches, and which one is slow; empty for a learner alone."""
    waits = shares_by_rank(figures, WAIT_SHARE)
    if not group_of(figures) or not waits:
        return ""
    if len(waits) <= MOST_SHOWN:
        shares = ", ".join(f"{100 * share:.0f}" for share in waits.values())
        said = f"without a batch {shares} % of the time"
    else:
        least, most = min(waits, key=waits.__getitem__), max(waits, key=waits.__getitem__)
        said = (
            f"without a batch {100 * waits[least]:.0f} % (rank {least}) to "
            f"{100 * waits[most]:.0f} % (rank {most}) of the time"
        )
    slow = slow_rank_in(figures)
    return f"{said}; {slow}" if slow else said
