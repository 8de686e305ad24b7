"""Whether a server is fit for a run, and what an operator should know about it.

A server is refused if it could lose data silently: it is too old, or free to evict keys. A warning
names what a run survives and somebody may regret: no password on a network, snapshots.
"""

import ipaddress
import logging
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from impala_redis.common.errors import ImpalaError, RedisUnreachable, UnsuitableServer
from impala_redis.common.server.address import cli_command, has_password, without_password
from impala_redis.common.server.connection import LEAST_REDIS, LEAST_VALKEY, Client, translated

log = logging.getLogger(__name__)

# A server's own default, for one that does not let us ask.
DEFAULT_BULK_BYTES = 512 * 1024**2
_ASKED = ("bind", "port", "tls-port", "protected-mode", "save", "proto-max-bulk-len")


class ServerLimits(NamedTuple):
    """How much a server takes."""

    maxmemory_bytes: int  # 0 for no limit
    bulk_bytes: int  # the longest single value; a longer one ends the connection


def check_server(client: Client, url: str) -> ServerLimits:
    """The server's limits; logs a warning for each thing that should not stay as it is.

    Raises UnsuitableServer when it is too old or may evict keys.
    """
    with translated(client):
        info: dict[str, object] = client.info()
    _refuse_unsuitable(info, url)
    settings = _settings(client, url)
    _warn_of_exposure(settings, url)
    _warn_of_snapshots(settings, url)
    bulk_bytes = int(settings.get("proto-max-bulk-len", DEFAULT_BULK_BYTES))
    return ServerLimits(int(str(info.get("maxmemory", 0))), bulk_bytes)


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
    if limits.maxmemory_bytes == 0:
        log.warning(
            "the server has no memory limit; set one with: %s CONFIG SET maxmemory %d",
            cli_command(url),
            max(need, 256_000_000),
        )
    elif need > limits.maxmemory_bytes:
        raise UnsuitableServer(
            f"the run needs about {need / 1e6:.0f} MB of the server and its maxmemory is "
            f"{limits.maxmemory_bytes / 1e6:.0f} MB; lower --queue-blocks or --envs-per-actor, or "
            "use a server with more"
        )


def _refuse_unsuitable(info: Mapping[str, object], url: str) -> None:
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
            f"{policy}); run: {cli_command(url)} CONFIG SET maxmemory-policy noeviction"
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
    return has_password(url) or "ssl_certfile" in parse_qs(urlsplit(url).query)


def _is_remote(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme != "unix" and not _is_loopback(parts.hostname or "localhost")


def _listens_to_the_network(settings: Mapping[str, str]) -> bool:
    if settings.get("protected-mode") != "no":
        return False  # it drops strangers without a password by itself, or did not say
    ports = {settings.get("port", "0"), settings.get("tls-port", "0")}
    places = settings.get("bind", "").split() or ["*"]
    return ports != {"0"} and not all(_is_loopback(place.lstrip("-")) for place in places)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name, which may lead anywhere
