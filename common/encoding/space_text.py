"""Gymnasium's spaces of one environment as a text that travels in a run's spec, and back.

Whoever has the text can take observations of the environment and give actions to it without making
it, and can build a network that asks for the spaces. The text holds values alone.
"""

import json
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
from gymnasium import spaces

from impala_redis.common.encoding.fitting import Space
from impala_redis.common.encoding.observations import KEPT_IN
from impala_redis.common.errors import SpecMismatch
from impala_redis.common.run.spaces import (
    MAX_CHOICES,
    MAX_OBSERVATION_SIZE,
    MAX_PARTS,
    OBSERVATION_DTYPES,
)
from impala_redis.common.run.spec import MAX_SPACES_LENGTH

# The types that the numbers of a Box may have.
_DTYPES = (*OBSERVATION_DTYPES, *KEPT_IN)
# Those of an index.
_WHOLE_DTYPES = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


def text_of(observation: Space, action: Space) -> str:
    """The text of both spaces; empty for spaces that have none.

    Bounds of observations that are too many to tell each become the widest of them. Those of
    actions are never changed, since actions are made by them.
    """
    for each in (True, False):
        try:
            both = {"observation": _told(observation, each), "action": _told(action, each=True)}
        except TypeError:
            return ""
        text = json.dumps(both, allow_nan=False)
        if len(text) <= MAX_SPACES_LENGTH:
            return text
    return ""


def spaces_in(text: str) -> tuple[Space, Space]:
    """The observation and the action space in such a text.

    Raises SpecMismatch: there are none in it, or they cannot be. They are checked before anything
    of their size is made: together they have no more numbers and parts than a run's may have.
    """
    try:
        both = json.loads(text)
        _check_sizes(both["observation"], MAX_OBSERVATION_SIZE)
        _check_sizes(both["action"], MAX_CHOICES)
        return _space(both["observation"]), _space(both["action"])
    except Exception as error:  # whatever Gymnasium's constructors complain of
        raise SpecMismatch(f"the run's spec has odd spaces: {str(error)[:100]}") from error


def _told(space: Space, each: bool) -> dict[str, Any]:
    """A space as JSON values; with `each`, every bound. Raises TypeError: it cannot be told."""
    if isinstance(space, spaces.Box):
        if str(space.dtype) not in _DTYPES:
            raise TypeError(str(space.dtype))
        low, high = (_bounds(bound, each, widest) for bound, widest in _sides(space))
        return {"kind": "box", "shape": list(space.shape), "dtype": str(space.dtype)} | {
            "low": low,
            "high": high,
        }
    if isinstance(space, spaces.Discrete):
        numbers = {"n": int(space.n), "start": int(space.start)}
        return {"kind": "discrete", "dtype": _whole(space), **numbers}
    if isinstance(space, spaces.MultiDiscrete):
        counts = {"nvec": space.nvec.ravel().tolist(), "start": space.start.ravel().tolist()}
        shape = {"shape": list(space.nvec.shape), "dtype": _whole(space)}
        return {"kind": "multi_discrete", **shape, **counts}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "multi_binary", "shape": list(space.shape)}
    if isinstance(space, spaces.Text):
        length = {"least": space.min_length, "most": space.max_length}
        return {"kind": "text", "characters": "".join(sorted(space.character_set)), **length}
    if isinstance(space, spaces.Dict):
        named = [[name, _told(one, each)] for name, one in space.spaces.items()]
        if not all(isinstance(name, str) for name, _ in named):
            raise TypeError("a name that is no text")
        return {"kind": "dict", "spaces": named}
    if isinstance(space, spaces.Tuple):
        return {"kind": "tuple", "spaces": [_told(one, each) for one in space.spaces]}
    raise TypeError(type(space).__name__)


def _whole(space: Space) -> str:
    """The type of a space's whole numbers. Raises TypeError: it cannot be told."""
    if str(space.dtype) not in _WHOLE_DTYPES:
        raise TypeError(str(space.dtype))
    return str(space.dtype)


def _sides(box: spaces.Box) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Both bounds of a Box, each with what finds the widest of its numbers."""
    return (box.low, np.min), (box.high, np.max)


def _bounds(bound: Any, each: bool, widest: Any) -> Any:
    """One number if all agree, else all of them; null stands for a bound that is infinite."""
    values = np.ravel(bound)
    if not values.size:
        return None
    if not each or (values == values[0]).all():
        values = np.array([widest(values)])
    told = [None if np.isinf(number) else number for number in values.tolist()]
    return told[0] if len(told) == 1 else told


def _check_sizes(told: dict[str, Any], most_numbers: int) -> None:
    """Raises ValueError: a space has more numbers or parts than a run's may have."""
    sizes = list(_sizes(told))
    parts = sum(size > 0 for size in sizes)  # an empty part is nothing to see
    if sum(sizes) > most_numbers or parts > MAX_PARTS:
        raise ValueError(f"of {sum(sizes):,} numbers in {parts} parts")


def _sizes(told: dict[str, Any]) -> Iterator[int]:
    """How many numbers each part without parts of a space has. Raises ValueError: less than 0."""
    if told["kind"] in ("dict", "tuple"):
        for one in told["spaces"]:
            yield from _sizes(one[1] if told["kind"] == "dict" else one)
        return
    shape = [int(size) for size in told.get("shape", ())]
    if any(size < 0 for size in shape):
        raise ValueError(f"of shape {shape[:20]}")
    yield prod(shape)


def _space(told: dict[str, Any]) -> Space:
    kind = told["kind"]
    if kind == "dict":
        return spaces.Dict([(str(name), _space(one)) for name, one in told["spaces"]])
    if kind == "tuple":
        return spaces.Tuple([_space(one) for one in told["spaces"]])
    if kind == "discrete":
        return spaces.Discrete(int(told["n"]), start=int(told["start"]), **_dtype(told))
    if kind == "text":
        most, characters = int(told["most"]), str(told["characters"])
        return spaces.Text(most, min_length=int(told["least"]), charset=characters)
    shape = tuple(int(size) for size in told["shape"])
    if kind == "multi_binary":
        return spaces.MultiBinary(shape[0] if len(shape) == 1 else list(shape))
    if kind == "multi_discrete":
        nvec, start = (np.array(told[key], np.int64).reshape(shape) for key in ("nvec", "start"))
        return spaces.MultiDiscrete(nvec, start=start, **_dtype(told))
    if kind == "box":
        dtype: Any = np.dtype(_known(told["dtype"], _DTYPES))
        low = _bound(told["low"], -np.inf, shape, dtype)
        return spaces.Box(low, _bound(told["high"], np.inf, shape, dtype), shape, dtype)
    raise ValueError(f"of kind {kind!r}")


def _dtype(told: dict[str, Any]) -> dict[str, Any]:
    """The type of whole numbers as an argument, if it is not Gymnasium's usual one."""
    dtype = _known(told["dtype"], _WHOLE_DTYPES)
    return {} if dtype == "int64" else {"dtype": np.dtype(dtype).type}


def _known(dtype: Any, known: tuple[str, ...]) -> str:
    if dtype not in known:
        raise ValueError(f"of numbers in {str(dtype)[:40]}")
    return str(dtype)


def _bound(told: Any, infinite: float, shape: tuple[int, ...], dtype: Any) -> Any:
    """A bound's numbers [shape], or the one for all, of which the Box itself makes an array."""
    numbers = told if isinstance(told, list) else [told]
    values = [infinite if number is None else number for number in numbers]
    if len(values) == 1:
        return values[0]
    return np.array(values, dtype).reshape(shape)
