"""The short corridor with switched actions (Sutton and Barto, 2nd edition, Example 13.1).

Three states look the same, and the goal is to the right of the third. In the second state the
actions are swapped, so that a policy with one fixed action never arrives: the best policy is a
random one. Importing this module registers `impala/ShortCorridor-v0`; `common.envs.vector` does.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

CorridorObservation = NDArray[Any]  # float32 [1], or [N, 1]: always 1

ENV_ID = "impala/ShortCorridor-v0"
MAX_EPISODE_STEPS = 1000
LEFT, RIGHT = 0, 1
START, GOAL = 0, 3
# The state after an action, NEXT_STATE[state, action].
NEXT_STATE = np.array([[0, 1], [2, 0], [1, 3]])
STEP_REWARD = -1.0
# The probability of RIGHT with the greatest value, which is -11.66: 2 - sqrt(2).
BEST_RIGHT_PROBABILITY = 2.0 - 2.0**0.5


def value(right_probability: float) -> float:
    """The mean return from the start of going right with this probability; no time limit."""
    p = right_probability
    return -2.0 * (2.0 - p) / (p * (1.0 - p))


def _observation_space() -> spaces.Box:
    return spaces.Box(0.0, 1.0, (1,), np.float32)


class ShortCorridor(gymnasium.Env[CorridorObservation, np.int64]):
    """One corridor. Nothing in it is random: a seed changes nothing."""

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = _observation_space()
        self.action_space = spaces.Discrete(2)
        self.render_mode = render_mode
        self._state = START

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[CorridorObservation, dict[str, Any]]:
        """Starts at the left end."""
        super().reset(seed=seed)
        self._state = START
        return np.ones(1, np.float32), {}

    def step(
        self, action: np.int64
    ) -> tuple[CorridorObservation, float, bool, bool, dict[str, Any]]:
        """Takes one step; the time limit is a wrapper's."""
        assert self.action_space.contains(action), f"{action!r} is neither {LEFT} nor {RIGHT}"
        self._state = int(NEXT_STATE[self._state, action])
        return np.ones(1, np.float32), STEP_REWARD, self._state == GOAL, False, {}

    def render(self) -> str | None:
        """The agent's place as text, such as ". @ . |"."""
        if self.render_mode != "ansi":
            return None
        return " ".join("@" if cell == self._state else ".|"[cell == GOAL] for cell in range(4))


class ShortCorridorVector(VectorEnv[CorridorObservation, NDArray[np.int64], NDArray[Any]]):
    """N corridors in numpy: the same steps, with next-step autoreset and a time limit."""

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": [],
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }
    _state: NDArray[np.int64]  # [N]
    _steps: NDArray[np.int64]  # [N], of this episode
    _over: NDArray[np.bool_]  # [N], where the next step begins another episode

    def __init__(self, num_envs: int = 1, max_episode_steps: int = MAX_EPISODE_STEPS) -> None:
        self.num_envs = num_envs
        self._max_episode_steps = max_episode_steps
        self.single_observation_space = _observation_space()
        self.single_action_space = spaces.Discrete(2)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._begin()

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[CorridorObservation, dict[str, Any]]:
        """Starts all at the left end."""
        self._begin()
        return self._observations(), {}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[
        CorridorObservation,
        NDArray[np.float32],
        NDArray[np.bool_],
        NDArray[np.bool_],
        dict[str, Any],
    ]:
        """Takes one step in each, or resets those whose episode was over."""
        assert self.action_space.contains(actions), f"{actions!r} are not all {LEFT} or {RIGHT}"
        going = ~self._over
        # Where the episode was over, this is a reset: LEFT at the start leads to the start.
        self._state = NEXT_STATE[self._state * going, actions * going]
        self._steps = (self._steps + 1) * going
        terminated = self._state == GOAL
        truncated = self._steps >= self._max_episode_steps
        self._over = terminated | truncated
        rewards = np.where(going, np.float32(STEP_REWARD), np.float32(0.0))
        return self._observations(), rewards, terminated, truncated, {}

    def _begin(self) -> None:
        self._state = np.full(self.num_envs, START)
        self._steps = np.zeros(self.num_envs, np.int64)
        self._over = np.zeros(self.num_envs, np.bool_)

    def _observations(self) -> CorridorObservation:
        return np.ones((self.num_envs, 1), np.float32)


gymnasium.register(
    ENV_ID,
    entry_point="impala_redis.common.games.corridor:ShortCorridor",
    vector_entry_point="impala_redis.common.games.corridor:ShortCorridorVector",
    max_episode_steps=MAX_EPISODE_STEPS,
)
