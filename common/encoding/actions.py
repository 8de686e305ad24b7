"""Gymnasium's action spaces as our specs, and our actions as those that an environment takes."""

from math import prod

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from impala_redis.common.encoding.fitting import Array, Space, in_a_line
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.run.spaces import MAX_CHOICES, ActionSpec

MAX_ACTION_CHOICES = 64

# A bound of this size is none: an environment says so when it means any number.
ABSURD_BOUND = 1e9

_SUPPORTED = (
    "supported are Discrete, MultiDiscrete, MultiBinary, Box of floats, and Box of whole numbers "
    "between near bounds"
)


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
        self._first: Array | np.int64 | None = None  # of choices: the space's own for our 0
        if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            self._first = space.start
        elif isinstance(space, spaces.Box) and _is_of_choices(space):
            self._first = space.low.astype(np.int64)
        elif isinstance(space, spaces.Box):
            self._low, self._high = space.low.astype(np.float64), space.high.astype(np.float64)
            bounded = _bounded(space)
            halves = self._low / 2, self._high / 2  # the sum of large bounds would overflow
            with np.errstate(invalid="ignore"):  # infinities, not used
                self._middle = np.where(bounded, halves[0] + halves[1], 0.0)
                self._reach = np.where(bounded, halves[1] - halves[0], 1.0)

    def decode(self, actions: Array) -> Array:
        """The space's own actions [N, ...], from indices [N] or [N, K] or numbers [N, D].

        Indices start at 0. A number with two bounds is scaled from -1 .. 1 to low .. high. All
        numbers are clipped to their bounds.
        """
        if self._is_plain:
            return actions
        space = self._space
        shaped = actions.reshape(len(actions), *(space.shape or ()))
        if self._first is not None:
            return np.asarray(shaped + self._first, space.dtype)
        if isinstance(space, spaces.Box):
            with np.errstate(over="ignore"):  # an overflow becomes infinite and is clipped
                found = np.clip(self._middle + self._reach * shaped, self._low, self._high)
                return np.asarray(found, space.dtype)
        return np.asarray(shaped, space.dtype)


def _action_spec(space: Space) -> ActionSpec | None:
    if isinstance(space, spaces.Discrete):
        return ActionSpec("discrete", (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return ActionSpec("multi_discrete", tuple(int(size) for size in space.nvec.ravel()))
    if isinstance(space, spaces.MultiBinary):
        return ActionSpec("multi_discrete", (2,) * prod(space.shape))
    if isinstance(space, spaces.Box) and _is_of_choices(space):
        low, high = (bound.ravel().tolist() for bound in (space.low, space.high))
        sizes = (int(last) - int(first) + 1 for first, last in zip(low, high, strict=True))
        return ActionSpec("multi_discrete", tuple(sizes))
    if isinstance(space, spaces.Box):
        return ActionSpec("continuous", (prod(space.shape),), bool(_bounded(space).all()))
    return None


def _is_of_choices(box: spaces.Box) -> bool:
    """Whether its numbers are whole: then each value between the bounds is a choice."""
    return not np.issubdtype(box.dtype, np.floating)


def _bounded(box: spaces.Box) -> NDArray[np.bool_]:
    """Which numbers have two bounds. One at the end of the dtype, or of absurd size, is none.

    Only two of absurd size on the same side of 0 are meant as they are.
    """
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    most = min(ABSURD_BOUND, float(np.finfo(np.dtype(box.dtype).name).max))
    far_apart = (low < most) & (high > -most)
    absurd = far_apart & ((low <= -most) | (high >= most))
    return np.isfinite(low) & np.isfinite(high) & ~absurd
