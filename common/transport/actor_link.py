"""An actor's link: it pushes blocks, learns what is new, and says that it lives."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from impala_redis.common.errors import RedisDenied, RunMissing, UnsuitableServer
from impala_redis.common.server.reading import NotRedis
from impala_redis.common.server.resp import round_trip
from impala_redis.common.transport.functions import fcall
from impala_redis.common.transport.keys import Keys
from impala_redis.common.transport.link import Link
from impala_redis.common.transport.replies import (
    NEWS_OF_SPEC,
    WEIGHTS,
    BlockFate,
    News,
    PushReply,
    news_from,
    of_kinds,
    pipeline_replies,
    weights_from,
    without_errors,
)

# At most this many blocks are pushed together, to share the price of a round trip. They cannot be
# shed any more: half of a courier's ring stays for newer ones while there is no answer.
MOST_TOGETHER = 4

# With more names than this the counts of their joins begin again.
MOST_JOINED = 65_536
# Beside the actors' names, and none that an actor can have: places dealt in the schedule of tasks.
# Behind it stand the names of the tasks, if these are not all of the run's.
DEALT = ":places:"


class ActorLink(Link):
    """What an actor may do."""

    most_together = MOST_TOGETHER  # blocks, in one push

    def push(
        self,
        producer: str,
        sequence: int,
        message: bytes,
        queue_blocks: int,
        queue_policy: str = "drop-oldest",
    ) -> PushReply:
        """Pushes a block's message and reads what is new, in one round trip.

        A block of the same sequence is stored once however often it is pushed. At a full list the
        oldest is dropped, or with the policy "block" this one is not stored.
        Raises RunMissing when no learner has opened the run (or the server lost it).
        """
        return self.push_together(producer, sequence, [message], queue_blocks, queue_policy)

    def push_together(
        self,
        producer: str,
        first: int,
        messages: Sequence[bytes],
        queue_blocks: int,
        queue_policy: str = "drop-oldest",
        with_weights: bool = False,
    ) -> PushReply:
        """Pushes blocks of the sequences `first`, `first` + 1, ... as `push` does one of them.

        All of them are stored or none: none when one of them is a duplicate, or, with the policy
        "block", when there is no room for all. At a list that holds fewer the oldest are dropped.
        With `with_weights` the published weights come back, too, old ones as well as new ones.
        """
        with self._asking():
            push = (producer, first, queue_blocks, queue_policy, with_weights)
            commands = push_commands(self.keys, messages, *push)
            *_, executed = without_errors(round_trip(self.client, commands))
            if executed is None:  # only a transaction with WATCH may be
                raise NotRedis("no transaction in reply to EXEC")
            begun, _, stored, published, spec = without_errors(executed)
            of_kinds([begun, stored], int, int)
        news = news_from(published[0], spec)
        if news is None:
            raise RunMissing(f"the run {self.run!r} has no spec any more")
        fate: BlockFate = "stored" if stored else "full" if begun == -1 else "duplicate"
        return PushReply(fate, news, weights_from(published) if with_weights else None)

    def has_room(self, queue_blocks: int) -> bool:
        """Whether the list is shorter than that: the cheap question before a block is sent."""
        with self._asking():
            return bool(self.client.llen(self.keys.trajectories) < queue_blocks)

    def read_news(self) -> News | None:
        """What a push would bring back, without one; None when there is no run."""
        with self._asking():
            pipe = self.client.pipeline(transaction=False)
            pipe.hget(self.keys.weights, "version")
            pipe.hmget(self.keys.spec, NEWS_OF_SPEC)
            version, spec = pipeline_replies(pipe)
        return news_from(version, spec)

    def beat(self, actor: str, figures: Mapping[str, Any], expires_s: float) -> None:
        """Says that the actor lives, with its figures; the record goes after `expires_s`."""
        try:
            self._beat(self.keys.actor(actor), figures, expires_s)
        except RunMissing:  # the record is of another type
            self.leave(actor)
            self._beat(self.keys.actor(actor), figures, expires_s)

    def _beat(self, key: str, figures: Mapping[str, Any], expires_s: float) -> None:
        with self._asking():
            pipe = self.client.pipeline(transaction=False)
            pipe.hset(key, mapping=dict(figures))
            pipe.pexpire(key, round(expires_s * 1000))
            pipeline_replies(pipe)

    def is_listed(self, actor: str) -> bool:
        """Whether an actor of that name lives, or did until some seconds ago."""
        with self._asking():
            return bool(self.client.exists(self.keys.actor(actor)))

    def count_join(self, actor: str) -> int | None:
        """Counts that an actor of this name joins; how often one had joined before.

        None for a user of the server who may not count, where a command for it is lacking, and
        where somebody has broken the counts.
        """
        count = self._count(actor, 1)
        return None if count is None else count - 1

    def deal(self, places: int, among: Iterable[str] = ()) -> int | None:
        """Takes so many places in the schedule of the run's tasks; the first of them.

        The actors who join one after the other so get places that follow each other. Those who play
        only the tasks `among` these names have a schedule of their own: they would leave gaps in
        that of all others. None as for `count_join`.
        """
        count = self._count(DEALT + ",".join(sorted(set(among))), places)
        return None if count is None else count - places

    def _count(self, name: str, number: int) -> int | None:
        """What a count of joins comes to with that number more; None where it cannot be had."""
        joins = self.keys.joins
        try:
            with self._asking():
                pipe = self.client.pipeline(transaction=False)
                pipe.hincrby(joins, name, number)
                pipe.hlen(joins)
                count, names = pipeline_replies(pipe)
                if names > MOST_JOINED:
                    self.client.unlink(joins)
        except (RedisDenied, UnsuitableServer, RunMissing):
            return None
        return int(count)

    def leave(self, actor: str) -> None:
        """Takes the heartbeat away at a clean end."""
        with self._asking():
            self.client.unlink(self.keys.actor(actor))


def push_commands(
    keys: Keys,
    messages: Sequence[bytes],
    producer: str,
    first: int,
    queue_blocks: int,
    queue_policy: str,
    with_weights: bool = False,
) -> list[tuple[Any, ...]]:
    """The transaction of a push, which also reads what is new, and the weights if asked for."""
    books = [keys.trajectories, keys.pushing, keys.stats, keys.seq]
    number = len(messages)
    push = (producer, first + number - 1, queue_blocks, queue_policy, number)
    return [
        ("MULTI",),
        fcall("push_begin", books, *push),
        ("RPUSHX", keys.pushing, *messages),
        fcall("push_end", books, *push),
        ("HMGET", keys.weights, *(WEIGHTS if with_weights else WEIGHTS[:1])),
        ("HMGET", keys.spec, *NEWS_OF_SPEC),
        ("EXEC",),
    ]
