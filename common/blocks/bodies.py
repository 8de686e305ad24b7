"""The bodies of messages: arrays back to back, and in a block perhaps compressed."""

from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.blocks import compression
from impala_redis.common.errors import MessageRefused

ArrayLayout = tuple[str, tuple[int, ...]]  # an array's dtype and shape

# Bodies that unpack to as much as this do not stay in a processor's caches until they are copied.
LARGE_NBYTES = 8 * 2**20

# A dtype as it travels; making it takes as long as making an array of it.
_as_sent = cache(lambda dtype: np.dtype(dtype).newbyteorder("<"))


def size(parts: list[ArrayLayout]) -> int:
    """How many bytes such arrays take."""
    return sum(_as_sent(dtype).itemsize * prod(shape) for dtype, shape in parts)


def split(body: memoryview, parts: list[ArrayLayout]) -> list[NDArray[Any]]:
    """The arrays that the body is cut into; every byte belongs to one. Raises MessageRefused."""
    if size(parts) != len(body):
        raise MessageRefused(
            "schema", f"the body has {len(body)} bytes, the spec asks {size(parts)}"
        )
    arrays, start = list[NDArray[Any]](), 0
    for dtype, shape in parts:
        arrays.append(np.ndarray(shape, _as_sent(dtype), body, start))
        start += arrays[-1].nbytes
    return arrays


def unpacked(
    body: memoryview, codec: str, parts: list[ArrayLayout], room: NDArray[Any] | None = None
) -> list[NDArray[Any]]:
    """The arrays in a compressed body, the first of them in `room` if there is such an array.

    A large body is then never in memory as a whole, and its first array is written once. `room`
    [R, N, ...] has the first array's shape, and each of its rows is in one piece of memory. It
    holds anything after an error. Raises MessageRefused.
    """
    if room is None or room.dtype != _as_sent(parts[0][0]):
        return split(compression.decompressed(body, codec, size(parts)), parts)
    rest = bytearray(size(parts[1:]))
    pieces = [room] if room.flags.c_contiguous else list(room)
    into = [memoryview(piece.reshape(-1).view(np.uint8).data) for piece in pieces]
    compression.decompress_into(body, codec, [*into, memoryview(rest)])
    return [room, *split(memoryview(rest).toreadonly(), parts[1:])]
