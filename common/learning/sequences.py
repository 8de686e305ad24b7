"""What is remembered of producers: their last sequence numbers, and whether updates follow.

By its sequence number a block that came twice is recognised.
"""

from collections import OrderedDict
from collections.abc import Iterable

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


class Standing:
    """Which producers send blocks that allow finite updates, and whether all have ceased to.

    Then the network is at fault, or the environment: of one producer's numbers it could be a lie.
    """

    def __init__(self) -> None:
        self._allowing: OrderedDict[tuple[str, int], None] = OrderedDict()  # by their last block
        self._any = False

    def note(self, fit: Iterable[tuple[str, int]], unfit: Iterable[tuple[str, int]] = ()) -> None:
        """Counts whose blocks an update was made of, and whose it left out."""
        for producer in unfit:
            self._allowing.pop(producer, None)
        for producer in fit:
            self._any = True
            self._allowing[producer] = None
            self._allowing.move_to_end(producer)
        while len(self._allowing) > PRODUCERS:
            self._allowing.popitem(last=False)

    @property
    def all_fallen(self) -> bool:
        """Whether there were such producers, and none is left."""
        return self._any and not self._allowing
