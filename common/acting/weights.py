"""Published weights, checked: one way for actors and evaluations alike."""

from impala_redis.common.blocks import wire
from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.errors import MessageRefused
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.replies import WeightsReply


def unpack_reply(reply: WeightsReply, spec: RunSpec) -> VersionedWeights:
    """The weights in a reply from Redis.

    Raises MessageRefused: they are not as they were published, or do not fit the spec's network.
    """
    if not reply.intact:
        raise MessageRefused("malformed", "the weights' digest does not fit")
    return wire.unpack_weights(reply.message, spec)
