"""Every connection to Redis is made here, with time-outs, retries and protocol set by hand.

redis-py's own defaults would send a push twice without a word, and block for a minute on a frozen
server: its retries are off, and what is safe to repeat is repeated by `transport`.
"""

import contextlib
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from impala_redis.common.errors import (
    Fenced,
    ImpalaError,
    OutOfStep,
    RedisDenied,
    RedisUnreachable,
    RunHeld,
    RunMissing,
    ServerDemoted,
    UnsuitableServer,
)
from impala_redis.common.server import resp, tls

Client = redis.Redis

# Error replies that redis-py gives classes of their own: they may pass.
_BUSY = (
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
)

# A frozen server is noticed after this. A read may take longer as long as something comes; what is
# sent must be through by then, so 5 s of a link's bandwidth bound a block and the weights.
SOCKET_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3.0
LEAST_REDIS = (7, 0)
LEAST_VALKEY = (7, 2)

# The addresses that have answered: a connection that breaks there is no question of TLS.
_answered: set[str] = set()


def connect(url: str, name: str) -> Client:
    """A client of the server at `url`; nothing is sent before its first command.

    Raises RedisUnreachable when the URL cannot be one, RedisDenied for what it asks of TLS.
    """
    try:
        options: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
        options |= {"ssl_min_version": tls.LEAST_VERSION} if url.startswith("rediss:") else {}
        client = redis.Redis.from_url(
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
        settings = client.connection_pool.connection_kwargs
        str(settings.get("host", "")).encode("idna")  # as connecting would
        objection = tls.objection(settings)
        if objection is None:
            client.connection_pool.make_connection()  # connects to nothing, but checks the options
            return client
    except (ValueError, TypeError, redis.RedisError) as error:
        raise RedisUnreachable(
            f"{without_password(url)!r} is not a Redis URL; write redis://host:port/0, "
            "rediss://host:port/0 or unix:///path/to/redis.sock"
        ) from error
    raise RedisDenied(f"the address {without_password(url)} will not do: {objection}")


def has_password(url: str) -> bool:
    """Whether an address holds a password, or something that may be meant as one."""
    before, _, _ = url.partition("://")[2 if "://" in url else 0].rpartition("@")
    return bool(before.partition(":")[2]) or bool(re.search(r"[?&#]password=", url, re.IGNORECASE))


def with_password(url: str, password: str) -> str:
    """The address with a password in it; one that is no address stays as it is."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    before, slash, after = rest.partition("/")
    user, _, place = before.rpartition("@")
    return f"{scheme}://{user.rstrip(':')}:{quote(password, safe='')}@{place}{slash}{after}"


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


def cli_command(url: str, *, login: bool = True) -> str:
    """How redis-cli is pointed at that server, without the password; `login`: as the same user."""
    try:
        parts = urlsplit(url)
        host, port, database = parts.hostname, parts.port, parts.path.strip("/")
    except ValueError:
        return "redis-cli"
    asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
    user = unquote(parts.username or "") or asked.get("username")
    who = [f"--user {shlex.quote(user)}"] if user and login else []
    who += ["--askpass"] if has_password(url) and login else []
    if parts.scheme == "unix":
        return " ".join(["redis-cli", f"-s {shlex.quote(unquote(parts.path))}", *who])
    options = [
        f"-h {host}" if host not in (None, "localhost", "127.0.0.1") else "",
        f"-p {port}" if port not in (None, 6379) else "",
        f"-n {database}" if database not in ("", "0") else "",
        *(["--tls", *_cli_tls_files(asked)] if parts.scheme == "rediss" else []),
        *who,
    ]
    return " ".join(["redis-cli", *filter(None, options)])


def _cli_tls_files(asked: Mapping[str, str]) -> list[str]:
    names = {"--cacert": "ssl_ca_certs", "--cert": "ssl_certfile", "--key": "ssl_keyfile"}
    return [
        f"{option} {shlex.quote(asked[name])}" for option, name in names.items() if name in asked
    ]


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Turns redis-py's errors into ours: worth another try (RedisUnreachable), or final."""
    where = without_password(url)
    try:
        yield
        _answered.add(url)
    except (redis.AuthenticationError, redis.exceptions.AuthorizationError) as error:
        raise RedisDenied(
            f"Redis at {where} refuses the user name or password; set "
            "IMPALA_REDIS_URL=redis://user:password@host:port/0, or keep the password in a file "
            "and name that by --redis-password-file"
        ) from error
    except redis.exceptions.NoPermissionError as error:
        if re.search("'(multi|exec)'", str(error)):
            raise RedisDenied(
                f"this user of Redis at {where} may not use transactions, and a push is one; as an "
                "admin, bring its line up to docker/users.acl"
            ) from error
        raise RedisDenied(f"Redis at {where} lacks a permission: {error}") from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        refusal = _tls_refusal(error, url)
        if refusal:
            raise RedisDenied(f"no TLS agreement with Redis at {where}: {refusal}") from error
        if "max number of clients" in str(error):
            raise RedisUnreachable(
                f"Redis at {where} takes no more clients (max number of clients reached); as an "
                f"operator, run: {cli_command(url)} CONFIG SET maxclients 10000"
            ) from error
        raise RedisUnreachable(
            f"no answer from Redis at {where} ({_cause(error)}); start one with: redis-server, "
            "or give another address with --redis-url"
        ) from error
    except (redis.ReadOnlyError, redis.exceptions.MasterDownError) as error:
        raise ServerDemoted(f"Redis at {where} is a replica now: {error}") from error
    except _BUSY as error:
        raise RedisUnreachable(f"Redis at {where} cannot take commands now: {error}") from error
    except redis.ResponseError as error:
        raise _from_reply(str(error), where) from error
    except redis.RedisError as error:
        raise RedisUnreachable(f"Redis at {where} failed: {error}") from error


def _cause(error: Exception) -> str:
    text = str(error).rstrip(".")
    return re.sub(r"^Error \S+ connecting to \S+ ", "", text) or type(error).__name__


def _tls_refusal(error: Exception, url: str) -> str | None:
    """Why TLS keeps us from the server for good; None when it is something else."""
    if tls.is_refusal(error):
        return _cause(error)
    if isinstance(error.__cause__ or error.__context__, ConnectionRefusedError):
        return None  # where nobody listens, nobody speaks
    encrypted = url.startswith("rediss:")
    # redis-py's classes for what a server answered in clear are derived from these two.
    hung_up = type(error) is redis.ConnectionError
    silent = type(error) is redis.TimeoutError
    if url in _answered or not (hung_up or (silent and encrypted)):
        return None
    options = redis.Redis.from_url(url).connection_pool.connection_kwargs
    return tls.diagnosis(options, encrypted)


def _from_reply(text: str, where: str) -> ImpalaError:
    """Our error for an error reply, by its first word (transport.lua lists our own)."""
    text = text.rpartition("Transaction discarded because of: ")[2]
    word, _, rest = text.partition(" ")
    if word == "HELD":
        left_ms, _, holder = rest.partition(" ")
        return RunHeld(
            f"another learner holds this run: {holder} (lease renewed within the last seconds, "
            f"{int(left_ms) / 1000:.1f} s left); stop it, choose another --run, or pass --take-over"
        )
    if word == "FENCED":
        return Fenced(
            f"another learner took this run over ({rest}); this one stops",
            token=rest.rpartition(" ")[2],
        )
    if word == "CURSOR":
        return OutOfStep(f"what is in flight on Redis at {where} is not what was claimed ({rest})")
    if word == "NORUN" or "Function not found" in text:
        return RunMissing(f"no learner has opened this run on Redis at {where}")
    if word in ("NOAUTH", "WRONGPASS"):
        return RedisDenied(f"Redis at {where} wants another user name or password ({text})")
    # Inside a function it is no NOPERM, and Redis 7.0 does not name the command.
    if word == "NOPERM" or re.search("ACL failure in script|executing the script can't", text):
        return RedisDenied(
            f"Redis at {where} lacks a permission: {text}; as an admin, bring its users up to "
            "docker/users.acl"
        )
    if "unknown command" in text.lower():
        return UnsuitableServer(f"the server at {where} is too old ({text}); Redis 7.0 is needed")
    if word in ("READONLY", "MASTERDOWN"):
        return ServerDemoted(f"Redis at {where} is a replica now: {text}")
    if word in ("OOM", "BUSY", "LOADING", "MISCONF", "UNBLOCKED"):
        return RedisUnreachable(f"Redis at {where} cannot take commands now: {text}")
    return ImpalaError(f"Redis at {where} answered with an error: {text}")
