"""A single environment as a vector steps it: what it returns is checked, its infos go no further.

Gymnasium's vectors merge the infos of their environments into arrays, which fails where these
differ: a number here and None there, an array whose length changes. Nobody reads them. What is
wanted are numbers of an episode's last info, and these are taken out here.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np

from impala_redis.common.encoding.fitting import fitted
from impala_redis.common.errors import UnsupportedEnvironment, printable
from impala_redis.common.settings.declaring import MAX_INFOS, MAX_NAME

# An environment puts numbers for its user under this key; others are asked for by --info-keys.
EPISODE_INFO = "episode_info"

_LARGEST = float(np.finfo(np.float32).max)
_MODERNISE = (
    "wrap it for Gymnasium, for example with the package shimmy (GymV21CompatibilityV0 or "
    "GymV26CompatibilityV0), or change its reset(seed=None, options=None) to return "
    "(observation, info) and its step to return (observation, reward, terminated, truncated, info)"
)

Info = Mapping[str, float]


class Single(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One environment whose infos are empty, rewards numbers, and observations of its space."""

    def __init__(self, env: gymnasium.Env[Any, Any], env_id: str, info_keys: Iterable[str]) -> None:
        super().__init__(env)
        self._env_id, self._info_keys = env_id, tuple(info_keys)
        self.numbers: Info = {}  # of the last info of the episode that ended last

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Begins an episode. Raises UnsupportedEnvironment: it is of the old Gym API."""
        try:
            found: Any = self.env.reset() if seed is None else self.env.reset(seed=seed)
        except TypeError as error:
            for name in ("seed", "options"):
                if f"unexpected keyword argument '{name}'" in str(error):
                    raise self._old_api(f"its reset takes no {name}") from error
            raise
        if not isinstance(found, tuple) or len(found) != 2:
            raise self._old_api("its reset returns an observation alone")
        return fitted(self.observation_space, found[0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Plays an action. Raises UnsupportedEnvironment: what it returns has another form."""
        try:
            result: Any = self.env.step(action)
        except ValueError as error:
            if "expected 5, got 4" in str(error):  # a wrapper of Gymnasium's was given 4 values
                raise self._old_api("its step returns 4 values") from error
            raise
        if not isinstance(result, tuple) or len(result) != 5:
            size = len(result) if isinstance(result, tuple) else "no tuple of"
            raise self._old_api(f"its step returns {size} values")
        observation, reward, terminated, truncated, info = result
        terminated, truncated = bool(terminated), bool(truncated)
        if terminated or truncated:
            self.numbers = numbers_of(info, self._info_keys)
        if type(reward) is not float:
            reward = _number_or_none(reward)
            if reward is None:
                raise UnsupportedEnvironment(reward_refusal(self._env_id, result[1]))
        return fitted(self.observation_space, observation), reward, terminated, truncated, {}

    def _old_api(self, why: str) -> UnsupportedEnvironment:
        return UnsupportedEnvironment(
            f"{self._env_id} is written for the old Gym API: {why}; {_MODERNISE}"
        )


def reward_refusal(env_id: str, reward: Any) -> str:
    """Why such a reward of one environment, or such rewards of a vector, cannot be learned from."""
    shape = getattr(reward, "shape", None)
    what = f"an array of shape {list(shape)}" if shape else printable(repr(reward))[:60]
    return (
        f"{env_id} gives {what} as a reward; it must give one number for each environment: add "
        "several up in its step or in a wrapper"
    )


def numbers_of(info: Any, keys: Iterable[str]) -> Info:
    """The wanted numbers of one environment's info, by name; whatever else it holds is left.

    These are the ones of `keys`, where a.b stands for b in a dict a, and those of the dict under
    "episode_info". An info that is odd has none.
    """
    try:
        return _collected(_wanted(info, keys))
    except Exception:  # an info is anybody's own object
        return {}


def numbers_in_vector(infos: Any, index: int, keys: Iterable[str]) -> Info:
    """The same for environment `index` of a vector form, whose infos are arrays [N] by key.

    A boolean array under "_key" says where there is a value of that key.
    """
    try:
        return numbers_of(_row(infos, index), keys)
    except Exception:
        return {}


def _row(infos: Any, index: int) -> Any:
    """One environment's own info out of a vector's, or out of a list of them."""
    if isinstance(infos, list | tuple):
        return infos[index]
    row: dict[str, Any] = {}
    for key, values in infos.items():
        if str(key).startswith("_") and str(key)[1:] in infos:
            continue  # a mask
        present = infos.get(f"_{key}")
        if present is not None and not np.asarray(present)[index]:
            continue
        if isinstance(values, Mapping):
            row[key] = _row(values, index)
        elif not isinstance(values, str) and hasattr(values, "__len__") and len(values) > index:
            row[key] = values[index]
    return row


def _wanted(info: Any, keys: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Names and values, those of `keys` first."""
    if not isinstance(info, Mapping):
        return
    for key in keys:
        place: Any = info
        if key in info:
            yield key, info[key]
            continue
        for part in key.split("."):
            place = place.get(part) if isinstance(place, Mapping) else None
        yield key, place
    given = info.get(EPISODE_INFO)
    if isinstance(given, Mapping):
        yield from sorted((_as_name(name), value) for name, value in given.items())


def _collected(wanted: Iterable[tuple[str, Any]]) -> Info:
    found: dict[str, float] = {}
    for name, value in wanted:
        number = _number_or_none(value)
        if name and number is not None and abs(number) <= _LARGEST:  # a NaN is not
            found.setdefault(name, number)
        if len(found) == MAX_INFOS:
            break
    return found


def _as_name(key: Any) -> str:
    """A key as a figure's name: one line of printable characters."""
    return printable(key).strip()[:MAX_NAME].strip()


def _number_or_none(value: Any) -> float | None:
    """A number, or an array of one, as a float; None for anything else."""
    try:
        if isinstance(value, np.ndarray | list | tuple):
            array = np.asarray(value)
            value = array.item() if array.size == 1 and array.dtype.kind in "biuf" else None
        return float(value) if hasattr(value, "__float__") else None
    except Exception:  # too large, or a tensor of several
        return None
