"""CartPole without velocities: a policy without a memory cannot balance it for long.

The observation is the cart's position and the pole's angle, which CartPole-v1 gives as the first
and the third of four numbers; all else is CartPole-v1. Importing this module registers
`impala/MaskedCartPole-v1`; `common.envs.vector` does.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv, CartPoleVectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

ENV_ID = "impala/MaskedCartPole-v1"
MAX_EPISODE_STEPS = 500
REWARD_THRESHOLD = 475.0
# Indices of the position and the angle; CartPole-v1 gives position, velocity, angle and angular
# velocity.
SEEN = [0, 2]


class MaskedCartPole(CartPoleEnv):
    """One cart; observations are float32 [2]."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.observation_space = _masked(self.observation_space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Starts near the middle."""
        observation, info = super().reset(seed=seed, options=options)
        return observation[SEEN], info

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Takes one step; the time limit is a wrapper's."""
        observation, *others = super().step(action)  # type: ignore[no-untyped-call]
        return observation[SEEN], *others


class MaskedCartPoleVector(CartPoleVectorEnv):
    """N carts in numpy, with a time limit; observations are float32 [N, 2]."""

    def __init__(self, num_envs: int = 1, **options: Any) -> None:
        super().__init__(num_envs, **options)
        self.single_observation_space = _masked(self.single_observation_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Starts all near the middle."""
        observations, info = super().reset(seed=seed, options=options)
        return observations[:, SEEN], info

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[
        NDArray[np.float32],
        NDArray[np.float32],
        NDArray[np.bool_],
        NDArray[np.bool_],
        dict[str, Any],
    ]:
        """Takes one step in each, or resets those whose episode was over."""
        observations, rewards, terminated, truncated, info = super().step(actions)
        return observations[:, SEEN], rewards, terminated, truncated, info


def _masked(space: Any) -> spaces.Box:
    """The space of what is left of CartPole-v1's observations."""
    return spaces.Box(space.low[SEEN], space.high[SEEN], dtype=np.float32)


gymnasium.register(
    ENV_ID,
    entry_point="impala_redis.common.games.masked_cartpole:MaskedCartPole",
    vector_entry_point="impala_redis.common.games.masked_cartpole:MaskedCartPoleVector",
    max_episode_steps=MAX_EPISODE_STEPS,
    reward_threshold=REWARD_THRESHOLD,
)
