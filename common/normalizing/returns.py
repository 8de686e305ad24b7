"""The discounted return of each environment up to now, across the blocks that its actor sends."""

from collections import OrderedDict, defaultdict

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.blocks.trajectory import Trajectory
from impala_redis.common.feeding.batch import Part

Doubles = NDArray[np.float64]

# The returns of so many environments are kept; those of actors unheard of for longest go first.
MOST_ENVIRONMENTS = 2**20


class DiscountedReturns:
    """R = gamma R + r for each environment of each actor; an episode begins with 0."""

    def __init__(self, discounting: float) -> None:
        """`discounting` is gamma."""
        self._discounting = discounting
        # [N] by the actor's name and incarnation, the one heard of last at the end
        self._of_actor: OrderedDict[tuple[str, int], Doubles] = OrderedDict()
        self._num_environments = 0

    def follow(self, rows: Trajectory, parts: list[Part]) -> Doubles:
        """The returns after each real row of these parts of a batch, in one array [n]."""
        found = [self._follow_apart(rows, apart) for apart in _in_rounds(parts)]
        return np.concatenate(found) if found else np.empty(0)

    def _follow_apart(self, rows: Trajectory, parts: list[Part]) -> Doubles:
        """The same for parts of different actors, which are followed together."""
        columns = np.concatenate([np.arange(p.columns.start, p.columns.stop) for p in parts])
        rewards, real = rows.rewards[:, columns].astype(np.float64), rows.mask[:, columns]
        begins = rows.is_first[:-1, columns]
        returns = np.concatenate([self._kept(part)[list(part.environments)] for part in parts])
        after = np.empty_like(rewards)
        for reward, counts, begun, now in zip(rewards, real, begins, after, strict=True):
            returns[begun] = 0.0
            np.multiply(returns, self._discounting, out=now)
            now += reward
            now[~counts] = 0.0  # the episode is over
            returns = now
        start = 0
        for part in parts:
            stop = start + len(part.environments)
            self._kept(part)[list(part.environments)] = returns[start:stop]
            start = stop
        return after[real]

    def _kept(self, part: Part) -> Doubles:
        """The returns of the part's actor, with room for its environments."""
        kept = self._of_actor.pop(part.actor, np.empty(0))
        self._num_environments -= len(kept)
        missing = max(part.environments) + 1 - len(kept)
        if missing > 0:
            kept = np.concatenate([kept, np.zeros(missing)])
        self._of_actor[part.actor] = kept
        self._num_environments += len(kept)
        while self._num_environments > MOST_ENVIRONMENTS and len(self._of_actor) > 1:
            self._num_environments -= len(self._of_actor.popitem(last=False)[1])
        return kept


def _in_rounds(parts: list[Part]) -> list[list[Part]]:
    """The parts in lists in which no actor comes twice, each actor's own in their order."""
    rounds: list[list[Part]] = []
    seen: defaultdict[tuple[str, int], int] = defaultdict(int)
    for part in parts:
        number = seen[part.actor]
        seen[part.actor] += 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(part)
    return rounds
