"""The bodies of blocks made smaller by Zstandard; docs/performance.md compares other codecs."""

import contextlib
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

from impala_redis.common.errors import ConfigError, MessageRefused

LEVEL = 1  # higher levels take longer, and hardly make pictures of games smaller


def check_installed() -> None:
    """Raises ConfigError: the run's blocks are compressed, and Zstandard is not installed here."""
    try:
        import zstandard  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "the run's blocks are compressed by Zstandard, which is not installed here; run pip "
            "install 'impala-redis[zstd]', or start the learner with --compression none"
        ) from error


def most_bytes(size: int) -> int:
    """An upper bound of what `size` bytes take when compressed; noise does not get smaller."""
    return size + size // 255 + 64


def compressed(data: bytes) -> bytes:
    """The data as one Zstandard frame, which says how long they are."""
    import zstandard

    return zstandard.ZstdCompressor(LEVEL).compress(data)


def decompressed(data: memoryview, codec: str, size: int) -> memoryview:
    """The `size` bytes in a Zstandard frame. Raises MessageRefused: it holds fewer or more."""
    with _decompressor(data, codec, size) as decompressor:
        return memoryview(decompressor.decompress(data))


def decompress_into(data: memoryview, codec: str, places: list[memoryview]) -> None:
    """Fills the places, one after the other, with the bytes in a Zstandard frame.

    Raises MessageRefused: it holds fewer or more.
    """
    size = sum(map(len, places))
    with _decompressor(data, codec, size) as decompressor:
        reader = decompressor.stream_reader(data, read_size=len(data))
        if sum(map(reader.readinto, places)) != size or reader.read(1):
            raise MessageRefused("schema", "the body is no whole Zstandard frame")


class _OfThread(threading.local):
    """A thread's decompressor: making one takes long, and no two threads may use it at once."""

    def __init__(self) -> None:
        import zstandard

        self.decompressor = zstandard.ZstdDecompressor()


_of_thread = cache(_OfThread)


@contextlib.contextmanager
def _decompressor(data: memoryview, codec: str, size: int) -> Iterator[Any]:
    """A decompressor for a frame of `size` bytes. Raises MessageRefused, also for its errors."""
    if codec != "zstd":
        raise MessageRefused(
            "schema", f"the body is compressed by {codec}, which is not known here"
        )
    try:
        import zstandard

        # This comes first: decompressing allocates as many bytes as the frame says it holds.
        if zstandard.frame_content_size(data) != size:
            raise MessageRefused("schema", f"the body does not unpack to {size:,} bytes")
        yield _of_thread().decompressor
    except ImportError as error:
        raise MessageRefused("schema", "the body is compressed: install zstandard") from error
    except zstandard.ZstdError as error:
        raise MessageRefused("schema", "the body is no whole Zstandard frame") from error
