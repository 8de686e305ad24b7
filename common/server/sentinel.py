"""Sentinels: of several servers they know the master, and are asked for it by each connection.

A connection that breaks, or that finds a replica, is made again: so a fail-over is followed as a
restart is. redis-py keeps the connections; the questions are ours, so that they end in time, and so
that their failure is one sentence.
"""

import time
from collections import deque
from collections.abc import Mapping
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, SentinelConnectionPool

from impala_redis.common.server.address import Address, Place

# One sentinel gets this long for an answer, and all of them together that long.
ASK_TIMEOUT_S = 1.0
ASK_ALL_S = 3.0


class Sentinels:
    """The sentinels of an address, as redis-py's pool asks them."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._places = deque(address.places)
        server = parse_url(address.server_url())  # type: ignore[no-untyped-call]
        self._tls = {name: value for name, value in server.items() if name.startswith("ssl_")}
        if address.encrypted:
            self._tls["ssl"] = True
        own = {n: address.options.get(f"sentinel_{n}") for n in ("username", "password")}
        servers = {n: server.get(n) for n in ("username", "password")}
        # Sentinels without a password refuse one, so they get the server's only if they want any.
        self._logins: list[dict[str, Any]]
        self._logins = [own] if own["password"] else [{}, servers] if servers["password"] else [{}]

    def discover_master(self, name: str) -> tuple[str, int]:
        """Host and port of the present master, by the first sentinel that answers.

        Raises MasterNotFoundError, and AuthenticationError when a password is what is missing.
        """
        deadline = time.monotonic() + ASK_ALL_S
        asked = list(self._places)
        # The next question begins with another one: the first may be cut off from the others.
        self._places.rotate(-1)
        failures: list[tuple[Place, redis.RedisError]] = []
        for place in asked:
            if time.monotonic() > deadline:
                break
            try:
                return self._ask(place, name)
            except redis.RedisError as error:
                failures.append((place, error))
        for place, failure in failures:
            if isinstance(failure, redis.AuthenticationError):
                raise redis.AuthenticationError(f"the sentinel at {place}: {failure}")
        why = "; ".join(f"{place}: {_in_words(failure)}" for place, failure in failures)
        raise MasterNotFoundError(why)

    def _ask(self, place: Place, name: str) -> tuple[str, int]:
        *before, last = self._logins
        for login in before:
            try:
                return self._ask_as(login, place, name)
            except redis.AuthenticationError:
                pass  # it wants a password
        return self._ask_as(last, place, name)

    def _ask_as(self, login: dict[str, Any], place: Place, name: str) -> tuple[str, int]:
        client = redis.Redis(
            place.host,
            place.port,
            socket_timeout=ASK_TIMEOUT_S,
            socket_connect_timeout=ASK_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,
            **login,
            **self._tls,
        )
        with client:
            found: Any = client.sentinel_get_master_addr_by_name(name)
        if found is None:
            raise redis.ResponseError(f"it knows no master named {name!r}")
        host, port = found
        return host.decode() if isinstance(host, bytes) else host, port


def make_pool(address: Address, options: Mapping[str, Any]) -> SentinelConnectionPool:
    """Connections to the present master, by the sentinels of the address."""
    server = parse_url(address.server_url())  # type: ignore[no-untyped-call]
    settings = {**options, **server, "ssl": address.encrypted}
    for name in ("connection_class", "host", "port"):
        settings.pop(name, None)
    pool: Any = SentinelConnectionPool
    return cast(SentinelConnectionPool, pool(address.master, Sentinels(address), **settings))


def _in_words(error: redis.RedisError) -> str:
    text = str(error).rstrip(".")
    if "unknown command" in text.lower():
        return "it is no sentinel"
    return text.rpartition("connecting to ")[2].partition(". ")[2] or text
