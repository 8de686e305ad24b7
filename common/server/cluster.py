"""A client that goes where the keys of its run are, in a Redis Cluster or behind Sentinel.

In a Redis Cluster all keys of a run share a slot, so one node has them, and every other node names
it (MOVED). A command that is answered so did nothing: it is sent again to that node. While a slot
is on its way (ASK, TRYAGAIN), the users of `transport` wait as for a server that is away: a
function may need keys that are on both nodes.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.client import Pipeline
from redis.exceptions import ClusterDownError, MovedError

from impala_redis.common.server.address import Address, Place
from impala_redis.common.server.reading import place_of, replies_to, understood

# Nodes that disagree for longer than this are asked again later.
MOST_MOVES = 5
# The nodes that a client remembers; the one that it has not asked for longest is forgotten.
MOST_NODES = 64

_NO_ANSWER = (redis.ConnectionError, redis.TimeoutError, ClusterDownError)


class _Asking(redis.Redis):
    """A client that knows what each reply answers."""

    def _send_command_parse_response(
        self, conn: Any, command_name: str, *args: Any, **options: Any
    ) -> Any:
        conn.send_command(*args, **options)
        return self._read(conn, args, options)

    def _read(self, connection: Any, command: Sequence[Any], options: Any) -> Any:
        connection._parser.asked = command
        read: Any = self.parse_response  # redis-py declares no types for it
        with understood():
            return read(connection, command[0], **options)


class Client(_Asking):
    """A client of one server at a time, which knows where that is and whether it has answered."""

    given: Address
    make_pool: Callable[[Place | None], redis.ConnectionPool]
    # A connection that breaks where one has worked is no question of TLS.
    has_answered = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._going = threading.Lock()
        # None: where the address says. The first is the present one.
        self._known: deque[Place | None] = deque([None])

    @property
    def address(self) -> str:
        """The address of the server that is spoken to; before sentinels were asked, theirs."""
        master = getattr(self.connection_pool, "master_address", None)
        place = Place(*master) if master else self._known[0]
        return self.given.server_url(place) if place else self.given.text

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Sends one command, to another node if that is what the first one replies."""
        for _ in range(MOST_MOVES):
            try:
                return self._execute(arguments, options)
            except MovedError as moved:
                self.follow([moved])
        return self._execute(arguments, options)

    def _execute(self, arguments: Any, options: Any) -> Any:
        send: Any = super().execute_command  # redis-py declares no types for it
        return send(*arguments, **options)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """A pipeline, which is sent again as a whole: each that is used here may be repeated."""
        made = _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        made.followed_by = self
        return made

    def follow(self, replies: Sequence[Any]) -> bool:
        """Goes to the node that one of the replies names; False if none does.

        Raises NotRedis for a name that is none.
        """
        moved = next((reply for reply in replies if isinstance(reply, MovedError)), None)
        if moved is None:
            return False
        here = self.connection_pool.connection_kwargs.get("host", "localhost")
        # Where it lacks its own name, a node gives none or a question mark: it is the same host.
        self._go(place_of(here if moved.host in ("", "?") else moved.host, moved.port))
        return True

    def look_elsewhere(self, error: Exception) -> None:
        """After no answer, asks the next of the nodes that are known: this one may be gone."""
        if isinstance(error, _NO_ANSWER) and len(self._known) > 1:
            self._go(self._known[1])

    def _go(self, place: Place | None) -> None:
        with self._going:
            if place not in self._known:
                self._known.append(place)
                if len(self._known) > MOST_NODES:
                    del self._known[1 if self._known[0] is None else 0]
            self._known.rotate(-self._known.index(place))
            left, self.connection_pool = self.connection_pool, self.make_pool(place)
        left.disconnect(inuse_connections=False)


class _Pipeline(_Asking, Pipeline):
    followed_by: Client

    def _execute_pipeline(self, connection: Any, commands: Any, raise_on_error: bool) -> list[Any]:
        asked = [args for args, _ in commands]
        connection.send_packed_command(connection.pack_commands(asked))
        replies: list[Any] = []
        for args, options in commands:
            try:
                replies.append(self._read(connection, args, options))
            except redis.ResponseError as error:
                replies.append(error)
        return replies

    def _execute_transaction(
        self, connection: Any, commands: Any, raise_on_error: bool
    ) -> list[Any]:
        asked = [("MULTI",), *(args for args, _ in commands), ("EXEC",)]
        connection.send_packed_command(connection.pack_commands(asked))
        *replies, executed = replies_to(connection, asked)
        for reply in (*replies, executed):
            if isinstance(reply, Exception):
                raise reply
        self.watching = False
        if executed is None:
            raise redis.WatchError("a watched key has changed")
        return list(executed)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """The replies; with an error among them that is raised, or stands in its place."""
        commands = list(self.command_stack)
        replies = super().execute(raise_on_error=False)
        for _ in range(MOST_MOVES):
            if not self.followed_by.follow(replies):
                break
            self.connection_pool, self.command_stack = (
                self.followed_by.connection_pool,
                list(commands),
            )
            replies = super().execute(raise_on_error=False)
        if raise_on_error:
            self.raise_first_error(commands, replies)  # type: ignore[no-untyped-call]
        return replies
