"""Pushing without functions, for a user of the server who may do no more than RPUSH and LLEN.

Such a user can neither trim the list nor touch the books. What the push functions do at the server
is then done around it: the actor keeps the bound by waiting for room (each actor may pass it by one
block), and the learner counts such blocks as `foreign` and refuses those that came twice.
"""

import time

from impala_redis.common.errors import RedisUnreachable, RunMissing
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.replies import PushReply, pipeline_replies, push_reply

POLL_S = 0.005
# Without room for this long, a push fails; the courier repeats it without end.
WAIT_FOR_ROOM_S = 1.0


class PlainActorLink(ActorLink):
    """What an actor may do whose user has no right to call functions."""

    def require(self, *programs: str) -> None:
        """Asks for an answer only: a user of so few rights may not ask what else it may do."""
        self.ping()

    def push(self, producer: str, sequence: int, message: bytes, queue_blocks: int) -> PushReply:
        """Pushes a block's message once there is room for it; only then is it `stored`.

        Raises RunMissing when there is no run, RedisUnreachable when there is no room.
        """
        deadline = time.monotonic() + WAIT_FOR_ROOM_S
        while True:
            length, news = self._length_and_news()
            if news.state != "running":
                return news
            if length < queue_blocks:
                break
            if time.monotonic() > deadline:
                raise RedisUnreachable("the list is full: the learner takes no blocks")
            time.sleep(POLL_S)
        with self._asking():
            self.client.rpush(self.keys.trajectories, message)
        return news._replace(stored=True)

    def _length_and_news(self) -> tuple[int, PushReply]:
        """The list's length in blocks, and the news that a push brings back."""
        with self._asking():
            pipe = self.client.pipeline(transaction=False)
            pipe.llen(self.keys.trajectories)
            pipe.hget(self.keys.weights, "version")
            pipe.hmget(self.keys.spec, ["digest", "state"])
            length, version, spec = pipeline_replies(pipe)
        news = push_reply(False, version, spec)
        if news is None:
            raise RunMissing(f"there is no run {self.run!r}")
        return int(length), news
