"""An environment's observation in the types of its space, or refused with the value.

Environments are written carelessly: integers of 64 bits for a space of bytes, a list for an array,
an index beyond the last. What has the same value in the space's type is taken; anything else would
be cut, stretched or misread without a word, and is named instead.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Space = spaces.Space[Any]
Array = NDArray[Any]

_REMEDY = "change the space or the observation"


def fitted(space: Space, found: Any, name: str = "") -> Any:
    """One environment's observation in the types of its space; the same object if it has them.

    Raises ValueError: a part is missing, of another shape, or has a value that its type cannot
    hold.
    """
    if isinstance(space, spaces.Dict):
        if not isinstance(found, Mapping) or not space.spaces.keys() <= found.keys():
            keys = ", ".join(map(repr, space.spaces))
            raise ValueError(f"{_named(name)} is no dict with {keys[:200]}; {_REMEDY}")
        return {key: fitted(one, found[key], _below(name, key)) for key, one in space.items()}
    if isinstance(space, spaces.Tuple):
        if not isinstance(found, tuple | list) or len(found) != len(space.spaces):
            raise ValueError(f"{_named(name)} is no tuple of {len(space.spaces)}; {_REMEDY}")
        pairs = zip(space.spaces, found, strict=True)
        return tuple(fitted(one, part, _below(name, key)) for key, (one, part) in enumerate(pairs))
    if space.dtype is None or space.shape is None or isinstance(space, spaces.Text):
        return found
    if isinstance(found, np.ndarray | np.generic):
        if found.dtype == space.dtype and found.shape == space.shape:
            return found
    elif type(found) is int and isinstance(space, spaces.Discrete):
        return found
    array = _as_array(found, name, space.dtype, space.shape)
    if array.size == 1 and len(array.shape) <= 1 and space.shape in ((), (1,)):
        array = array.reshape(space.shape)  # one number, with a dimension or without
    return _as_type(array, name, space, space.dtype, space.shape)


def column_of(space: Space, found: Any, num_envs: int, dtype: Any, name: str = "") -> Array:
    """The observations of N environments [N, ...], categories from 0, checked.

    Args:
      space: one environment's space, which has no parts and is no Text.
      found: what the vector gives for it.
      num_envs: N.
      dtype: in which numbers are kept. Categories come in any whole type.
      name: the part's name, for messages; empty if it is the whole.

    Raises ValueError: another shape, a value that the type cannot hold, or one that is no category
    of the space.
    """
    shape = (num_envs, *(space.shape or ()))
    array = _as_type(_as_array(found, name, space.dtype, shape), name, space, space.dtype, shape)
    if isinstance(space, spaces.Box):
        return _as_type(array, name, space, np.dtype(dtype), shape)
    sizes: Any = 2
    counted = array
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        sizes = space.n if isinstance(space, spaces.Discrete) else space.nvec
        counted = np.subtract(array, space.start, dtype=np.int64)
    outside = (counted < 0) | (counted >= sizes)
    if outside.any():
        raise ValueError(
            f"{_named(name)} has the value {array[outside][0]}, which is not in its space "
            f"{in_a_line(space)}; {_REMEDY}"
        )
    return counted


def flags_of(space: Space, found: Any, num_envs: int, name: str) -> NDArray[np.bool_]:
    """Which numbers of N environments [N, ...] are not 0, whatever their type and start.

    The arguments are as for `column_of`. Raises ValueError: another shape, or no numbers.
    """
    shape = (num_envs, *(space.shape or ()))
    array = _as_array(found, name, space.dtype, shape)
    if array.shape != shape or array.dtype.kind not in "biuf" or (array != array).any():
        raise ValueError(
            f"{_named(name)} is {array.dtype}{list(array.shape)}, not {list(shape)} of numbers; "
            f"{_REMEDY}"
        )
    return np.asarray(array != 0)


def in_a_line(space: Space) -> str:
    """A space on one line, for messages."""
    return " ".join(str(space).split())[:200]


def _as_array(found: Any, name: str, dtype: Any, shape: tuple[int, ...]) -> Array:
    try:
        array = np.asarray(found)
    except Exception as error:  # rows of different lengths, or any object's own complaint
        raise ValueError(
            f"{_named(name)} is no array of numbers ({type(found).__name__}), but {dtype}"
            f"{list(shape)} is its space; {_REMEDY}"
        ) from error
    return array


def _as_type(array: Array, name: str, space: Space, dtype: Any, shape: tuple[int, ...]) -> Array:
    """The array in that type; itself if it has it. Raises ValueError: that would change a value."""
    if array.shape != shape or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{_named(name)} is {array.dtype}{list(array.shape)}, not {dtype}{list(shape)}; "
            f"{_REMEDY}"
        )
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)
        if cast.dtype.kind == "f":
            changed = np.isfinite(array) & ~np.isfinite(cast)
        elif np.can_cast(array.dtype, cast.dtype, "safe"):
            return cast
        else:
            changed = cast != array
    if changed.any():
        raise ValueError(
            f"{_named(name)} has the value {array[changed][0]}, which {cast.dtype} cannot hold, "
            f"but its space is {in_a_line(space)}; {_REMEDY}"
        )
    return cast


def _named(name: str) -> str:
    return f"part {name[:60]!r} of the observation" if name else "the observation"


def _below(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)
