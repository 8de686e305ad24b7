"""A thousand actors on one thread, through asyncio: they send what a real actor sends."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import redis

from bench.load.crew import LIMIT_S, Crew, Figures
from bench.load.roles import FIGURES, RUN, STORM_LIMIT_S, message_of
from impala_redis.common.acting.courier import BEAT_INTERVAL_S
from impala_redis.common.errors import RedisUnreachable, RunMissing
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server.backoff import Backoff
from impala_redis.common.server.connection import CONNECT_TIMEOUT_S, SOCKET_TIMEOUT_S
from impala_redis.common.server.translation import as_ours
from impala_redis.common.transport import actor_link
from impala_redis.common.transport.keys import Keys
from impala_redis.common.transport.replies import NEWS_OF_SPEC


def swarm(
    url: str, spec: RunSpec, crew: Crew, clients: int, expires_s: float, within_s: float
) -> Figures:
    """Many actors on one thread, each of which pushes and beats once a second.

    They begin within `within_s`. It ends at `crew.stop` or, once the server was restarted, when
    each actor has had a push accepted again.
    """

    async def play() -> Figures:
        message, started = message_of(spec), time.monotonic()
        actors = [SwarmActor(url, spec, f"swarm-{i}", message, expires_s) for i in range(clients)]
        tasks = [asyncio.create_task(actor.live(within_s)) for actor in actors]
        back_s: list[float] = []
        while not crew.stop.is_set() and time.monotonic() < started + LIMIT_S:
            await asyncio.sleep(0.02)
            if restarted_at := crew.restarted_at.value:
                back_s = [actor.back_at(restarted_at) - restarted_at for actor in actors]
                if max(back_s) < STORM_LIMIT_S or time.monotonic() > restarted_at + STORM_LIMIT_S:
                    break
        for actor, task in zip(actors, tasks, strict=True):
            task.cancel()
            actor.hang_up()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended[:3]
        return {
            "seconds": time.monotonic() - started,
            "push_ms": [ms for actor in actors for ms in actor.push_ms],
            "back_s": back_s,
            "retries": sum(actor.retries for actor in actors),
        }

    return asyncio.run(play())


class SwarmActor:
    """An actor that sends through asyncio what a courier sends."""

    def __init__(
        self, url: str, spec: RunSpec, name: str, message: bytes, expires_s: float
    ) -> None:
        self._url, self._spec, self._name = url, spec, name
        self._message, self._expires_s = message, expires_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.sequence = self.retries = 0
        self.push_ms: list[float] = []
        self._accepted_at: list[float] = []

    def back_at(self, restarted_at: float) -> float:
        """When the first push after that moment was accepted; the limit's end if none was."""
        never = restarted_at + STORM_LIMIT_S
        return next((at for at in self._accepted_at if at > restarted_at), never)

    async def live(self, within_s: float) -> None:
        """Pushes and beats once a second, from a random moment on."""
        due = time.monotonic() + random.uniform(0, within_s)
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + BEAT_INTERVAL_S, time.monotonic())
            self.sequence += 1
            await self._repeat(self.push)
            await self._repeat(self.beat)

    async def push(self) -> None:
        """Pushes one block."""
        started = time.perf_counter()
        producer = f"{self._name}#1"
        await self._ask(*push_commands(self._spec, producer, self.sequence, self._message))
        self.push_ms.append((time.perf_counter() - started) * 1000)
        self._accepted_at.append(time.monotonic())

    async def beat(self) -> None:
        """Sends a heartbeat, and asks what is new."""
        beat, news = beat_commands(self._name, self._expires_s)
        await self._ask(*beat)
        await self._ask(*news)

    async def _repeat(self, attempt: Callable[[], Any]) -> None:
        """Tries again as `Courier._repeat` does."""
        backoff = Backoff()
        while True:
            try:
                return await attempt()
            except (RedisUnreachable, RunMissing):
                self.retries += 1
                await asyncio.sleep(backoff.next_pause_s())

    async def _ask(self, *commands: tuple[Any, ...]) -> None:
        """Makes one round trip. Raises the transport's errors."""
        try:
            if self._streams is None:
                await self._connect()
            async with asyncio.timeout(SOCKET_TIMEOUT_S):
                replies = await self._round_trip(*commands)
        except (OSError, asyncio.IncompleteReadError) as error:  # TimeoutError is an OSError
            self.hang_up()
            raise self._as_ours(redis.ConnectionError(str(error))) from error
        executed = replies[-1] if isinstance(replies[-1], list) else []
        for reply in [*replies, *executed]:
            if isinstance(reply, Exception):
                raise self._as_ours(reply)

    def _as_ours(self, error: Exception) -> Exception:
        return as_ours(error, self._url, has_answered=True)  # there is no TLS here

    async def _connect(self) -> None:
        host, _, port = self._url.split("/")[2].partition(":")
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            self._streams = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(SOCKET_TIMEOUT_S):  # what redis-py says first for us
            await self._round_trip(("CLIENT", "SETNAME", f"impala-{self._name}"))

    async def _round_trip(self, *commands: tuple[Any, ...]) -> list[Any]:
        assert self._streams is not None
        reader, writer = self._streams
        writer.writelines(PACKER.pack_commands(commands))
        await writer.drain()
        return [await _reply(reader) for _ in commands]

    def hang_up(self) -> None:
        """Closes the connection, if there is one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


PACKER = redis.Connection()  # never connected


def news_commands() -> list[tuple[Any, ...]]:
    """What `ActorLink.read_news` sends."""
    keys = Keys(RUN)
    return [("HGET", keys.weights, "version"), ("HMGET", keys.spec, *NEWS_OF_SPEC)]


def push_commands(
    spec: RunSpec, producer: str, sequence: int, message: bytes
) -> list[tuple[Any, ...]]:
    """What `ActorLink.push` sends."""
    push = (producer, sequence, spec.queue_blocks, spec.queue_policy)
    return actor_link.push_commands(Keys(RUN), [message], *push)


def beat_commands(
    actor: str, expires_s: float
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """What `ActorLink.beat` and then `ActorLink.read_news` send."""
    key = Keys(RUN).actor(actor)
    fields = [part for pair in FIGURES.items() for part in pair]
    return [("HSET", key, *fields), ("PEXPIRE", key, round(expires_s * 1000))], news_commands()


async def _reply(reader: asyncio.StreamReader) -> Any:
    line = await reader.readuntil(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        return redis.ResponseError(rest.decode())
    if kind in b"+:":
        return rest
    length = int(rest)
    if kind == b"$":
        return None if length < 0 else (await reader.readexactly(length + 2))[:-2]
    return [await _reply(reader) for _ in range(length)]
