"""Blocks made smaller on the wire. LZ4: why not another one, docs/performance.md says."""

from common.errors import ConfigError, FrameRefused


def check_installed() -> None:
    """Raises ConfigError: the run's blocks are compressed, and nothing here can do that."""
    try:
        import lz4.block  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "the run's blocks are compressed by LZ4, which is not installed here; run pip install "
            "'impala-redis[lz4]', or start the learner with --compression none"
        ) from error


def most_bytes(size: int) -> int:
    """What `size` bytes take at most: noise does not get smaller."""
    return size + size // 255 + 16


def compressed(data: bytes) -> bytes:
    """An LZ4 block, without its length: the reader knows it."""
    import lz4.block

    packed: bytes = lz4.block.compress(data, store_size=False)
    return packed


def decompressed(data: memoryview, codec: str, size: int) -> memoryview:
    """The `size` bytes in an LZ4 block. Raises FrameRefused: there are more, fewer, or none."""
    if codec != "lz4":
        raise FrameRefused("schema", f"the body is compressed by {codec}, which is not known here")
    try:
        import lz4.block

        plain: bytes = lz4.block.decompress(data, uncompressed_size=size)
    except ImportError as error:
        raise FrameRefused("schema", "the body is compressed by LZ4; install lz4") from error
    except Exception as error:  # LZ4BlockError, and whatever else its C code finds
        raise FrameRefused("schema", f"the body is no LZ4 block of {size:,} bytes") from error
    return memoryview(plain)
