"""Gymnasium's action spaces as our specs, and our actions as those that an environment takes."""

from math import prod

import numpy as np
from gymnasium import spaces

from impala_redis.common.envs.observations import Array, Space, in_a_line
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.run.spaces import MAX_CHOICES, ActionSpec

MAX_ACTION_CHOICES = 64

_SUPPORTED = "supported are Discrete, MultiDiscrete, MultiBinary and Box of floats"


def action_spec(env_id: str, space: Space) -> ActionSpec:
    """How one environment's actions travel. Raises UnsupportedEnvironment with the reason."""
    spec = _action_spec(space)
    if spec is None or not spec.sizes or not 0 < sum(spec.sizes) <= MAX_CHOICES:
        flaw = "" if spec is None else f", which is none or more than {MAX_CHOICES:,} choices"
        raise UnsupportedEnvironment(
            f"{env_id} has the action space {in_a_line(space)}{flaw}; {_SUPPORTED}"
        )
    if len(spec.sizes) > MAX_ACTION_CHOICES:
        raise UnsupportedEnvironment(
            f"{env_id} has the action space {in_a_line(space)}, which is {len(spec.sizes)} choices "
            f"at once; supported are up to {MAX_ACTION_CHOICES}"
        )
    return spec


class ActionDecoder:
    """Turns our actions of N environments into those that their `step` takes."""

    def __init__(self, space: Space) -> None:
        """Takes one environment's action space, which `action_spec` has accepted."""
        self._space = space
        self._is_plain = (
            isinstance(space, spaces.Discrete) and space.start == 0 and space.dtype == np.int64
        )
        if isinstance(space, spaces.Box):
            self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)
            bounded = np.isfinite(self._low) & np.isfinite(self._high)
            halves = self._low / 2, self._high / 2  # the sum of large bounds would overflow
            with np.errstate(invalid="ignore"):  # infinities, not used
                self._middle = np.where(bounded, halves[0] + halves[1], 0.0)
                self._reach = np.where(bounded, halves[1] - halves[0], 1.0)

    def decode(self, actions: Array) -> Array:
        """The space's own actions [N, ...], from indices [N] or [N, K] or numbers [N, D].

        Indices start at 0. A number with two finite bounds is scaled from -1 .. 1 to low .. high.
        All numbers are clipped to their bounds.
        """
        if self._is_plain:
            return actions
        space = self._space
        shaped = actions.reshape(len(actions), *(space.shape or ()))
        if isinstance(space, spaces.Box):
            with np.errstate(over="ignore"):  # an overflow becomes infinite and is clipped
                found = np.clip(self._middle + self._reach * shaped, self._low, self._high)
                return np.asarray(found, space.dtype)
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            shaped = shaped + space.start
        return np.asarray(shaped, space.dtype)


def _action_spec(space: Space) -> ActionSpec | None:
    if isinstance(space, spaces.Discrete):
        return ActionSpec("discrete", (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return ActionSpec("multi_discrete", tuple(int(size) for size in space.nvec.ravel()))
    if isinstance(space, spaces.MultiBinary):
        return ActionSpec("multi_discrete", (2,) * prod(space.shape))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return ActionSpec("continuous", (prod(space.shape),), space.is_bounded())
    return None
