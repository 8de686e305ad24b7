"""Published weights, checked: one way for actors and evaluations alike."""

import logging
from collections import deque

from impala_redis.common.blocks import wire
from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.errors import MessageRefused
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.replies import WeightsReply

log = logging.getLogger(__name__)


class Newcomers:
    """Weights from the thread that receives them to the one that acts: the newest alone count."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        self.version = -1  # the last that came, refused ones included
        self.last_refused = False
        self.refused = 0
        self._newest: deque[VersionedWeights] = deque(maxlen=1)  # not taken yet

    def put(self, reply: WeightsReply) -> None:
        """Leaves weights for `take`; those that are refused are logged and counted instead."""
        self.last_refused = False
        try:
            self._newest.append(unpack_reply(reply, self._spec))
        except MessageRefused as error:
            log.warning("kept the old weights: %s", error)
            self.last_refused = True
            self.refused += 1
        self.version = reply.version  # refused ones are read once, too

    def take(self) -> VersionedWeights | None:
        """The newest weights if they have not been taken yet."""
        try:
            return self._newest.pop()
        except IndexError:
            return None


def unpack_reply(reply: WeightsReply, spec: RunSpec) -> VersionedWeights:
    """The weights in a reply from Redis.

    Raises MessageRefused: they are not as they were published, or do not fit the spec's network.
    """
    if not reply.intact:
        raise MessageRefused("malformed", "the weights' digest does not fit")
    return wire.unpack_weights(reply.message, spec)
