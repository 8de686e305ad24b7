"""Gymnasium's observation spaces as our specs, and its observations as our arrays.

A Box or a Discrete is taken as it is. The parts of a Dict or a Tuple (also nested), MultiDiscrete,
MultiBinary and Text go into one row of bytes, in the space's own order, each at a multiple of 8.
Categories count from 0, in uint8 or int32. Bits are the numbers 0 and 1. Types that do not travel
are kept exactly in others that do: bool in int8, uint16 in int32, uint32 and uint64 in int64,
float16 in float32. A text is its first TEXT_WORDS words, each hashed into one of TEXT_BUCKETS, in
uint8; categories of the same shape and number are kept in int32, so that none is taken for a text.
An action mask is bytes of 0 and 1, whatever its type in the environment.
"""

import logging
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from impala_redis.common.encoding.fitting import Array, Space, column_of, flags_of, in_a_line
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.run.spaces import (
    MASK_NAME,
    MAX_CHOICES,
    MAX_DIMENSIONS,
    MAX_OBSERVATION_SIZE,
    MAX_PARTS,
    OBSERVATION_DTYPES,
    TEXT_BUCKETS,
    TEXT_WORDS,
    ActionSpec,
    ObservationPart,
    ObservationSpec,
)
from impala_redis.common.settings.declaring import MAX_TEXT

log = logging.getLogger(__name__)

# Found by trial: no two words of MiniGrid's and BabyAI's missions share a bucket.
_HASH_START = 412_872
# Categories of one observation, at most: the spec's text lists the number of values of each.
MAX_CATEGORIES = 4096
# The bounds of single numbers take this many characters of one observation's spec, at most.
MAX_SCALE_TEXT = 20_000

_ALIGNMENT_BYTES = 8
# Types that do not travel, and those that they are kept in exactly.
KEPT_IN = {
    "bool": "int8",
    "uint16": "int32",
    "uint32": "int64",
    "uint64": "int64",
    "float16": "float32",
}
_SUPPORTED_OBSERVATIONS = (
    "supported are Box, Discrete, MultiDiscrete, MultiBinary, Text, and Dict or Tuple of these"
)


class _Leaf(NamedTuple):
    """A space without parts, and the path of keys to it."""

    path: tuple[Any, ...]
    space: Space

    @property
    def name(self) -> str:
        return ".".join(map(str, self.path))


def observation_spec(
    env_id: str, space: Space, frame_stack: int = 1, masked: ActionSpec | None = None
) -> ObservationSpec:
    """How one environment's observations travel. Raises UnsupportedEnvironment with the reason.

    With `masked`, a part of that name is the mask of these actions; else it is like any other.
    """
    if isinstance(space, spaces.Discrete | spaces.Box):
        part = _part(env_id, _Leaf((), space), start=0)
        if isinstance(space, spaces.Discrete):
            return ObservationSpec((), "int64", int(space.n), frame_stack=frame_stack)
        scale = _scale(env_id, space, MAX_SCALE_TEXT)
        return ObservationSpec(part.shape, part.dtype, frame_stack=frame_stack, scale=scale)
    parts: list[ObservationPart] = []
    end, room = 0, MAX_SCALE_TEXT
    mask = _mask(env_id, space, masked) if masked else None
    for leaf in _leaves(space):
        part = _part(env_id, leaf, end)
        if mask and leaf.name == MASK_NAME:
            part = replace(mask, start=end)
        elif isinstance(leaf.space, spaces.Box):
            part = replace(part, scale=_scale(env_id, leaf.space, room, leaf.name))
            room -= _length(part.scale)
        parts.append(part)
        end = _aligned(end + part.num_bytes)
    flaw = ""
    if len(parts) == (1 if mask else 0):
        flaw = f", which holds nothing{f' beside the {MASK_NAME}' if mask else ''}"
    elif len(parts) > MAX_PARTS:
        flaw = f" of {len(parts)} parts, which is more than {MAX_PARTS}"
    elif end > MAX_OBSERVATION_SIZE:
        flaw = f" of {end:,} bytes, which is more than {MAX_OBSERVATION_SIZE:,}"
    elif sum(len(part.num_values) for part in parts) > MAX_CATEGORIES:
        flaw = f" of more than {MAX_CATEGORIES} categories in all"
    elif sum(map(sum, (part.num_values for part in parts))) > MAX_CHOICES:
        flaw = f", whose categories have more than {MAX_CHOICES:,} values in all"
    if flaw:
        raise _refusal(env_id, space, flaw)
    named = MASK_NAME if mask else ""
    return ObservationSpec((end,), "uint8", None, tuple(parts), frame_stack, mask=named)


class Encoder:
    """Turns a vector environment's observations of N environments into one array."""

    def __init__(self, space: Space, spec: ObservationSpec, num_envs: int) -> None:
        """Takes one environment's space, its `observation_spec`, and N."""
        self._space, self._dtype = space, np.dtype(spec.dtype)
        self._shape = (num_envs, *spec.shape)
        self._leaves = tuple(_leaves(space)) if spec.parts else ()
        self._num_envs, self._mask = num_envs, spec.mask or None
        self._columns = [str(index) for index in range(len(spec.parts))]
        self._row = np.dtype(
            {
                "names": self._columns,
                "formats": [(part.dtype, part.shape) for part in spec.parts],
                "offsets": [part.start for part in spec.parts],
                "itemsize": self._shape[-1] if spec.parts else 0,
            }
        )

    def encode(self, observations: Any) -> Array:
        """Observations as in the spec [N, ...]. Raises ValueError: they are not of the space."""
        if self._leaves:
            return self._packed_rows(observations)
        found = column_of(self._space, observations, self._num_envs, self._dtype)
        return found.astype(self._dtype, copy=False)

    def _packed_rows(self, observations: Any) -> Array:
        """Rows of bytes [N, bytes] that hold all parts."""
        rows = np.zeros(self._shape, np.uint8)  # gaps are 0: equal observations have equal bytes
        columns = rows.view(self._row)[:, 0]
        for column, leaf in zip(self._columns, self._leaves, strict=True):
            found = observations
            for key in leaf.path:
                found = found[key]
            if leaf.name == self._mask:
                flags = flags_of(leaf.space, found, self._num_envs, leaf.name)
                columns[column] = flags.reshape(self._num_envs, -1)
            elif isinstance(leaf.space, spaces.Text):
                columns[column] = _encoded_texts(leaf, found, self._num_envs)
            else:
                kept = columns[column].dtype
                columns[column] = column_of(leaf.space, found, self._num_envs, kept, leaf.name)
        return rows


@lru_cache(maxsize=4096)  # missions repeat
def encoded_text(text: str) -> NDArray[np.uint8]:
    """The buckets of a text's first words [TEXT_WORDS], 0 where there is none; read-only."""
    words = re.findall(r"[^\W_]+", text.lower())[:TEXT_WORDS]
    buckets = np.zeros(TEXT_WORDS, np.uint8)
    buckets[: len(words)] = [
        zlib.crc32(word.encode(errors="replace"), _HASH_START) % (TEXT_BUCKETS - 1) + 1
        for word in words
    ]
    buckets.flags.writeable = False
    return buckets


def _encoded_texts(leaf: _Leaf, found: Any, num_envs: int) -> NDArray[np.uint8]:
    """The buckets of N texts [N, TEXT_WORDS]. Raises ValueError: they are none."""
    if len(found) != num_envs or not all(isinstance(text, str) for text in found):
        raise ValueError(f"part {leaf.name!r} is not {num_envs} texts")
    return np.stack([encoded_text(text) for text in found])


def _leaves(space: Space, path: tuple[Any, ...] = ()) -> Iterator[_Leaf]:
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for index, inner in enumerate(space.spaces):
            yield from _leaves(inner, (*path, index))
    elif 0 not in (space.shape or ()):  # an empty part is nothing to see
        yield _Leaf(path, space)


def _part(env_id: str, leaf: _Leaf, start: int) -> ObservationPart:
    """The leaf's place in a row and its values. Raises UnsupportedEnvironment."""
    space = leaf.space
    where = f" in part {leaf.name[:60]!r}" if leaf.path else ""
    values: tuple[int, ...] = ()
    shape = tuple(int(size) for size in space.shape or ())
    if isinstance(space, spaces.Box):
        dtype = KEPT_IN.get(str(space.dtype), str(space.dtype))
        if dtype not in OBSERVATION_DTYPES:
            known = ", ".join((*OBSERVATION_DTYPES, *KEPT_IN))
            raise _refusal(env_id, space, f"{where}, whose numbers are none of {known}")
    elif isinstance(space, spaces.MultiBinary):
        dtype = "int8"
    elif isinstance(space, spaces.Text):
        shape, dtype, values = (TEXT_WORDS,), "uint8", (TEXT_BUCKETS,) * TEXT_WORDS
    elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        sizes = space.n if isinstance(space, spaces.Discrete) else space.nvec
        values = tuple(int(size) for size in np.ravel(sizes))
        dtype = "uint8" if max(values, default=0) <= 256 else "int32"
        if ObservationPart("", shape, dtype, values).is_text:  # it is none
            dtype = "int32"
    else:
        raise _refusal(env_id, space, where)
    if not 0 < prod(shape) <= MAX_OBSERVATION_SIZE or len(shape) > MAX_DIMENSIONS:
        raise _refusal(env_id, space, f"{where}, which is empty or too large")
    if values and max(values) > MAX_CHOICES:
        raise _refusal(env_id, space, f"{where}, which has more than {MAX_CHOICES:,} values")
    if len(leaf.name) > MAX_TEXT:
        raise _refusal(env_id, space, f"{where}, whose name is longer than {MAX_TEXT}")
    return ObservationPart(leaf.name, shape, dtype, values, start)


def _mask(env_id: str, space: Space, action: ActionSpec) -> ObservationPart | None:
    """The action mask in an observation, if there is one. Raises UnsupportedEnvironment: unfit."""
    if not isinstance(space, spaces.Dict) or MASK_NAME not in space.spaces:
        return None
    found, wanted = space.spaces[MASK_NAME], sum(action.sizes)
    if action.kind == "continuous":
        raise UnsupportedEnvironment(
            f"{env_id} has an {MASK_NAME}, and its actions are numbers, of which none can be "
            f"masked; give that part of the observation another name than {MASK_NAME}"
        )
    numbers = spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete | spaces.Discrete
    if not isinstance(found, numbers) or prod(found.shape or ()) != wanted:
        raise UnsupportedEnvironment(
            f"{env_id} has the {MASK_NAME} {in_a_line(found)} for actions of {wanted} choices in "
            "all; give it one number for each choice, 0 where it is not allowed, or another name"
        )
    return ObservationPart(MASK_NAME, (wanted,), "uint8")


def _scale(env_id: str, box: spaces.Box, room: int, name: str = "") -> tuple[int, ...]:
    """What a Box's numbers are divided by, in at most `room` characters, or one for all."""
    found = _scales_of(box)
    # Looked at before they become texts, which takes a second for a large array.
    scale = tuple(map(int, found)) if len(found) == 1 or 3 * len(found) <= room else ()
    if not scale or _length(scale) > room:
        scale = (int(found.max()),)
        log.warning(
            "%s: the numbers of %s have too many different bounds to tell each; all are divided by "
            "the largest, %d",
            *(env_id, f"its part {name[:60]!r}" if name else "its observation", scale[0]),
        )
    return () if scale == (1,) else scale


def _length(scale: tuple[int, ...]) -> int:
    """How many characters it takes in the spec, if it is more than one number for all."""
    return sum(len(str(number)) + 2 for number in scale) if len(scale) > 1 else 0


def _scales_of(box: spaces.Box) -> NDArray[np.float64]:
    """What each of a Box's numbers is divided by, flattened [E]; one number [1] if all agree.

    Whole numbers are divided by the largest magnitude that their bounds allow. A bound that is the
    end of what the dtype can hold says nothing, and leaves them as they are; only bytes up to 255
    are taken for pixels. Other numbers stay as they are, but for pixels that are kept in floats.
    """
    low, high = np.ravel(box.low), np.ravel(box.high)
    if box.dtype is None or box.dtype.kind not in "iu":
        are_pixels = len(box.shape) > 1 and (low == 0).all() and (high == 255).all()
        return np.array([255.0 if are_pixels else 1.0])
    if (low == low[0]).all() and (high == high[0]).all():
        low, high = low[:1], high[:1]
    scales = np.maximum(np.abs(low.astype(np.float64)), np.abs(high.astype(np.float64)))
    if box.dtype != np.uint8:
        ends = np.iinfo(np.dtype(box.dtype).name)
        scales[(high == ends.max) | ((low == ends.min) & (ends.min < 0))] = 1.0
    scales = np.maximum(scales, 1.0)
    return scales[:1] if (scales == scales[0]).all() else scales


def _refusal(env_id: str, space: Space, flaw: str) -> UnsupportedEnvironment:
    return UnsupportedEnvironment(
        f"{env_id} has the observation space {in_a_line(space)}{flaw}; {_SUPPORTED_OBSERVATIONS}"
    )


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
