"""Pushing without functions, for a user of the server who may do no more than RPUSH and LLEN.

Such a user can neither trim the list nor touch the books. What the push functions do at the server
is then done around it: whatever the run's policy, the actor keeps the bound by waiting for room
(each may pass it by one block), and the learner counts such blocks as `foreign` and refuses those
that came twice.
"""

from impala_redis.common.errors import RunMissing
from impala_redis.common.transport.actor_link import ActorLink
from impala_redis.common.transport.replies import (
    NEWS_OF_SPEC,
    News,
    PushReply,
    news_from,
    pipeline_replies,
)


class PlainActorLink(ActorLink):
    """What an actor may do whose user has no right to call functions."""

    def require(self, *programs: str) -> None:
        """Asks for the commands of a plain push, without a transaction."""
        super().require("impala-actor --plain-push")

    def push(
        self,
        producer: str,
        sequence: int,
        message: bytes,
        queue_blocks: int,
        queue_policy: str = "block",
    ) -> PushReply:
        """Pushes a block's message if the run goes on and there is room for it.

        Raises RunMissing when there is no run.
        """
        length, news = self._length_and_news()
        if news.state != "running":
            return PushReply("over", news)
        if length >= queue_blocks:
            return PushReply("full", news)
        with self._asking():
            self.client.rpush(self.keys.trajectories, message)
        return PushReply("stored", news)

    def _length_and_news(self) -> tuple[int, News]:
        """The list's length in blocks, and the news that a push brings back."""
        with self._asking():
            pipe = self.client.pipeline(transaction=False)
            pipe.llen(self.keys.trajectories)
            pipe.hget(self.keys.weights, "version")
            pipe.hmget(self.keys.spec, NEWS_OF_SPEC)
            length, version, spec = pipeline_replies(pipe)
        news = news_from(version, spec)
        if news is None:
            raise RunMissing(f"there is no run {self.run!r}")
        return int(length), news
