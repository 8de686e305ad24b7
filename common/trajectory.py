"""One unroll of N environments, time-major, and the rule of its rows.

Row t holds the action taken at observation t and what it led to. Gymnasium's next-step autoreset
adds one fake row after an episode's last: its observation is the true final one (so that a
truncated episode's bootstrap value is simply there), its action does nothing, and its `mask` is
False: it counts in no loss, trace or frame.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Trajectory(NamedTuple):
    """The rows: `observations` and `is_first` have T+1 of them, the others T."""

    observations: NDArray[np.generic]  # [T+1, N, ...] in the environment's dtype
    is_first: NDArray[np.bool_]  # [T+1, N] an episode's first observation
    actions: NDArray[np.int32]  # [T, N] 0 .. num_actions - 1
    rewards: NDArray[np.float32]  # [T, N] as the environment gave them
    discounts: NDArray[np.float32]  # [T, N] 0 where the environment terminated, else 1
    behaviour_log_probs: NDArray[np.float32]  # [T, N] log mu(a|x) of the action taken
    mask: NDArray[np.bool_]  # [T, N] False on fake rows

    @property
    def frames(self) -> int:
        """Environment steps inside, fake rows not counted."""
        return int(np.count_nonzero(self.mask))


class Episode(NamedTuple):
    """An episode that ended inside an unroll."""

    episode_return: float  # undiscounted sum of the environment's rewards
    length: int  # steps


class Origin(NamedTuple):
    """Where a block comes from: the identity that makes a re-sent push harmless."""

    actor: str  # at most 64 characters
    incarnation: int  # random for each time an actor joins
    sequence: int  # 1, 2, 3 ... within an incarnation
    weights_version: int  # of the behaviour policy at the unroll's start


class Block(NamedTuple):
    """What one list element holds."""

    origin: Origin
    trajectory: Trajectory
    episodes: tuple[Episode, ...]
    unroll_s: float  # seconds the actor took for the unroll


def empty_trajectory(
    unroll_length: int, num_envs: int, shape: tuple[int, ...], dtype: str
) -> Trajectory:
    """Uninitialised rows for `[T, N]` of observations of that shape and dtype."""
    t, n = unroll_length, num_envs
    return Trajectory(
        observations=np.empty((t + 1, n, *shape), dtype),
        is_first=np.empty((t + 1, n), np.bool_),
        actions=np.empty((t, n), np.int32),
        rewards=np.empty((t, n), np.float32),
        discounts=np.empty((t, n), np.float32),
        behaviour_log_probs=np.empty((t, n), np.float32),
        mask=np.empty((t, n), np.bool_),
    )
