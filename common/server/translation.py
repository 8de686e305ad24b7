"""redis-py's errors as ours: worth another try, final, or about the run; one table says which."""

import re
from typing import NamedTuple

import redis

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
    printable,
)
from impala_redis.common.server import sentinel, tls
from impala_redis.common.server.address import cli_command, parse, without_password
from impala_redis.common.server.reading import NotRedis


def as_ours(error: Exception, url: str, has_answered: bool, named_by: str = "") -> ImpalaError:
    """Our error for one of redis-py's that came from the server at `url`.

    `named_by` is the address that led there: of another node of a cluster, or of sentinels.

    Until that server has answered for the first time (`has_answered`), one that hangs up or stays
    silent is asked whether TLS is the reason: that opens connections of its own.
    """
    where = without_password(url) + f" (named by {without_password(named_by)})" * bool(named_by)
    text = said = printable(error)  # a server may quote anyone, as the holder of a lease
    for before in _BEFORE:
        text = text.rpartition(before)[2]
    word, _, rest = text.partition(" ")
    row = next(row for row in _TABLE if row.fits(error, text))
    if row.raised is _REPLY and word in _FROM_OUR_FUNCTIONS:
        return _FROM_OUR_FUNCTIONS[word](rest, where)
    refusal = _tls_refusal(error, url, has_answered) if row.raised is _NO_ANSWER else None
    if refusal:
        return RedisDenied(f"no TLS agreement with Redis at {where}: {refusal}")
    message = row.message.format(
        where=where, error=said, text=text, cause=_cause(error), cli=cli_command(url)
    )
    return row.error(message)


def is_unknown_command(reply: object) -> bool:
    """Whether a reply is the error of a server that has no such command, or does not offer it."""
    return isinstance(reply, redis.ResponseError) and bool(re.search(_UNKNOWN, str(reply)))


def _run_held(rest: str, where: str) -> ImpalaError:
    left_ms, _, holder = rest.partition(" ")
    left_s = int(left_ms) / 1000 if re.fullmatch(r"-?[0-9]{1,15}", left_ms) else 0.0
    return RunHeld(
        f"another learner holds this run: {holder} (lease renewed within the last seconds, "
        f"{left_s:.1f} s left); stop it, choose another --run, or pass --take-over",
        *(holder, left_s),
    )


def _fenced(rest: str, where: str) -> ImpalaError:
    return Fenced(
        f"another learner took this run over ({rest}); this one stops",
        token=rest.rpartition(" ")[2],
    )


def _out_of_step(rest: str, where: str) -> ImpalaError:
    return OutOfStep(f"what is in flight on Redis at {where} is not what was claimed ({rest})")


# The first words of error replies that functions.lua makes; its NORUN is in the table below.
_FROM_OUR_FUNCTIONS = {"HELD": _run_held, "FENCED": _fenced, "CURSOR": _out_of_step}


# What redis-py and a transaction say before the reply itself.
_BEFORE = ("Transaction discarded because of: ", " of pipeline caused error: ")


class _Row(NamedTuple):
    """One row of the table: what redis-py raises, and what is raised for it."""

    raised: tuple[type[Exception], ...]
    pattern: str  # what the error's text must contain, a regular expression
    error: type[ImpalaError]
    # With {where}, {error}, {text} (the error without what is said before it), {cause}
    # (without the address) and {cli} (redis-cli for that server).
    message: str

    def fits(self, error: Exception, text: str) -> bool:
        """Whether this row is about that error."""
        return isinstance(error, self.raised) and bool(re.search(self.pattern, text))


# Redis itself, a command within a function, and what managed servers answer.
_UNKNOWN = (
    "(?i)unknown (redis )?(sub)?command|unsupported command|command (.* )?is (disabled|"
    "not (available|allowed|supported))"
)
_NOT_LET_IN = (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError)
_NO_PERMISSION = (redis.exceptions.NoPermissionError,)
_NO_MASTER = (redis.sentinel.MasterNotFoundError,)
_NO_ANSWER = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)
_NOT_TAKEN = (*_NO_ANSWER, redis.exceptions.ResponseError)  # the latter by nodes of a cluster
_REPLICA = (redis.exceptions.ReadOnlyError, redis.exceptions.MasterDownError)
_BUSY = (
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
)
_REPLY = (redis.exceptions.ResponseError,)
_ANY = (redis.exceptions.RedisError,)

_MOVING = (redis.exceptions.AskError,)  # a MovedError is one, too

# The first row that fits counts. Classes stand above those that they are derived from.
_TABLE = (
    _Row(
        _NOT_LET_IN,
        "^the sentinel at .* without any password",
        RedisDenied,
        "{error}; leave sentinel_password out of the address",
    ),
    _Row(
        _NOT_LET_IN,
        "^the sentinel at ",
        RedisDenied,
        "{error}; put the sentinels' own password into the address, as "
        "redis+sentinel://...?sentinel_password=...",
    ),
    _Row(
        _NOT_LET_IN,
        "",
        RedisDenied,
        "Redis at {where} refuses the user name or password; set "
        "IMPALA_REDIS_URL=redis://user:password@host:port/0, or keep the password in a file "
        "and name that by --redis-password-file",
    ),
    _Row(
        _NO_PERMISSION,
        "'(multi|exec)'",
        RedisDenied,
        "this user of Redis at {where} may not use transactions, and a push is one; as an "
        "admin, bring its line up to docker/users.acl",
    ),
    _Row(_NO_PERMISSION, "", RedisDenied, "Redis at {where} lacks a permission: {text}"),
    _Row(
        _NO_MASTER,
        sentinel.UNKNOWN_NAME,
        RedisUnreachable,
        "no sentinel tells where the master is ({error}); the address must end with the name "
        "that `sentinel monitor` gives it, as in redis+sentinel://host:26379/mymaster",
    ),
    _Row(
        _NO_MASTER,
        "",
        RedisUnreachable,
        "no sentinel tells where the master is ({error}); start them with: redis-sentinel, or "
        "give another address with --redis-url",
    ),
    _Row(
        _NO_ANSWER,
        "previous master is now a",
        ServerDemoted,
        "Redis at {where} is a replica now, and the sentinels are asked for the master",
    ),
    _Row(
        _NOT_TAKEN,
        "^max number of clients",
        RedisUnreachable,
        "Redis at {where} takes no more clients (max number of clients reached); as an "
        "operator, run: {cli} CONFIG SET maxclients 10000",
    ),
    _Row(
        _NO_ANSWER,
        "",
        RedisUnreachable,
        "no answer from Redis at {where} ({cause}); start one with: redis-server, "
        "or give another address with --redis-url",
    ),
    _Row(
        (NotRedis,),
        "",
        UnsuitableServer,
        "the server at {where} answered with what is no reply of Redis: {error}; look at what "
        "listens there, or give another address with --redis-url",
    ),
    _Row(
        (redis.exceptions.WatchError,),
        "",
        RunHeld,
        "a learner has taken the run up just now on Redis at {where}: nothing was deleted",
    ),
    _Row(_REPLICA, "", ServerDemoted, "Redis at {where} is a replica now: {text}"),
    _Row(
        _MOVING,
        "",
        RedisUnreachable,
        "the Redis Cluster at {where} is moving the run's keys from node to node now ({text})",
    ),
    _Row(_BUSY, "", RedisUnreachable, "Redis at {where} cannot take commands now: {text}"),
    _Row(
        _REPLY,
        "^NORUN( |$)|Function not found",
        RunMissing,
        "no learner has opened this run on Redis at {where}",
    ),
    _Row(
        _REPLY,
        "^(NOAUTH|WRONGPASS)( |$)",
        RedisDenied,
        "Redis at {where} wants another user name or password ({text})",
    ),
    # Inside a function it is no NOPERM, and Redis 7.0 does not name the command.
    _Row(
        _REPLY,
        "^NOPERM( |$)|ACL failure in script|executing the script can't",
        RedisDenied,
        "Redis at {where} lacks a permission: {text}; as an admin, bring its users up to "
        "docker/users.acl, or allow them what SECURITY.md lists",
    ),
    _Row(
        _REPLY,
        "SELECT is not allowed|DB index is out of range",
        UnsuitableServer,
        "Redis at {where} has no such database ({text}); a Redis Cluster has number 0 alone, so "
        "write /0, and another server those that its setting `databases` allows",
    ),
    # Inside a function the words of a cluster are these.
    _Row(
        _REPLY,
        "non local key in a cluster|keys while the cluster is",
        RedisUnreachable,
        "the Redis Cluster at {where} is moving the run's keys or is not whole now ({text})",
    ),
    _Row(
        _REPLY,
        _UNKNOWN,
        UnsuitableServer,
        "the server at {where} does not know a command that is needed ({text}): it is switched off "
        "there, or that is a Sentinel, or no Redis 7.0 or Valkey 7.2; SECURITY.md lists them all",
    ),
    _Row(
        _REPLY,
        "^(READONLY|MASTERDOWN)( |$)",
        ServerDemoted,
        "Redis at {where} is a replica now: {text}",
    ),
    _Row(
        _REPLY,
        "^(OOM|BUSY|LOADING|MISCONF|NOREPLICAS|UNBLOCKED)( |$)",
        RedisUnreachable,
        "Redis at {where} cannot take commands now: {text}",
    ),
    _Row(
        _REPLY,
        "^(BROKEN|WRONGTYPE) |not an integer|not a valid float|would overflow",
        RunMissing,
        "somebody has broken a key of this run on Redis at {where} ({text}); its learner mends it "
        "when it opens the run: start one with impala-learner --resume if there is none",
    ),
    _Row(_REPLY, "", ImpalaError, "Redis at {where} answered with an error: {text}"),
    _Row(_ANY, "", RedisUnreachable, "Redis at {where} failed: {error}"),
)


def _tls_refusal(error: Exception, url: str, has_answered: bool) -> str | None:
    """Why TLS keeps us from the server for good; None when it is something else."""
    if tls.is_refusal(error):
        return _cause(error)
    if isinstance(error.__cause__ or error.__context__, ConnectionRefusedError):
        return None  # where nobody listens, nobody speaks
    address = parse(url)
    if address.master:
        return None  # not known yet; what sentinels refuse is said by them
    # redis-py's classes for what a server answered in clear are derived from these two.
    hung_up = type(error) is redis.ConnectionError
    silent = type(error) is redis.TimeoutError
    if has_answered or not (hung_up or (silent and address.encrypted)):
        return None
    options = redis.ConnectionPool.from_url(address.server_url()).connection_kwargs
    return tls.diagnosis(options, address.encrypted)


def _cause(error: Exception) -> str:
    text = printable(error).rstrip(".")
    return re.sub(r"^Error \S+ connecting to \S+ ", "", text) or type(error).__name__
