"""MiniGrid's and BabyAI's levels, stepped by EnvPool: the same game, many times as fast.

Observations, rewards and ends are those of the package minigrid where nothing is drawn, but for the
last bit of rewards, which EnvPool computes in float32; a level that is drawn is drawn by the same
rules with other random numbers. The spaces are those of `common.games.gridworld`, so weights and
blocks of both fit each other.
"""

from functools import lru_cache
from typing import Any

from gymnasium import spaces

from impala_redis.common.games.envpool_vector import EnvPoolVector, Outcome
from impala_redis.common.games.gridworld import with_categories


class GridPool(EnvPoolVector):
    """N environments of one level; an observation is direction, view and mission."""

    def __init__(self, env_id: str, num_envs: int, num_threads: int = 1) -> None:
        """Takes the arguments of `EnvPoolVector`, and raises as it does."""
        super().__init__(env_id, num_envs, num_threads)
        assert isinstance(self.single_observation_space, spaces.Dict)
        self.single_observation_space = with_categories(self.single_observation_space)
        self._padded = b""  # the last missions, as EnvPool has them
        self._missions: list[str] = []

    def reset(self, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Makes the environments and begins their first episodes; nothing is in the infos."""
        return super().reset(**arguments)[0], {}

    def end_step(self) -> Outcome:
        """Waits for the threads; nothing is in the infos."""
        return *super().end_step()[:4], {}

    def _seen(self, observations: Any) -> dict[str, Any]:
        """The same observations with the missions as texts; they change where an episode begins."""
        found = observations["mission"]  # uint8 [N, length], with zeros behind the text
        padded = found.tobytes()
        if padded != self._padded:
            self._padded = padded
            self._missions = [_text(row.tobytes()) for row in found]
        return {**observations, "mission": self._missions}


@lru_cache(maxsize=4096)  # missions repeat
def _text(padded: bytes) -> str:
    """A mission without the zeros behind it."""
    return padded.rstrip(b"\0").decode(errors="replace")
