"""The bodies of blocks made smaller by Zstandard; docs/performance.md compares other codecs."""

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
    if codec != "zstd":
        raise MessageRefused(
            "schema", f"the body is compressed by {codec}, which is not known here"
        )
    try:
        import zstandard

        # This comes first: decompressing allocates as many bytes as the frame says it holds.
        if zstandard.frame_content_size(data) != size:
            raise MessageRefused("schema", f"the body does not unpack to {size:,} bytes")
        return memoryview(zstandard.ZstdDecompressor().decompress(data))
    except ImportError as error:
        raise MessageRefused("schema", "the body is compressed: install zstandard") from error
    except zstandard.ZstdError as error:
        raise MessageRefused("schema", "the body is no whole Zstandard frame") from error
