"""Sentinels: of several servers they know the master, and are asked for it by each connection.

A connection that breaks, or that finds a replica, is made again: so a fail-over is followed as a
restart is. All sentinels are asked, because one that is late or cut off names the master of before,
which may have come back and take what is written to it: the latest of their answers counts. For the
same reason one of them is asked every 2 s while a connection stands.

redis-py keeps the connections; the questions are ours, so that they end in time, and so that their
failure is one sentence.
"""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, SentinelConnectionPool

from impala_redis.common.server.address import Address, Place
from impala_redis.common.server.reading import BoundedReplies, place_of, replies_to
from impala_redis.common.server.shapes import is_number

# One sentinel gets this long for an answer, and all of them together that long.
ASK_TIMEOUT_S = 1.0
ASK_ALL_S = 3.0
# While connections stand, one sentinel is asked after each interval.
ASK_AGAIN_S = 2.0
# How a sentinel's answer begins that does not know the name of the address.
UNKNOWN_NAME = "it knows no master named"


class _Master(NamedTuple):
    """Who is the master, as one sentinel says; each fail-over has a higher epoch."""

    epoch: int
    host: str
    port: int


class Sentinels:
    """The sentinels of an address, as redis-py's pool asks them."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._answering: list[Place] = []  # the last time
        self._ask_again_at = 0.0
        self._epoch = -1  # of the master that was named last
        server = parse_url(address.server_url())  # type: ignore[no-untyped-call]
        self._tls = {name: value for name, value in server.items() if name.startswith("ssl_")}
        self._connection: Any = redis.SSLConnection if address.encrypted else redis.Connection
        own = {n: address.options.get(f"sentinel_{n}") for n in ("username", "password")}
        servers = {n: server.get(n) for n in ("username", "password")}
        # Sentinels without a password refuse one, so they get the server's only if they want any.
        self._logins: list[dict[str, Any]]
        self._logins = [own] if own["password"] else [{}, servers] if servers["password"] else [{}]

    def discover_master(self, name: str) -> tuple[str, int]:
        """Host and port of the present master, by the latest of all answers.

        Raises MasterNotFoundError, and AuthenticationError when a password is what is missing.
        """
        deadline = time.monotonic() + ASK_ALL_S
        answers: dict[Place, _Master] = {}
        failures: dict[Place, redis.RedisError] = {}
        for place in self._address.places:
            if time.monotonic() > deadline:
                break
            try:
                answers[place] = self._ask(place, name)
            except redis.RedisError as error:
                failures[place] = error
        self._answering = list(answers)
        self._ask_again_at = time.monotonic() + ASK_AGAIN_S
        if answers:
            latest = max(answers.values())
            self._epoch = latest.epoch
            return latest.host, latest.port
        for place, failure in failures.items():
            if isinstance(failure, redis.AuthenticationError):
                raise redis.AuthenticationError(f"the sentinel at {place}: {failure}")
        why = "; ".join(f"{place}: {_in_words(failure)}" for place, failure in failures.items())
        raise MasterNotFoundError(why)

    def have_another(self, name: str) -> bool:
        """Whether there was a fail-over since the last answer; asks one sentinel, now and then."""
        if time.monotonic() < self._ask_again_at or not self._answering:
            return False
        self._ask_again_at = time.monotonic() + ASK_AGAIN_S
        place, *others = self._answering
        try:
            found = self._ask(place, name)
        except redis.RedisError:
            self._answering = others
            return False
        self._answering = [*others, place]
        return found.epoch > self._epoch

    def _ask(self, place: Place, name: str) -> _Master:
        *before, last = self._logins
        for login in before:
            try:
                return self._ask_as(login, place, name)
            except redis.AuthenticationError:
                pass  # it wants a password
        return self._ask_as(last, place, name)

    def _ask_as(self, login: dict[str, Any], place: Place, name: str) -> _Master:
        connection = self._connection(
            host=place.host,
            port=place.port,
            socket_timeout=ASK_TIMEOUT_S,
            socket_connect_timeout=ASK_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            parser_class=BoundedReplies,
            driver_info=None,
            **login,
            **self._tls,
        )
        questions = [(f"SENTINEL {word}", name) for word in ("GET-MASTER-ADDR-BY-NAME", "MASTER")]
        try:
            connection.connect()
            connection.send_packed_command(connection.pack_commands(questions))
            found, state = replies_to(connection, questions)
        finally:
            connection.disconnect()
        if isinstance(found, Exception):
            raise found
        if found is None:
            raise redis.ResponseError(f"{UNKNOWN_NAME} {name!r}")
        host, port = place_of(found[0].decode(errors="replace"), int(found[1]))
        return _Master(_epoch(state), host, port)


class _Pool(SentinelConnectionPool):
    """Connections that are made anew when there is another master."""

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        """A connection to the master."""
        if self.sentinel_manager.have_another(self.service_name):
            self.disconnect(inuse_connections=False)
        return super().get_connection(*arguments, **options)


def make_pool(address: Address, options: Mapping[str, Any]) -> SentinelConnectionPool:
    """Connections to the present master, by the sentinels of the address."""
    server = parse_url(address.server_url())  # type: ignore[no-untyped-call]
    settings = {**options, **server, "ssl": address.encrypted}
    for name in ("connection_class", "host", "port"):
        settings.pop(name, None)
    pool: Any = _Pool
    return cast(SentinelConnectionPool, pool(address.master, Sentinels(address), **settings))


def _epoch(state: Any) -> int:
    """The epoch in a sentinel's description of a master; 0 where it gives none."""
    fields = dict(zip(state[::2], state[1::2], strict=True)) if isinstance(state, list) else {}
    epoch: Any = fields.get(b"config-epoch")
    return int(epoch) if is_number(epoch) else 0


def _in_words(error: redis.RedisError) -> str:
    text = str(error).rstrip(".")
    if "unknown command" in text.lower():
        return "it is no sentinel"
    return text.rpartition("connecting to ")[2].partition(". ")[2] or text
