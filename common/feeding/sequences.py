"""Each producer's last sequence number, by which a block that came twice is recognised."""

from collections import OrderedDict

from impala_redis.common.blocks.trajectory import Origin
from impala_redis.common.errors import MessageRefused

# The last sequence numbers of this many producers are remembered.
PRODUCERS = 100_000


class Sequences:
    """The last sequence number of each producer: a block that a plain push repeated is refused.

    The push functions refuse them already; this is for blocks that came around it, and for a
    server that forgot what it had stored.
    """

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, int], int] = OrderedDict()

    def follow(self, origin: Origin) -> None:
        """Notes a block. Raises MessageRefused, "duplicate", when it or a later one was seen."""
        producer = (origin.actor, origin.incarnation)
        if origin.sequence <= self._last.get(producer, 0):
            again = f"{origin.actor}#{origin.incarnation} sent its block {origin.sequence} again"
            error = MessageRefused("duplicate", again)
            error.actor = origin.actor
            raise error
        self._last[producer] = origin.sequence
        self._last.move_to_end(producer)
        if len(self._last) > PRODUCERS:
            self._last.popitem(last=False)
