"""What passes between the members of a population, through Redis.

The methods may raise RedisUnreachable (try again at the next interval) and RedisDenied.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from impala_redis.common.errors import CheckpointError, ImpalaError, MessageRefused, ServerDemoted
from impala_redis.common.population.member import FORGOTTEN_S, Member, read_member
from impala_redis.common.population.state import read_state
from impala_redis.common.records.checkpoint import Checkpoint
from impala_redis.common.server.connection import connect, translated
from impala_redis.common.server.resp import round_trip
from impala_redis.common.transport import functions
from impala_redis.common.transport.keys import PopulationKeys
from impala_redis.common.transport.replies import without_errors

# A population has no more members; the records of more are not read.
MOST_MEMBERS = 1024
# The last copies are kept, this many in all.
MOST_COPIES = 1000


class Census(NamedTuple):
    """The members of a population at one moment."""

    members: list[Member]  # by name
    refused: dict[str, str]  # why a record is none, by the name of its member
    now_unix_s: float  # by the server's clock


class PopulationLink:
    """A connection, and the keys of one population."""

    def __init__(self, url: str, population: str, program: str) -> None:
        """`program` is who asks, as `functions.NEEDS` calls it."""
        self.population, self._program = population, program
        self.keys = PopulationKeys(population)
        self._client: Any = connect(url, "impala-population")

    @property
    def url(self) -> str:
        """The address of the server that is spoken to."""
        return str(self._client.address)

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def require(self) -> None:
        """Asks whether the server offers all commands that are needed.

        Raises UnsuitableServer or RedisDenied with every one that is missing.
        """
        with contextlib.suppress(ImpalaError):  # a read with a key leads to a cluster's node
            self._ask(("HGETALL", self.keys.members))
        with self._asking():
            functions.require(self._client, self.url, self.keys, (self._program,))

    def tell(self, member: Member, state: bytes | None = None) -> None:
        """Writes a member's record, and its state while it is alive."""
        record, key = member.to_json(), self.keys.state(member.name)
        commands: list[tuple[Any, ...]] = [("HSET", self.keys.members, member.name, record)]
        if state is not None:
            commands += [
                ("HSET", key, "record", record, "payload", state),
                ("PEXPIRE", key, round(1000 * member.fresh_s)),
            ]
        self._together(commands)

    def tell_copy(self, member: Member, line: Mapping[str, Any]) -> None:
        """Writes that a member has copied another; its own state is not offered any more."""
        commands = [
            ("HSET", self.keys.members, member.name, member.to_json()),
            ("UNLINK", self.keys.state(member.name)),
            ("LPUSH", self.keys.lineage, json.dumps(line)),
            ("LTRIM", self.keys.lineage, 0, MOST_COPIES - 1),
        ]
        self._together(commands)

    def census(self) -> Census:
        """Who is there; records that are none are left out, and told."""
        pairs, (seconds, microseconds) = self._ask(("HGETALL", self.keys.members), ("TIME",))
        found, refused = [], {}
        for name, text in list(zip(pairs[::2], pairs[1::2], strict=True))[:MOST_MEMBERS]:
            known = name.decode(errors="replace")
            try:
                found.append(read_member(known, text))
            except MessageRefused as error:
                refused[known] = str(error)
        now = int(seconds) + int(microseconds) / 1e6
        return Census(sorted(found, key=lambda member: member.name), refused, now)

    def forget_the_silent(self, census: Census) -> None:
        """Takes those off the list that have told nothing for a day."""
        silent = [m.name for m in census.members if census.now_unix_s > m.unix_s + FORGOTTEN_S]
        if silent:
            self._ask(("HDEL", self.keys.members, *silent))

    def state_of(self, name: str, most_bytes: int) -> tuple[Member, Checkpoint] | None:
        """The state that a member offers, and its record of the same moment; None for none.

        Raises MessageRefused or CheckpointError: it is none to go on with, or too large.
        """
        key = self.keys.state(name)
        (size,) = self._ask(("HSTRLEN", key, "payload"))
        if size > most_bytes:
            raise CheckpointError(
                f"the state of {name} has {size:,} bytes, more than {most_bytes:,}"
            )
        ((record, payload),) = self._ask(("HMGET", key, "record", "payload"))
        if record is None or payload is None:
            return None
        member = read_member(name, record)
        return member, read_state(payload, member)

    def lineage(self) -> list[bytes]:
        """The last copies, newest first, a line of JSON each."""
        (lines,) = self._ask(("LRANGE", self.keys.lineage, 0, MOST_COPIES - 1))
        return list(lines)

    def _together(self, commands: Sequence[tuple[Any, ...]]) -> None:
        """Carries out all of the commands or none."""
        with self._asking():
            replies = round_trip(self._client, [("MULTI",), *commands, ("EXEC",)])
            without_errors(without_errors(replies)[-1] or [])

    def _ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        with self._asking():
            return without_errors(round_trip(self._client, commands))

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        """Turns redis-py's errors into ours, and drops connections to a server that was demoted."""
        try:
            with translated(self._client):
                yield
        except ServerDemoted:
            self._client.connection_pool.disconnect(inuse_connections=False)
            raise
