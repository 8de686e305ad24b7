"""Reading a run without touching it: books, learner, actors (for status, tests and operators)."""

from collections.abc import Mapping
from typing import Any

from common.connection import without_password
from common.errors import RunMissing
from common.functions import LIBRARY
from common.transport import Side, number, replies

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


class MonitorSide(Side):
    """What a reader may do: it writes nothing."""

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
        found = {_shown(name): value for name, value in pairs}
        generation = _shown(found.pop("generation", b""))
        counts: dict[str, Any] = {name: number(value, 0) for name, value in found.items()}
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
            name.decode().removeprefix("learner:"): float(value)
            for name, value in epoch.items()
            if name.startswith(b"learner:")
        }
        return {
            "holder": holder.decode() if holder else None,
            "epoch": number(epoch.get(b"number"), 0),
            "weights_version": number(version, -1),
            "published_unix_s": float(published_at) if published_at else None,
            "figures": figures,
        }

    def read_actors(self) -> dict[str, dict[str, str]]:
        """The figures of every live actor, by its id."""
        actors, prefix = {}, self.keys.actor("")
        with self._asking():
            for key in self.client.scan_iter(match=_escaped(prefix) + "*", count=1000):
                figures = self.client.hgetall(key)
                if figures:  # else it expired since
                    name = _shown(key).removeprefix(prefix)
                    actors[name] = {_shown(k): _shown(v) for k, v in figures.items()}
        return dict(sorted(actors.items()))


def residual(books: Mapping[str, Any]) -> int:
    """What the books do not explain: 0, or something is wrong with the transport."""
    return int(books["produced"] - sum(books[name] for name in WHEREABOUTS))


def _shown(raw: bytes) -> str:
    """An actor's words, without what a terminal would act on."""
    return "".join(c if c.isprintable() else "?" for c in raw.decode(errors="replace"))


def _escaped(pattern: str) -> str:
    """A literal text inside a MATCH pattern."""
    return "".join(f"\\{c}" if c in "*?[]^\\" else c for c in pattern)
