"""Weights are held back for the paper's experiment on policy lag (Figure E.1): `--force-lag`."""

from collections import deque

from impala_redis.common.blocks.weights import VersionedWeights


class Delay:
    """Gives out every weights version when it is `updates` updates old."""

    def __init__(self, updates: int) -> None:
        self.updates = updates
        self._held: deque[VersionedWeights] = deque()

    def hold(self, newest: VersionedWeights) -> None:
        """Takes the version that an update has just made."""
        self._held.append(newest)
        while len(self._held) > 1 and self._held[1].version <= newest.version - self.updates:
            self._held.popleft()

    def due(self) -> VersionedWeights | None:
        """The newest version that is old enough; each is given out once."""
        if self._held and self._held[0].version <= self._held[-1].version - self.updates:
            return self._held.popleft()
        return None
