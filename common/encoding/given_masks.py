"""Action masks that an environment gives beside its observations, in its infos.

A run with `mask_from = "info"` sees them as a part of the observation, which a wrapper has added:
Dict(observation=S, action_mask=...) for a space S that is no Dict, or a further key of a Dict.
Whoever plays by hand has the environment's own observation, and gives the mask by itself.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from impala_redis.common.encoding.fitting import Space
from impala_redis.common.run.spaces import MASK_NAME

INNER = "observation"


def is_wrapped(space: Space) -> bool:
    """Whether the space with the mask as a part was made of one that is no Dict.

    An environment's own Dict of one part that could be taken for it is refused by the wrapper.
    """
    if not isinstance(space, spaces.Dict) or not {INNER} <= space.spaces.keys() <= {
        INNER,
        MASK_NAME,
    }:
        return False
    return not isinstance(space.spaces[INNER], spaces.Dict)


def own_space(space: Space) -> Space:
    """The environment's own observation space, given the one with the mask as a part."""
    assert isinstance(space, spaces.Dict)
    if is_wrapped(space):
        return space.spaces[INNER]
    return spaces.Dict({key: one for key, one in space.spaces.items() if key != MASK_NAME})


def with_mask(space: Space, observation: Any, action_mask: Any) -> Any:
    """An observation, or a batch of them, of the space with the mask as a part.

    Raises ValueError: the mask is missing.
    """
    assert isinstance(space, spaces.Dict)
    if action_mask is None:
        raise ValueError(
            "this policy was trained with action masks from the environment's infos; give the "
            'mask of this observation, as in action_mask=info["action_mask"]'
        )
    wrapped = is_wrapped(space)
    if not wrapped and not isinstance(observation, Mapping):
        keys = ", ".join(repr(key) for key in space.spaces if key != MASK_NAME)
        raise ValueError(f"the observation must be a dict with the keys {keys[:200]}")
    rest = {INNER: observation} if wrapped else dict(observation)
    return {**rest, MASK_NAME: np.asarray(action_mask)}
