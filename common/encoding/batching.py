"""Observations as a user has them, one or several, in the form in which Gymnasium's vectors are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from impala_redis.common.encoding.fitting import Space, fitted

_NONE = "there are no observations; give at least one"


def batched(space: Space, observations: Sequence[Any]) -> Any:
    """Several observations of one space as one batch, with N as the first dimension of each part.

    Raises ValueError: there is none, or one of them does not fit the space.
    """
    if not observations:
        raise ValueError(_NONE)
    return _stacked(space, [fitted(space, one) for one in observations])


def size_of_batch(space: Space, observations: Any) -> int:
    """How many observations N a batch holds. Raises ValueError: it is none of that space."""
    sizes = dict(_sizes(space, observations))
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name or 'the whole'} {size}" for name, size in sizes.items())
        raise ValueError(f"the parts of the observations are not equally many: {told[:200]}")
    size = next(iter(sizes.values()), 0)
    if size == 0:
        raise ValueError(_NONE)
    return size


def _stacked(space: Space, observations: list[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {k: _stacked(one, [each[k] for each in observations]) for k, one in space.items()}
    if isinstance(space, spaces.Tuple):
        parts = enumerate(space.spaces)
        return tuple(_stacked(one, [each[k] for each in observations]) for k, one in parts)
    if isinstance(space, spaces.Text):
        return tuple(observations)
    return np.stack(observations)


def _sizes(space: Space, found: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """How many rows each part has, by its name."""
    what = f"part {name[:60]!r} of the observations" if name else "the observations"
    if isinstance(space, spaces.Dict):
        if not isinstance(found, Mapping) or not space.spaces.keys() <= found.keys():
            keys = ", ".join(map(repr, space.spaces))
            raise ValueError(f"{what} must be a dict of batches with the keys {keys[:200]}")
        for key, one in space.items():
            yield from _sizes(one, found[key], f"{name}.{key}" if name else str(key))
    elif isinstance(space, spaces.Tuple):
        if not isinstance(found, tuple) or len(found) != len(space.spaces):
            raise ValueError(f"{what} must be a tuple of {len(space.spaces)} batches")
        for index, one in enumerate(space.spaces):
            yield from _sizes(one, found[index], f"{name}.{index}" if name else str(index))
    else:
        try:
            if isinstance(found, str):
                raise TypeError("one text")
            yield name, len(found)
        except TypeError as error:
            raise ValueError(
                f"{what} must be a batch with one row for each of several observations, and is "
                f"one {type(found).__name__}; for one observation call act"
            ) from error
