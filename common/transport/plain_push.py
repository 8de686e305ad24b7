"""Pushing without functions, for a user of the server who may do no more than RPUSH and LLEN.

Such a user can neither trim the list nor touch the books. What the push functions do at the server
is then done around it: whatever the run's policy, the actor keeps the bound by waiting for room
(each may pass it by one block), and the learner counts such blocks as `foreign` and refuses those
that came twice.
"""

from collections.abc import Sequence

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

    most_together = 1  # each actor may pass the bound by that much

    def require(self, *programs: str) -> None:
        """Asks for the commands of a plain push, without a transaction."""
        super().require("impala-actor --plain-push")

    def push_together(
        self,
        producer: str,
        first: int,
        messages: Sequence[bytes],
        queue_blocks: int,
        queue_policy: str = "block",
        with_weights: bool = False,
    ) -> PushReply:
        """Pushes blocks if the run goes on and there is room for them; no weights come back.

        Raises RunMissing when there is no run.
        """
        length, news = self._length_and_news()
        if news.state != "running":
            return PushReply("over", news)
        if length + len(messages) > queue_blocks:
            return PushReply("full", news)
        with self._asking():
            self.client.rpush(self.keys.trajectories, *messages)
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
