"""Action masks as environments give them: taken from infos, and checked before they travel."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from impala_redis.common.encoding.actions import action_spec
from impala_redis.common.encoding.given_masks import INNER, is_wrapped
from impala_redis.common.encoding.masks import empty_choice, mask_bytes, nothing_left
from impala_redis.common.errors import UnsupportedEnvironment, printable
from impala_redis.common.run.spaces import MASK_NAME, ActionSpec, ObservationSpec

Flags = NDArray[np.bool_]

_KEY = f'info["{MASK_NAME}"]'


class MaskFromInfo(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One environment whose observations hold the action mask of its infos.

    An observation that is no dict becomes the part "observation" of one. A part that has the mask's
    name already is replaced.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], env_id: str) -> None:
        """Raises UnsupportedEnvironment: its actions are numbers, of which none can be masked.

        So it does where nobody could tell whether the observation was a dict before.
        """
        super().__init__(env)
        self._env_id = env_id
        action = action_spec(env_id, env.action_space)
        if action.kind == "continuous":
            raise UnsupportedEnvironment(
                f"{env_id} has numbers as actions, of which none can be masked; leave out "
                "--mask-from info"
            )
        self._choices = sum(action.sizes)
        inner = env.observation_space
        self._is_dict = isinstance(inner, spaces.Dict)
        parts = dict(inner.spaces) if isinstance(inner, spaces.Dict) else {INNER: inner}
        if is_wrapped(inner) and MASK_NAME in parts:
            raise UnsupportedEnvironment(
                f"{env_id} has the {MASK_NAME} in its observations; leave out --mask-from info"
            )
        if is_wrapped(inner):
            raise UnsupportedEnvironment(
                f"{env_id} has observations with {INNER!r} as their only key, which --mask-from "
                "info gives to those that are no dict; give that part another key"
            )
        parts[MASK_NAME] = spaces.MultiBinary(self._choices)
        self.observation_space = spaces.Dict(parts)

    def reset(self, **arguments: Any) -> Any:
        """Begins an episode. Raises UnsupportedEnvironment: its info has no fitting mask."""
        found = self.env.reset(**arguments)
        if not isinstance(found, tuple) or len(found) != 2:
            return found  # the caller says what is wrong with it
        return self._with_mask(found[0], found[1], is_last=False), found[1]

    def step(self, action: Any) -> Any:
        """Plays an action. Raises UnsupportedEnvironment: its info has no fitting mask.

        The last info of an episode may have none.
        """
        found: Any = self.env.step(action)
        if not isinstance(found, tuple) or len(found) != 5:
            return found
        observation, reward, terminated, truncated, info = found
        seen = self._with_mask(observation, info, is_last=bool(terminated) or bool(truncated))
        return seen, reward, terminated, truncated, info

    def _with_mask(self, observation: Any, info: Any, is_last: bool) -> Any:
        has_one = isinstance(info, Mapping) and info.get(MASK_NAME) is not None
        if not has_one and is_last:
            mask = np.ones(self._choices, np.int8)
        elif not has_one:
            raise UnsupportedEnvironment(
                f"{self._env_id} gives no {_KEY}; put it into the info of every reset and step, "
                "or leave out --mask-from info"
            )
        else:
            mask = self._mask(info[MASK_NAME])
        if not self._is_dict:
            return {INNER: observation, MASK_NAME: mask}
        # What is no dict is refused later, by the name of the part that is missing.
        return {**observation, MASK_NAME: mask} if isinstance(observation, Mapping) else observation

    def _mask(self, given: Any) -> NDArray[np.int8]:
        try:
            array = np.asarray(given)
        except Exception:  # rows of different lengths, or any object's own complaint
            array = np.empty(0)
        if array.size != self._choices or array.dtype.kind not in "biuf":
            raise UnsupportedEnvironment(
                f"{self._env_id} gives the {_KEY} {printable(repr(given))[:60]} for actions of "
                f"{self._choices} choices in all; it must be one number for each choice, 0 where "
                "it is not allowed"
            )
        return np.asarray(array != 0, np.int8).reshape(self._choices)


def check_masks(
    observation: ObservationSpec, action: ActionSpec, rows: NDArray[Any], over: Flags | None = None
) -> None:
    """Checks that the masks in rows of bytes [N, bytes] leave something of each choice.

    Where an episode is over [N], a mask of which nothing is left means that anything may be chosen,
    for that action is ignored; it becomes all ones, in place. Raises ValueError for any other.
    """
    masks = mask_bytes(observation, rows)
    without = nothing_left(masks != 0, action.sizes)  # [N, K]
    if not without.any():
        return
    if over is not None:
        masks[np.repeat(without, action.sizes, axis=-1) & over[:, None]] = 1
        without[over] = False
    if without.any():
        which = empty_choice(masks != 0, action.sizes)
        raise ValueError(
            f"its {MASK_NAME} allows nothing{which} while the episode goes on; allow one action, "
            "if only a pass, or end the episode"
        )
