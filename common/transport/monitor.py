"""Reading a run without touching it: books, learner, actors (for status, tests and operators)."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from impala_redis.common.errors import RedisDenied, RunMissing, SpecMismatch, printable
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.server.address import without_password
from impala_redis.common.transport.diagnosis import Situation, bottleneck
from impala_redis.common.transport.functions import LIBRARY
from impala_redis.common.transport.link import Link, SpecReply, number, replies

# Where a produced block can be: in one of these, and in no other.
WHEREABOUTS = (
    "consumed",
    "dropped_oldest",
    "dead_lettered",
    "stale_rejected",
    "abandoned",
    "queued",
    "in_flight",
)
# A list that is longer by fewer blocks has not grown: it goes up and down.
LEAST_GROWTH_BLOCKS = 8

Reading = dict[str, Any]
RunStatus = dict[str, Any]  # a reading and what it comes to


class MonitorLink(Link):
    """What a reader may do: it writes nothing."""

    _may_ask_for_memory = True

    def read(self) -> Reading:
        """All there is to see of the run now, and `at`, in monotonic seconds. Raises RunMissing."""
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
        """The run's counters with `queued` and `in_flight`, of one instant. Raises RunMissing."""
        keys = self.keys
        try:
            with self._asking():
                stats, queued, in_flight = self.client.fcall_ro(
                    f"{LIBRARY}_read_books", 3, keys.stats, keys.trajectories, keys.inflight
                )
        except RunMissing:  # not even the functions are there
            stats = []
        if not stats:
            raise RunMissing(
                f"there is no run {self.run!r} on {without_password(self.url)}; start one with: "
                f"impala-learner --run {self.run}"
            )
        pairs = zip(stats[::2], stats[1::2], strict=True)
        found = {_text(name): value for name, value in pairs}
        generation = _text(found.pop("generation", b""))
        # Who has deleted a counter by hand sees it in the residual.
        counts: dict[str, Any] = dict.fromkeys(("produced", "foreign", *WHEREABOUTS), 0)
        counts |= {name: number(value, 0) for name, value in found.items()}
        books = counts | {"queued": queued, "in_flight": in_flight, "generation": generation}
        # What came around the push is counted when it is claimed: until then, here.
        uncounted = max(0, -residual(books))
        for name in ("produced", "foreign"):
            books[name] += uncounted
        return books

    def read_learner(self) -> dict[str, Any]:
        """The lease's holder (None: no learner), epoch, published version, and own figures."""
        with self._asking():
            pipe = self.client.pipeline(transaction=False)
            pipe.get(self.keys.lock)
            pipe.hgetall(self.keys.epoch)
            pipe.hmget(self.keys.weights, ["version", "published_at"])
            holder, epoch, (version, published_at) = replies(pipe)
        figures = {
            _text(name).removeprefix("learner:"): figure
            for name, value in epoch.items()
            if name.startswith(b"learner:") and (figure := _finite(value)) is not None
        }
        return {
            "holder": _text(holder) if holder else None,
            "epoch": number(epoch.get(b"number"), 0),
            "weights_version": number(version, -1),
            "published_unix_s": _finite(published_at),
            "figures": figures,
        }

    def read_memory(self) -> dict[str, Any] | None:
        """The server's `used_bytes`, `maxmemory_bytes` (0: no limit) and the `share` in use.

        None for a user who may not ask, and who is then not heard asking again.
        """
        if not self._may_ask_for_memory:
            return None
        try:
            with self._asking():
                info = self.client.info("memory")
        except RedisDenied:
            self._may_ask_for_memory = False
            return None
        used, limit = int(info["used_memory"]), int(info.get("maxmemory", 0))
        return {
            "used_bytes": used,
            "maxmemory_bytes": limit,
            "share": used / limit if limit else None,
        }

    def read_actors(self) -> dict[str, dict[str, str]]:
        """The figures of every live actor, by its id."""
        actors, prefix = {}, self.keys.actor("")
        with self._asking():
            for key in self.client.scan_iter(match=_escaped(prefix) + "*", count=1000):
                figures = self.client.hgetall(key)
                if figures:  # else it expired since
                    name = _text(key).removeprefix(prefix)
                    actors[name] = {_text(k): _text(v) for k, v in figures.items()}
        return dict(sorted(actors.items()))


def residual(books: Mapping[str, Any]) -> int:
    """What the books do not explain: 0, or something is wrong with the transport."""
    return int(books["produced"] - sum(books[name] for name in WHEREABOUTS))


def summary(readings: Sequence[Reading]) -> RunStatus:
    """The last reading, what changed since the first of them, and what limits the run."""
    first, last = readings[0], readings[-1]
    elapsed_s = last["at"] - first["at"]
    status = {name: value for name, value in last.items() if name != "at"}
    one_generation = first["books"]["generation"] == last["books"]["generation"]
    if one_generation and elapsed_s > 0:
        status["blocks_per_s"] = {
            name: (last["books"][name] - first["books"][name]) / elapsed_s
            for name in ("produced", "consumed", "dropped_oldest")
        }
        updates = last["learner"]["weights_version"] - first["learner"]["weights_version"]
        status["updates_per_s"] = updates / elapsed_s
    status["bottleneck"] = bottleneck(situation(readings if one_generation else [last]))
    return status


def situation(readings: Sequence[Reading]) -> Situation:
    """What readings of one run, in their order, tell of the time between the first and the last.

    The books must be of one generation. With a single reading no share but memory's is known.
    """
    first, last = readings[0], readings[-1]
    memory = last["memory"]
    known = Situation(
        learner_present=bool(last["learner"]["holder"]),
        finished=last["state"] == "finished",
        actors=len(last["actors"]),
        memory_share=memory["share"] if memory else None,
    )
    if len(readings) < 2:
        return known
    books = last["books"]
    more = {name: books[name] - first["books"][name] for name in ("produced", *WHEREABOUTS)}
    pushed = max(more["produced"], 1)
    idle = not (more["consumed"] or books["queued"] or books["in_flight"])
    grown = more["queued"] if more["queued"] >= LEAST_GROWTH_BLOCKS else 0
    return replace(
        known,
        # A learner with nothing to train on records seldom: its figure may be an old one.
        wait_share=1.0 if idle else _mean_figure(readings, "wait_share"),
        dropped_share=min(more["dropped_oldest"] / pushed, 1.0),
        growth_share=min(grown / pushed, 1.0),
        refused_share=min((more["stale_rejected"] + more["dead_lettered"]) / pushed, 1.0),
        shed_share=_shed_share(first["actors"], last["actors"]),
        claim_share=_mean_figure(readings, "claim_share"),
    )


def are_of_now(learner: Mapping[str, Any]) -> bool:
    """Whether the figures are those of a learner that holds the lease: they outlive it."""
    epoch: int = learner["epoch"]
    return bool(learner["holder"]) and learner["figures"].get("epoch", epoch) == epoch


def _mean_figure(readings: Sequence[Reading], name: str) -> float | None:
    """Of the present learner's own figures; None when it has not told."""
    epoch = readings[-1]["learner"]["epoch"]
    told = [
        learner["figures"][name]
        for learner in (reading["learner"] for reading in readings)
        if learner["epoch"] == epoch and are_of_now(learner) and name in learner["figures"]
    ]
    return sum(told) / len(told) if told else None


def _shed_share(before: Mapping[str, Any], now: Mapping[str, Any]) -> float | None:
    """Of the blocks that actors played between two heartbeats; None when none has told of any."""
    generated = shed = 0
    for name in before.keys() & now.keys():
        more = {
            counter: number(now[name].get(counter), 0) - number(before[name].get(counter), 0)
            for counter in ("generated", "shed_local")
        }
        if more["generated"] > 0 and more["shed_local"] >= 0:  # else it has begun anew
            generated += more["generated"]
            shed += more["shed_local"]
    return min(shed / generated, 1.0) if generated else None


def _bound_of_the_list(spec: SpecReply | None) -> int | None:
    """None, too, for a spec of another version: there is still enough to see."""
    try:
        return RunSpec.from_json(spec.json).queue_blocks if spec else None
    except SpecMismatch:
        return None


def _finite(reply: bytes | None) -> float | None:
    """A reply that is a finite number; None when it is none."""
    try:
        figure = float(reply or b"")
    except ValueError:
        return None
    return figure if math.isfinite(figure) else None


def _text(raw: bytes) -> str:
    """Bytes that anyone may have written, as text that is safe on a terminal."""
    return printable(raw.decode(errors="replace"))


def _escaped(pattern: str) -> str:
    """A literal text inside a MATCH pattern."""
    return "".join(f"\\{c}" if c in "*?[]^\\" else c for c in pattern)
