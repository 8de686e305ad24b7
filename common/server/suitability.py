"""Whether a server is fit for a run, and what an operator should know about it.

A server is refused if it could lose data silently: it is too old, or free to evict keys. A warning
names what a run survives and somebody may regret: no password on a network, snapshots. What a
server does not tell is no reason to refuse it: managed ones tell little.
"""

import logging
import re
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from impala_redis.common.errors import ImpalaError, RedisUnreachable, UnsuitableServer
from impala_redis.common.server.address import (
    Place,
    cli_command,
    has_password,
    parse,
    without_password,
)
from impala_redis.common.server.connection import LEAST_REDIS, LEAST_VALKEY, Client, translated

log = logging.getLogger(__name__)

Default = TypeVar("Default", int, None)

# A server's own default, for one that does not let us ask.
DEFAULT_BULK_BYTES = 512 * 1024**2
_ASKED = ("bind", "port", "tls-port", "protected-mode", "save", "proto-max-bulk-len")


# Where providers that forbid CONFIG keep the server's settings.
_PROVIDERS = (
    "the parameter group of ElastiCache and MemoryDB, the configuration of a Memorystore instance, "
    "the advanced settings of Azure, the database's page of Redis Cloud and Upstash"
)


class ServerLimits(NamedTuple):
    """How much a server takes."""

    maxmemory_bytes: int | None  # 0 for no limit, None when the server does not tell
    bulk_bytes: int  # the longest single value; a longer one ends the connection
    configurable: bool = True  # whether CONFIG works there


class Eviction(NamedTuple):
    """What a server does when its memory is full, and how often it has."""

    policy: str  # maxmemory-policy; empty when the server does not tell
    evicted_keys: int  # since the server's start, of all who use it

    @property
    def endangers_runs(self) -> bool:
        """Whether keys may go that a run cannot do without."""
        return self.policy not in ("", "noeviction") and not self.spares_lasting_keys

    @property
    def hits_runs(self) -> bool:
        """Whether a run's keys may be among those that went."""
        return self.endangers_runs and self.evicted_keys > 0

    @property
    def spares_lasting_keys(self) -> bool:
        """Whether only keys with an expiry may go: a run's lease and heartbeats."""
        return self.policy.startswith("volatile-")


class EvictionWatch:
    """What a server evicts after the first look at it."""

    def __init__(self, first: Eviction | None) -> None:
        self._first = first or Eviction("noeviction", 0)
        self._said = ""

    def words(self, now: Eviction | None) -> str:
        """What has become of it, without a full stop; empty for nothing, or if it is not known."""
        if now is None:
            return ""
        # A server that has started again counts from 0.
        started_again = now.evicted_keys < self._first.evicted_keys
        more = now.evicted_keys - (0 if started_again else self._first.evicted_keys)
        policy = f"(maxmemory-policy {now.policy or 'not told'})"
        if more > 0:
            return f"the server has evicted {more:,} keys since this learner began {policy}"
        if now.endangers_runs and now.policy != self._first.policy:
            return f"the server may evict the run's keys now {policy}"
        return ""

    def news(self, now: Eviction | None) -> str:
        """The same, unless it only counts more keys than the last time."""
        words = self.words(now)
        kind = re.sub(r"[\d,]+ keys", "keys", words)
        if now is None or kind == self._said:
            return ""
        self._said = kind
        return words


def check_server(client: Client, url: str, allow_eviction: bool = False) -> ServerLimits:
    """The server's limits; logs a warning for each thing that should not stay as it is.

    Raises UnsuitableServer when it is too old, or may evict keys and `allow_eviction` is false.
    """
    with translated(client):
        info: dict[str, object] = client.info()
    check_kind(info, url)
    settings = _settings(client, url)
    _check_eviction(eviction_in(info), url, bool(settings), allow_eviction)
    _warn_of_exposure(settings, url)
    _warn_of_snapshots(settings, url)
    bulk_bytes = whole(settings.get("proto-max-bulk-len"), DEFAULT_BULK_BYTES)
    return ServerLimits(whole(info.get("maxmemory"), None), bulk_bytes, bool(settings))


def eviction_in(info: Mapping[str, object]) -> Eviction:
    """What INFO says about evictions."""
    policy = str(info.get("maxmemory_policy", "")).strip().lower()
    return Eviction(policy, whole(info.get("evicted_keys"), 0))


def whole(value: object, default: Default) -> int | Default:
    """A value of INFO or CONFIG that is a whole number; the default when it is none."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else default


def check_room(
    limits: ServerLimits, url: str, block_bytes: int, weights_bytes: int, blocks: int
) -> None:
    """Checks that the server takes a run of `blocks` blocks; warns of a server without a limit.

    Raises UnsuitableServer if it has too little memory, or if a value is too long for it: the
    server would end each connection that sends one.
    """
    for what, size, remedy in (
        ("block", block_bytes, "lower --envs-per-actor or --unroll-length"),
        ("weights message", weights_bytes, "lower --hidden-sizes"),
    ):
        if size > limits.bulk_bytes:
            raise UnsuitableServer(
                f"a {what} of this run takes {size:,} bytes and the server takes "
                f"{limits.bulk_bytes:,} in one; {remedy}, or raise the server's "
                "proto-max-bulk-len"
            )
    # Weights four times: stored, arriving, and on their way to readers.
    need = blocks * block_bytes + 4 * weights_bytes + 8_000_000
    if limits.maxmemory_bytes is None:
        log.warning(
            "the server does not tell how much memory it has; the run needs %.0f MB", need / 1e6
        )
    elif limits.maxmemory_bytes == 0:
        remedy = _remedy("maxmemory", str(max(need, 256_000_000)), url, limits.configurable)
        log.warning("the server has no memory limit; %s", remedy)
    elif need > limits.maxmemory_bytes:
        raise UnsuitableServer(
            f"the run needs about {need / 1e6:.0f} MB of the server and its maxmemory is "
            f"{limits.maxmemory_bytes / 1e6:.0f} MB; lower --queue-blocks or --envs-per-actor, or "
            "use a server with more"
        )


def check_kind(info: Mapping[str, object], url: str) -> None:
    """Warns of a server whose INFO does not tell its version.

    Raises UnsuitableServer when it is too old, or a Sentinel.
    """
    where = without_password(url)
    if "sentinel" in (info.get("redis_mode"), info.get("server_mode")):  # Valkey's name of it
        raise UnsuitableServer(
            f"{where} is a Sentinel, which keeps no data; ask it for the server with --redis-url "
            "redis+sentinel://HOST:PORT/NAME (docs/servers.md)"
        )
    name, least, found = _version(info)
    numbers = [int(part) for part in re.findall(r"\d{1,9}", found)[:2]]
    if not numbers:
        log.warning(
            "%s does not tell its version; Redis 7.0 or Valkey 7.2 is the oldest that works", where
        )
    elif tuple([*numbers, 0][:2]) < least:
        raise UnsuitableServer(
            f"the server at {where} is {name} {found}; Redis 7.0 or Valkey 7.2 is needed: upgrade "
            "it, or leave --redis-url out of impala-train to use the embedded server"
        )


def version_in(info: Mapping[str, object]) -> str:
    """The server's name and version as INFO tells them; empty if it does not."""
    name, _, found = _version(info)
    return f"{name} {found}" if found else ""


def _version(info: Mapping[str, object]) -> tuple[str, tuple[int, int], str]:
    """The server's name, the oldest version of that name that works, and the one found."""
    if "valkey_version" in info:
        return "Valkey", LEAST_VALKEY, str(info["valkey_version"])
    return "Redis", LEAST_REDIS, str(info.get("redis_version", ""))


def _check_eviction(eviction: Eviction, url: str, configurable: bool, allowed: bool) -> None:
    """Warns of a policy that may cost something, or is not told; refuses one that may cost a run.

    Raises UnsuitableServer for the latter, unless it is `allowed`.
    """
    where, policy = without_password(url), eviction.policy
    remedy = _remedy("maxmemory-policy", "noeviction", url, configurable)
    if not policy:
        log.warning(
            "the server at %s does not tell its maxmemory-policy, and a run needs noeviction: make "
            "sure of it in %s",
            *(where, _PROVIDERS),
        )
    elif eviction.spares_lasting_keys:
        log.warning(
            "the server at %s may evict keys that expire (maxmemory-policy %s): a run's are its "
            "lease and its actors' heartbeats, written again after a second; within it another "
            "learner could take the run, and impala-status misses actors. To be safe, %s",
            *(where, policy, remedy),
        )
    elif eviction.endangers_runs and not allowed:
        raise UnsuitableServer(
            f"the server at {where} may evict the run's keys (maxmemory-policy {policy}); "
            f"{remedy}; or, if the run may lose blocks and be opened again, add --allow-eviction"
        )
    elif eviction.endangers_runs:
        log.warning(
            "the server at %s may evict the run's keys (maxmemory-policy %s), as --allow-eviction "
            "lets it: blocks may go, and the run is opened again when its books or weights go",
            *(where, policy),
        )


def _remedy(setting: str, value: str, url: str, configurable: bool) -> str:
    """How a setting of the server is changed, to follow a semicolon or comma."""
    if configurable:
        return f"run: {cli_command(url)} CONFIG SET {setting} {value}"
    return (
        f"set {setting} {value} as an operator: this user cannot use CONFIG there, and a managed "
        f"server has its settings elsewhere ({_PROVIDERS})"
    )


def _settings(client: Client, url: str) -> dict[str, str]:
    """The server's settings that matter here; none for a user who may not ask."""
    try:
        with translated(client):
            found = client.config_get(*_ASKED)
    except RedisUnreachable:
        raise
    except ImpalaError:
        return {}
    return {str(name): str(value) for name, value in found.items()}


def _warn_of_exposure(settings: Mapping[str, str], url: str) -> None:
    """Warns of a server on a network that let us in without a password: it lets anyone in."""
    if _authenticates(url) or not (_is_remote(url) or _listens_to_the_network(settings)):
        return
    log.warning(
        "UNPROTECTED SERVER: %s is on the network and asked for no password, so whoever reaches it "
        "may read, change and delete this run; give it users and passwords as SECURITY.md shows, "
        "or keep it to this machine with: %s CONFIG SET bind 127.0.0.1",
        without_password(url),
        cli_command(url),
    )


def _warn_of_snapshots(settings: Mapping[str, str], url: str) -> None:
    if settings.get("save"):
        log.warning(
            "the server at %s writes snapshots (save %s): when one fails, it refuses every write; "
            "a run needs none, its learner has checkpoints: %s CONFIG SET save ''",
            without_password(url),
            settings["save"],
            cli_command(url),
        )


def _authenticates(url: str) -> bool:
    """Whether the address holds a password or names a client's certificate."""
    return has_password(url) or "ssl_certfile" in parse(url).options


def _is_remote(url: str) -> bool:
    return not all(place.is_loopback for place in parse(url).places)


def _listens_to_the_network(settings: Mapping[str, str]) -> bool:
    if settings.get("protected-mode") != "no":
        return False  # it drops strangers without a password by itself, or did not say
    ports = {settings.get("port", "0"), settings.get("tls-port", "0")}
    places = settings.get("bind", "").split() or ["*"]
    return ports != {"0"} and not all(Place(place.lstrip("-"), 0).is_loopback for place in places)
