"""Reads a run without touching it: books, learner, actors (for status, tests and operators).

An operator may also delete one.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from impala_redis.common.errors import (
    ImpalaError,
    RedisUnreachable,
    RunHeld,
    RunMissing,
    SpecMismatch,
    printable,
)
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server.address import without_password
from impala_redis.common.server.suitability import eviction_in, whole
from impala_redis.common.transport.functions import LIBRARY
from impala_redis.common.transport.link import Link
from impala_redis.common.transport.replies import (
    SpecReply,
    finite_number,
    of_kinds,
    pipeline_replies,
    whole_number,
)

# Where a produced block can be: in exactly one of these.
WHEREABOUTS = (
    "consumed",
    "dropped_oldest",
    "dead_lettered",
    "stale_rejected",
    "abandoned",
    "queued",
    "in_flight",
)

Reading = dict[str, Any]


class MonitorLink(Link):
    """What a reader may do: it writes nothing."""

    _may_ask_for_memory = True

    def __init__(
        self, url: str, run: str, name: str, is_gone: Callable[[str], bool] = lambda holder: False
    ) -> None:
        """`is_gone` says of a lease's holder whether it is known to have ended."""
        super().__init__(url, run, name)
        self._is_gone = is_gone

    def read(self) -> Reading:
        """The run as it is now, and `at`, in monotonic seconds. Raises RunMissing."""
        books, spec = self.read_books(), self.read_spec()
        return {
            "at": time.monotonic(),
            "books": books,
            "residual": residual(books),
            "learner": self.read_learner(),
            "state": printable(spec.state) if spec else None,
            "queue_blocks": _bound_of_the_list(spec),
            "actors": self.read_actors(),
            "memory": self.read_memory(),
        }

    def read_books(self) -> dict[str, Any]:
        """The run's counters, `queued` and `in_flight`, at one instant. Raises RunMissing."""
        keys = self.keys
        try:
            with self._asking():
                read = self.client.fcall_ro(
                    f"{LIBRARY}_read_books", 3, keys.stats, keys.trajectories, keys.inflight
                )
                stats, queued, in_flight = of_kinds(read, list, int, int)
                of_kinds(stats, *(bytes,) * (len(stats) // 2 * 2))
        except RunMissing:  # not even the functions are there
            stats = []
        if not stats:
            raise self._missing()
        pairs = zip(stats[::2], stats[1::2], strict=True)
        found = {_text(name): value for name, value in pairs}
        generation = _text(found.pop("generation", b""))
        # A counter deleted by hand shows up in the residual.
        counts: dict[str, Any] = dict.fromkeys(("produced", "foreign", *WHEREABOUTS), 0)
        counts |= {name: whole_number(value, 0) for name, value in found.items()}
        books = counts | {"queued": queued, "in_flight": in_flight, "generation": generation}
        # Blocks that came around the push are counted at the server when they are claimed, and here
        # until then.
        uncounted = max(0, -residual(books))
        for name in ("produced", "foreign"):
            books[name] += uncounted
        return books

    def _missing(self) -> RunMissing:
        return RunMissing(
            f"there is no run {self.run!r} on {without_password(self.url)}; start one with: "
            f"impala-learner --run {self.run}"
        )

    def read_learner(self) -> dict[str, Any]:
        """The lease's holder (None: no learner), epoch, published version, learner's figures.

        All times are the server's: `silent_s` since the lease was renewed, None if unknown;
        `figures_age_s` since the learner made its figures; `published_age_s` of the weights.
        """
        with self._asking():
            pipe = self.client.pipeline(transaction=False)
            pipe.get(self.keys.lock)
            pipe.pttl(self.keys.lock)
            pipe.hgetall(self.keys.epoch)
            pipe.hmget(self.keys.weights, ["version", "published_at"])
            pipe.time()
            holder, left_ms, epoch, (version, published_at), now = pipeline_replies(pipe)
        figures = {
            _text(name).removeprefix("learner:"): figure
            for name, value in epoch.items()
            if name.startswith(b"learner:") and (figure := finite_number(value)) is not None
        }
        number = whole_number(epoch.get(b"number"), 0)
        lease_s, lease_epoch = figures.pop("lease_s", None), figures.pop("lease_epoch", None)
        silent_s = age_s = None
        if holder and left_ms >= 0 and lease_s is not None and lease_epoch == number:
            silent_s = max(0.0, lease_s - left_ms / 1000)
        made_s = figures.pop("figures_age_s", None)  # when the lease was renewed
        if made_s is not None and figures.get("epoch") == number:
            age_s = made_s + (silent_s or 0.0)
        published_unix_s = finite_number(published_at)
        now_unix_s = now[0] + now[1] / 1e6
        return {
            "holder": _text(holder) if holder else None,
            "is_gone": bool(holder) and self._is_gone(_text(holder)),
            "silent_s": silent_s,
            "epoch": number,
            "weights_version": whole_number(version, -1),
            "published_unix_s": published_unix_s,
            "published_age_s": None if published_unix_s is None else now_unix_s - published_unix_s,
            "figures": figures,
            "figures_age_s": age_s,
        }

    def read_memory(self) -> dict[str, Any] | None:
        """The server's `used_bytes`, `maxmemory_bytes` (0: no limit) and the `share` in use.

        Also its `policy` when it is full ("": not told), and the keys it evicted since its start.
        None for a user who may not ask, or a server that does not tell; it is not asked again.
        """
        if not self._may_ask_for_memory:
            return None
        try:
            with self._asking():
                info = self.client.info("memory", "stats")
        except RedisUnreachable:
            raise
        except ImpalaError:
            info = {}
        used, limit = whole(info.get("used_memory"), None), whole(info.get("maxmemory"), 0)
        if used is None:
            self._may_ask_for_memory = False
            return None
        return {
            "used_bytes": used,
            "maxmemory_bytes": limit,
            "share": used / limit if limit else None,
            **eviction_in(info)._asdict(),
        }

    def read_actors(self) -> dict[str, dict[str, str]]:
        """The figures of every live actor, by its id."""
        actors, prefix = {}, self.keys.actor("")
        with self._asking():
            for key in self.client.scan_iter(match=_escaped(prefix) + "*", count=1000):
                figures = self.client.hgetall(key)
                if figures:  # else it has expired since
                    name = _text(key).removeprefix(prefix)
                    actors[name] = {_text(k): _text(v) for k, v in figures.items()}
        return dict(sorted(actors.items()))


class OperatorLink(MonitorLink):
    """What an operator may do: it reads, and deletes the keys of a run that nobody works on."""

    def delete_run(self) -> int:
        """Deletes all of the run's keys at one instant; returns how many there were.

        A finished run and one that was interrupted are deleted alike. Raises RunMissing, and
        RunHeld while a learner holds the run or an actor lives, and what `require` does.
        """
        self.require("impala-status --delete")  # also leads to a cluster's node
        with self._asking(), self.client.pipeline() as pipe:
            pipe.watch(self.keys.lock)  # a learner that opens the run from here on is noticed
            holder, left_ms = pipe.get(self.keys.lock), pipe.pttl(self.keys.lock)
            if holder:
                raise RunHeld(
                    f"the learner {_text(holder)} holds the run {self.run!r}; stop it first (once "
                    f"it is dead, its lease lapses, in {left_ms / 1000:.1f} s at most)"
                )
            actors = self.read_actors()
            if actors:
                some = ", ".join([*list(actors)[:3], *(["..."] if len(actors) > 3 else [])])
                raise RunHeld(
                    f"the run {self.run!r} has live actors, {len(actors)} in all ({some}); stop "
                    "them first (one that was killed is forgotten after 10 s)"
                )
            pattern = _escaped(self.keys.prefix) + "*"
            keys = sorted(set(self.client.scan_iter(match=pattern, count=1000)))
            if not keys:
                raise self._missing()
            pipe.multi()
            pipe.unlink(*keys)
            (deleted,) = pipe.execute()
        return int(deleted)


def residual(books: Mapping[str, Any]) -> int:
    """What the books do not explain: 0, or something is wrong with the transport."""
    return int(books["produced"] - sum(books[name] for name in WHEREABOUTS))


def _bound_of_the_list(spec: SpecReply | None) -> int | None:
    """The list's bound, in blocks; None without a spec, or for a spec of another version."""
    try:
        return RunSpec.from_json(spec.json).queue_blocks if spec else None
    except SpecMismatch:
        return None


def _text(raw: bytes) -> str:
    """Bytes that anyone may have written, as text that is safe on a terminal."""
    return printable(raw.decode(errors="replace"))


def _escaped(pattern: str) -> str:
    """A text that a MATCH pattern takes literally."""
    return "".join(f"\\{c}" if c in "*?[]^\\" else c for c in pattern)
