"""Which weights may be published: under `--force-lag` older ones (the paper's Figure E.1)."""

from collections import deque

from impala_redis.common.blocks.weights import VersionedWeights


class Delay:
    """Holds weights back until they are `updates` updates old."""

    def __init__(self, updates: int) -> None:
        self.updates = updates
        self._held: deque[VersionedWeights] = deque()

    @property
    def newest_version(self) -> int:
        """The last version that was held; -1 for none."""
        return self._held[-1].version if self._held else -1

    def hold(self, newest: VersionedWeights) -> None:
        """Takes the version that an update has just made."""
        self._held.append(newest)
        while len(self._held) > 1 and self._held[1].version <= newest.version - self.updates:
            self._held.popleft()

    def due(self) -> VersionedWeights | None:
        """The newest version that is old enough; None while none is."""
        if self._held and self._held[0].version <= self.newest_version - self.updates:
            return self._held[0]
        return None


def most_behind(max_policy_lag: int | None, force_lag: int) -> int | None:
    """How many versions the published weights may fall behind, whatever the interval; None: any.

    It is half of what the bound leaves beyond the forced lag. The other half is for the lag that
    comes until a block is opened: with nothing left, all that is played would be rejected until the
    interval is over.
    """
    return None if max_policy_lag is None else (max_policy_lag - force_lag) // 2
