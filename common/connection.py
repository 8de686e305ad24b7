"""Every connection to Redis is made here, with time-outs, retries and protocol set by hand.

redis-py's own defaults would send a push twice without a word, and block for a minute on a frozen
server: its retries are off, and what is safe to repeat is repeated by `transport`.
"""

import contextlib
import random
import re
import shlex
import time
from collections.abc import Callable, Iterator
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from common.errors import (
    Fenced,
    ImpalaError,
    OutOfStep,
    RedisDenied,
    RedisUnreachable,
    RunHeld,
    RunMissing,
    UnsuitableServer,
)

Client = redis.Redis
Reply = TypeVar("Reply")

# Error replies that redis-py gives classes of their own: they may pass.
_BUSY = (
    redis.exceptions.OutOfMemoryError,
    redis.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
)

# A frozen server is noticed after this; moving a payload of 100 MB stays well below it.
SOCKET_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3.0
LEAST_REDIS = (7, 0)
LEAST_VALKEY = (7, 2)


def connect(url: str, name: str) -> Client:
    """A client of the server at `url`; nothing is sent before its first command.

    Raises RedisUnreachable when the URL cannot be one.
    """
    over_tcp = {} if url.startswith("unix:") else {"socket_keepalive": True}
    try:
        client = redis.Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            client_name=re.sub(r"[^!-~]", "-", name),
            **over_tcp,
        )
        client.connection_pool.make_connection()  # connects to nothing, but checks the options
        return client
    except (ValueError, TypeError) as error:
        raise RedisUnreachable(
            f"{without_password(url)!r} is not a Redis URL; write redis://host:port/0, "
            "rediss://host:port/0 or unix:///path/to/redis.sock"
        ) from error


def without_password(url: str) -> str:
    """Where a URL points to, without its secrets and options, for logs and messages."""
    scheme, separator, rest = url.partition("://")
    if not separator or not scheme.isalpha():
        return "the given address"
    before, *after = re.split(r"[?#]", rest, maxsplit=1)
    if after and "@" in after[0]:
        return f"{scheme}://***"  # who knows which part is the password
    _, at, place = before.rpartition("@")  # the last one: a password may hold anything
    return f"{scheme}://{'***@' if at else ''}{place}"


def cli_command(url: str) -> str:
    """How redis-cli is pointed at that server, without the password."""
    try:
        parts = urlsplit(url)
        host, port, database = parts.hostname, parts.port, parts.path.strip("/")
    except ValueError:
        return "redis-cli"
    if parts.scheme == "unix":
        return f"redis-cli -s {shlex.quote(unquote(parts.path))}"
    options = [
        f"-h {host}" if host not in (None, "localhost", "127.0.0.1") else "",
        f"-p {port}" if port not in (None, 6379) else "",
        f"-n {database}" if database not in ("", "0") else "",
        "--tls" if parts.scheme == "rediss" else "",
        f"--user {parts.username}" if parts.username else "",
        "--askpass" if parts.password else "",
    ]
    return " ".join(["redis-cli", *filter(None, options)])


def check_server(client: Client, url: str) -> int:
    """The server's memory limit in bytes, 0 for none.

    Raises UnsuitableServer when it is too old or may evict keys.
    """
    with translated(url):
        info: dict[str, object] = client.info()
    is_valkey = "valkey_version" in info
    found = str(info["valkey_version" if is_valkey else "redis_version"])
    least = LEAST_VALKEY if is_valkey else LEAST_REDIS
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < least:
        raise UnsuitableServer(
            f"the server at {without_password(url)} is {'Valkey' if is_valkey else 'Redis'} "
            f"{found}; Redis 7.0 or Valkey 7.2 is needed: upgrade it, or leave --redis-url out of "
            "impala-train to use the embedded server"
        )
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        raise UnsuitableServer(
            f"the server at {without_password(url)} may evict the run's keys (maxmemory-policy "
            f"{policy}); run: redis-cli CONFIG SET maxmemory-policy noeviction"
        )
    return int(str(info.get("maxmemory", 0)))


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Turns redis-py's errors into ours: worth another try (RedisUnreachable), or final."""
    where = without_password(url)
    try:
        yield
    except (redis.AuthenticationError, redis.exceptions.AuthorizationError) as error:
        raise RedisDenied(
            f"Redis at {where} refuses the user name or password; set them in --redis-url or "
            "IMPALA_REDIS_URL as redis://user:password@host:port/0"
        ) from error
    except redis.exceptions.NoPermissionError as error:
        raise RedisDenied(f"Redis at {where} lacks a permission: {error}") from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        if _is_tls_failure(error):
            raise RedisDenied(f"no TLS agreement with Redis at {where}: {error}") from error
        raise RedisUnreachable(
            f"no answer from Redis at {where} ({_cause(error)}); start one with: redis-server, "
            "or give another address with --redis-url"
        ) from error
    except _BUSY as error:
        raise RedisUnreachable(f"Redis at {where} cannot take commands now: {error}") from error
    except redis.ResponseError as error:
        raise _from_reply(str(error), where) from error
    except redis.RedisError as error:
        raise RedisUnreachable(f"Redis at {where} failed: {error}") from error


def keep_trying(
    attempt: Callable[[], Reply],
    *,
    give_up_after_s: float,
    stopped: Callable[[], bool],
    waiting: Callable[[RedisUnreachable], None],
) -> Reply:
    """Repeats what is safe to repeat until the server answers, with a jittered back-off.

    `waiting` is told each failure. Raises the last RedisUnreachable when time is up or `stopped`.
    """
    deadline, pause_s = time.monotonic() + give_up_after_s, 0.05
    while True:
        try:
            return attempt()
        except RedisUnreachable as error:
            if stopped() or time.monotonic() + pause_s > deadline:
                raise
            waiting(error)
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, 1.0)


def _cause(error: Exception) -> str:
    text = str(error).rstrip(".")
    return re.sub(r"^Error \S+ connecting to \S+ ", "", text) or type(error).__name__


def _is_tls_failure(error: Exception) -> bool:
    text = str(error)
    return "SSL" in text or "certificate" in text


def _from_reply(text: str, where: str) -> ImpalaError:
    """Our error for an error reply, by its first word (transport.lua lists our own)."""
    word, _, rest = text.partition(" ")
    if word == "HELD":
        left_ms, _, holder = rest.partition(" ")
        return RunHeld(
            f"another learner holds this run: {holder} (lease renewed within the last seconds, "
            f"{int(left_ms) / 1000:.1f} s left); stop it, choose another --run, or pass --take-over"
        )
    if word == "FENCED":
        return Fenced(f"another learner took this run over ({rest}); this one stops")
    if word == "CURSOR":
        return OutOfStep(f"what is in flight on Redis at {where} is not what was claimed ({rest})")
    if word == "NORUN" or "Function not found" in text:
        return RunMissing(f"no learner has opened this run on Redis at {where}")
    if word in ("NOAUTH", "WRONGPASS"):
        return RedisDenied(f"Redis at {where} wants another user name or password ({text})")
    if word == "NOPERM":
        return RedisDenied(f"Redis at {where} lacks a permission: {text}")
    if "unknown command" in text.lower():
        return UnsuitableServer(f"the server at {where} is too old ({text}); Redis 7.0 is needed")
    if word in ("OOM", "BUSY", "LOADING", "MISCONF", "UNBLOCKED"):
        return RedisUnreachable(f"Redis at {where} cannot take commands now: {text}")
    return ImpalaError(f"Redis at {where} answered with an error: {text}")
