"""Weights held back: the paper's experiment on policy lag (Figure E.1), by `--force-lag`."""

from collections import deque

from impala_redis.common.blocks.weights import Weights


class Delay:
    """Gives out every weights version when it is `updates` updates old."""

    def __init__(self, updates: int) -> None:
        self.updates = updates
        self._held: deque[tuple[int, Weights]] = deque()

    def hold(self, version: int, weights: Weights) -> None:
        """Takes the version that an update has just made."""
        self._held.append((version, weights))
        while len(self._held) > 1 and self._held[1][0] <= version - self.updates:
            self._held.popleft()

    def due(self) -> tuple[int, Weights] | None:
        """The newest version that is old enough, once."""
        if self._held and self._held[0][0] <= self._held[-1][0] - self.updates:
            return self._held.popleft()
        return None
