"""Every connection to Redis is made here, with time-outs, retries and protocol set by hand.

redis-py's own defaults would silently send a push twice, and wait a minute for a frozen server. Its
retries are off; what is safe to repeat is repeated by the users of `transport`.
"""

import contextlib
import functools
import logging
import os
import re
from collections.abc import Iterator
from typing import Any, cast

import redis
from redis.backoff import NoBackoff

# They are for `transport.functions`, which tells these errors of a command apart.
from redis.exceptions import ExecAbortError as ExecAbortError
from redis.exceptions import NoPermissionError as NoPermissionError
from redis.exceptions import ResponseError as ResponseError
from redis.retry import Retry

from impala_redis.common.errors import RedisDenied, RedisUnreachable
from impala_redis.common.server import address, reading, resp, sentinel, tls
from impala_redis.common.server.address import Address, Place, without_password
from impala_redis.common.server.cluster import Client as Client
from impala_redis.common.server.translation import as_ours
from impala_redis.common.server.translation import is_unknown_command as is_unknown_command

log = logging.getLogger(__name__)

# A frozen server is noticed after this time. A read may take longer as long as something comes; a
# write must end by then, so 5 s of a link's bandwidth bound the messages of blocks and weights.
SOCKET_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3.0
LEAST_REDIS = (7, 0)
LEAST_VALKEY = (7, 2)


def connect(url: str, name: str) -> Client:
    """A client of the server at `url`; nothing is sent before its first command.

    Raises RedisUnreachable for a URL that is none, RedisDenied for TLS options that are refused.
    """
    try:
        given = address.parse(url)
    except ValueError as error:
        raise _no_url(url, str(error)) from error
    objection = tls.objection_to_names(given.options)
    try:
        if objection is None:
            pool = _make_pool(given, name)
            objection = tls.objection(pool.connection_kwargs)
        if objection is None:
            pool.make_connection()  # checks the options, connects to nothing
    except (ValueError, TypeError, redis.RedisError) as error:
        raise _no_url(url, "one of its options has a value that will not do") from error
    if objection is not None:
        raise RedisDenied(f"the address {without_password(url)} will not do: {objection}")
    client = cast(Client, Client.from_pool(pool))  # redis-py declares its own class
    client.given = given
    client.make_pool = lambda place: _make_pool(given, name, place)
    return client


@contextlib.contextmanager
def translated(client: Client) -> Iterator[None]:
    """Turns redis-py's errors into ours: worth another try (RedisUnreachable), or final."""
    try:
        yield
        if not client.has_answered:
            _warn_of_clear_text(client.address, os.getpid())
        client.has_answered = True
    except redis.RedisError as error:
        here, given = client.address, client.given.text
        named_by = given if here != given else ""
        raised = as_ours(error, here, client.has_answered, named_by)
        client.look_elsewhere(error)
        raise raised from error


@functools.cache  # once, however many connections a program has
def _warn_of_clear_text(url: str, process: int) -> None:
    """Warns of a password that goes to another machine as it is; a fork is another process."""
    there = address.parse(url)
    if there.encrypted or not address.has_password(url):
        return
    if not all(place.is_loopback for place in there.places):
        log.warning(
            "NOT ENCRYPTED: on the way to %s the password, the weights and the data can be read "
            "and changed; use rediss:// as SECURITY.md shows, or a tunnel",
            without_password(url),
        )


def _make_pool(given: Address, name: str, place: Place | None = None) -> redis.ConnectionPool:
    """Connections to the server of an address, or to another one with the same login."""
    options: dict[str, Any] = {
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "parser_class": reading.BoundedReplies,
        "command_packer": resp.PACKER,
        "client_name": re.sub(r"[^!-~]", "-", name),
        "driver_info": None,  # a user without that permission would fill the server's ACL LOG
    }
    options |= {} if given.path and not place else {"socket_keepalive": True}
    options |= {"ssl_min_version": tls.LEAST_VERSION} if given.encrypted else {}
    if given.master and not place:
        return sentinel.make_pool(given, options)
    return redis.ConnectionPool.from_url(given.server_url(place), **options)


def _no_url(url: str, why: str) -> RedisUnreachable:
    return RedisUnreachable(
        f"{without_password(url)!r} is not a Redis URL: {why}; write {address.FORMS}"
    )
