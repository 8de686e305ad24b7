"""Pushing without functions: for a user of the server that may do no more than RPUSH and LLEN.

Such a user can neither trim the list nor touch the books. What the push functions do at the server
is then done around it: the bound is kept by waiting for room (and may be passed by one block for
each actor), the learner counts such blocks as `foreign`, and refuses those that came twice.
"""

import time

from impala_redis.common.errors import RedisUnreachable, RunMissing
from impala_redis.common.transport.link import ActorLink, PushReply, number, replies

POLL_S = 0.005
# Without room for this long, the courier is told, which tries again for ever.
WAIT_FOR_ROOM_S = 1.0


class PlainActorLink(ActorLink):
    """What a strict actor may do."""

    def push(self, producer: str, sequence: int, payload: bytes, queue_blocks: int) -> PushReply:
        """Pushes a block once there is room for it; then, and only then, it is `stored`.

        Raises RunMissing when there is no run, RedisUnreachable when there is no room.
        """
        deadline = time.monotonic() + WAIT_FOR_ROOM_S
        while True:
            length, news = self._look()
            if news.state != "running":
                return news
            if length < queue_blocks:
                break
            if time.monotonic() > deadline:
                raise RedisUnreachable("the list is full: the learner takes no blocks")
            time.sleep(POLL_S)
        with self._asking():
            self.client.rpush(self.keys.trajectories, payload)
        return news._replace(stored=True)

    def _look(self) -> tuple[int, PushReply]:
        """The list's length, and what a push tells."""
        with self._asking():
            pipe = self.client.pipeline(transaction=False)
            pipe.llen(self.keys.trajectories)
            pipe.hget(self.keys.weights, "version")
            pipe.hmget(self.keys.spec, ["digest", "state"])
            length, version, (digest, state) = replies(pipe)
        if digest is None or state is None:
            raise RunMissing(f"there is no run {self.run!r}")
        return int(length), PushReply(False, number(version, -1), digest.decode(), state.decode())
