"""Which of the blocks that wait are pushed together. Pure."""

from collections import deque

from impala_redis.common.blocks.trajectory import Block

# Blocks that are pushed together have at most this many bytes: they must be through before the
# time-out of a slow link.
TOGETHER_BYTES = 256 * 1024


def taken_together(waiting: deque[Block], most: int) -> list[Block]:
    """Removes the oldest blocks and returns them: `most` at most, and one however large it is."""
    taken, nbytes = list[Block](), 0
    while waiting and len(taken) < most:
        nbytes += waiting[0].trajectory.nbytes
        if taken and nbytes > TOGETHER_BYTES:
            break
        taken.append(waiting.popleft())
    return taken
