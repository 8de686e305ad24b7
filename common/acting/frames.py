"""Stacks of the last observations: each travels once, and actor and learner stack by one rule.

The network sees the last `frame_stack` observations of the episode, oldest first. Zeros stand for
those that a young episode does not have yet, as in ALE's own stacks. The learner stacks with
`stacked` in `common.learning.torch_inputs`.
"""

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.run.spaces import ObservationSpec

Observations = NDArray[np.generic]


class FrameStack:
    """The last S observations of N environments, as an actor's policy sees them."""

    def __init__(self, observation: ObservationSpec, num_envs: int) -> None:
        shape = (num_envs, observation.frame_stack, *observation.shape)
        self._stacks = np.zeros(shape, observation.dtype)

    def push(self, observations: Observations, is_first: NDArray[np.bool_]) -> Observations:
        """Adds observations [N, ...]. The stacks [N, S, ...] are valid until the next push."""
        self._stacks[:, :-1] = self._stacks[:, 1:]
        self._stacks[:, -1] = observations
        self._stacks[is_first, :-1] = 0
        return self._stacks

    def with_next(self, observations: Observations, is_first: NDArray[np.bool_]) -> Observations:
        """The stacks [N, S, ...] that a push of observations [N, ...] would make, as a copy."""
        stacks = np.concatenate([self._stacks[:, 1:], observations[:, None]], axis=1)
        stacks[is_first, :-1] = 0
        return stacks

    @property
    def history(self) -> Observations:
        """[S-1, N, ...]: the observations before the one that comes next, oldest first."""
        return np.moveaxis(self._stacks[:, 1:], 0, 1)
