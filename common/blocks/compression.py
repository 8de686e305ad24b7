"""Blocks made smaller on the wire, by Zstandard: docs/performance.md says why not by another."""

from impala_redis.common.errors import ConfigError, MessageRefused

LEVEL = 1  # higher ones take longer, and hardly make frames of games smaller


def check_installed() -> None:
    """Raises ConfigError: the run's blocks are compressed, and nothing here can do that."""
    try:
        import zstandard  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "the run's blocks are compressed by Zstandard, which is not installed here; run pip "
            "install 'impala-redis[zstd]', or start the learner with --compression none"
        ) from error


def most_bytes(size: int) -> int:
    """What `size` bytes take at most, and some more: noise does not get smaller."""
    return size + size // 255 + 64


def compressed(data: bytes) -> bytes:
    """A Zstandard frame, which tells its length."""
    import zstandard

    return zstandard.ZstdCompressor(LEVEL).compress(data)


def decompressed(data: memoryview, codec: str, size: int) -> memoryview:
    """The `size` bytes in a Zstandard frame. Raises MessageRefused: there are not so many."""
    if codec != "zstd":
        raise MessageRefused("schema", f"the body is compressed by {codec}, unknown here")
    try:
        import zstandard

        # Asked first: as many bytes are allocated as a frame says it has.
        if zstandard.frame_content_size(data) != size:
            raise MessageRefused("schema", f"the body does not unpack to {size:,} bytes")
        return memoryview(zstandard.ZstdDecompressor().decompress(data))
    except ImportError as error:
        raise MessageRefused("schema", "the body is compressed: install zstandard") from error
    except zstandard.ZstdError as error:
        raise MessageRefused("schema", "the body is no whole Zstandard frame") from error
