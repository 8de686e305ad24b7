"""Every connection to Redis is made here, with time-outs, retries and protocol set by hand.

redis-py's own defaults would silently send a push twice, and wait a minute for a frozen server. Its
retries are off; what is safe to repeat is repeated by the users of `transport`.
"""

import contextlib
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
from impala_redis.common.server import resp, tls
from impala_redis.common.server.address import without_password
from impala_redis.common.server.translation import as_ours
from impala_redis.common.server.translation import is_unknown_command as is_unknown_command

# A frozen server is noticed after this time. A read may take longer as long as something comes; a
# write must end by then, so 5 s of a link's bandwidth bound the messages of blocks and weights.
SOCKET_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3.0
LEAST_REDIS = (7, 0)
LEAST_VALKEY = (7, 2)


class Client(redis.Redis):
    """A client of one server, which knows its address and whether it ever got an answer there."""

    address = ""
    # A connection that breaks where one has worked is no question of TLS.
    has_answered = False


def connect(url: str, name: str) -> Client:
    """A client of the server at `url`; nothing is sent before its first command.

    Raises RedisUnreachable for a URL that is none, RedisDenied for TLS options that are refused.
    """
    try:
        options: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
        options |= {"ssl_min_version": tls.LEAST_VERSION} if url.startswith("rediss:") else {}
        made = Client.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            parser_class=resp.LargeReplies,
            command_packer=resp.PACKER,
            client_name=re.sub(r"[^!-~]", "-", name),
            driver_info=None,  # a user without that permission would fill the server's ACL LOG
            **options,
        )
        client = cast(Client, made)  # redis-py declares its own class, and makes one of this
        client.address = url
        settings = client.connection_pool.connection_kwargs
        str(settings.get("host", "")).encode("idna")  # raises what connecting would
        objection = tls.objection(settings)
        if objection is None:
            client.connection_pool.make_connection()  # checks the options, connects to nothing
            return client
    except (ValueError, TypeError, redis.RedisError) as error:
        raise RedisUnreachable(
            f"{without_password(url)!r} is not a Redis URL; write redis://host:port/0, "
            "rediss://host:port/0 or unix:///path/to/redis.sock"
        ) from error
    raise RedisDenied(f"the address {without_password(url)} will not do: {objection}")


@contextlib.contextmanager
def translated(client: Client) -> Iterator[None]:
    """Turns redis-py's errors into ours: worth another try (RedisUnreachable), or final."""
    try:
        yield
        client.has_answered = True
    except redis.RedisError as error:
        raise as_ours(error, client.address, client.has_answered) from error
