"""Reads a run without touching it: books, learner, actors (for status, tests and operators).

An operator may also delete one.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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
from impala_redis.common.transport.keys import escaped
from impala_redis.common.transport.ledger import REASONS
from impala_redis.common.transport.link import Link
from impala_redis.common.transport.replies import HEARTBEAT, finite_number, reading_of, whole_number

# Where a produced block can be: in exactly one of these.
WHEREABOUTS = (
    *("consumed", "dropped_oldest", "dead_lettered", "stale_rejected", "abandoned"),
    *("queued", "in_flight"),
)
COUNTERS = ("produced", "foreign", "dup_push", *WHEREABOUTS[:5])

# In bytes: a longer text is not read, only how long it is.
MOST_BYTES, MOST_BYTES_OF_A_NUMBER, MOST_BYTES_OF_A_SPEC = 200, 40, 2**20
# More actors than these are only counted; of more figures of a learner none is read.
MOST_ACTORS, MOST_FIGURES = 4096, 1024
# A server with millions of other keys is looked through for this long.
LOOK_S = 2.0
SCANNED_AT_ONCE, READ_AT_ONCE = 1000, 256  # keys in one round trip

Reading = dict[str, Any]


class Crowd(NamedTuple):
    """The actors that were found."""

    actors: dict[str, dict[str, str]]  # figures, by id
    left_out: int  # more that are listed
    is_all: bool  # whether all keys of the server were looked at


class MonitorLink(Link):
    """What a reader may do: it writes nothing.

    Whatever others have written, a reading takes little time and memory: no long text is fetched,
    and of very many actors and keys only a part.
    """

    _may_ask_for_memory = True

    def __init__(
        self, url: str, run: str, name: str, is_gone: Callable[[str], bool] = lambda holder: False
    ) -> None:
        """`is_gone` says of a lease's holder whether it is known to have ended."""
        super().__init__(url, run, name)
        self._is_gone = is_gone

    def read(self) -> Reading:
        """The run as it is now, and `at`, in monotonic seconds. Raises RunMissing.

        `actors_left_out` are listed and not among `actors`; `looked_at_all` is whether all of the
        server's keys were looked at for them. `broken` names what is not as the programs write it.
        """
        books, broken = self._read_books()
        state, spec = self._read_state()
        learner, crowd = self.read_learner(), self._read_crowd(LOOK_S)
        return {
            "at": time.monotonic(),
            "broken": [*broken, *learner.pop("broken")],
            "books": books,
            "residual": residual(books),
            "learner": learner,
            "state": state,
            "queue_blocks": spec and spec.queue_blocks,
            "actors": crowd.actors,
            "actors_left_out": crowd.left_out,
            "looked_at_all": crowd.is_all,
            "memory": self.read_memory(),
        } | ({"tasks": [task.name for task in spec.tasks]} if spec and spec.tasks else {})

    def read_books(self) -> dict[str, Any]:
        """The run's counters, `queued` and `in_flight`, at one instant. Raises RunMissing."""
        return self._read_books()[0]

    def _read_books(self) -> tuple[dict[str, Any], list[str]]:
        """The books, and what of them is of another type or no number: each counts as 0."""
        keys = self.keys
        names = ("generation", *COUNTERS, *(f"dead_lettered:{reason}" for reason in REASONS))
        places = [keys.stats, keys.trajectories, keys.inflight]
        try:
            read = self._call("read_books", places, MOST_BYTES_OF_A_NUMBER, *names)
        except RunMissing:  # not even the functions are there
            raise self._missing(look_for_spec=True) from None
        counters, *lengths = read
        broken = [key for key, found in zip(places, read, strict=True) if found is None]
        found = dict(zip(names, counters or [None] * len(names), strict=True))
        generation = found.pop("generation")
        if generation is None and not broken:
            raise self._missing()
        # A counter deleted by hand shows up in the residual.
        counts: dict[str, Any] = dict.fromkeys(COUNTERS, 0)
        for name, value in found.items():
            if value is not None:
                counts[name] = whole_number(value, 0)
                if whole_number(value, -1) < 0:
                    broken.append(f"{keys.stats} {name}")
        books = counts | dict(zip(WHEREABOUTS[5:], (n or 0 for n in lengths), strict=True))
        # Blocks that came around the push are counted at the server when they are claimed, and here
        # until then.
        uncounted = max(0, -residual(books))
        for name in ("produced", "foreign"):
            books[name] += uncounted
        return books | {"generation": _text(generation or b"")}, broken

    def _missing(self, look_for_spec: bool = False) -> RunMissing:
        name, where = self.run, without_password(self.url)
        if look_for_spec and self.read_spec():
            return RunMissing(
                f"the run {name!r} is on {where}, and this version's functions are not: its "
                "learner puts them there, or is of another version: then use that one's programs"
            )
        start = f"start one with: impala-learner --run {name}"
        return RunMissing(f"there is no run {name!r} on {where}; {start}")

    def _read_state(self) -> tuple[str | None, RunSpec | None]:
        """The run's state and its spec; None where they are not known."""
        found = self._call("read_fields", [self.keys.spec], MOST_BYTES_OF_A_SPEC, "state", "json")
        state, text = found[0] or (None, None)
        try:
            spec = RunSpec.from_json(text) if text else None
        except SpecMismatch:
            spec = None
        return None if state is None else _text(state), spec

    def read_learner(self) -> dict[str, Any]:
        """The lease's holder (None: no learner), epoch, published version, learner's figures.

        All times are the server's: `silent_s` since the lease was renewed, None if unknown;
        `figures_age_s` since the learner made its figures; `published_age_s` of the weights.
        `broken` names the keys of another type.
        """
        keys = self.keys
        published = (MOST_BYTES, "version", "published_at")
        weights = self._call("read_fields", [keys.weights], *published)[0]
        lease, epoch, pairs, now = self._call(
            "read_learner", [keys.lock, keys.epoch], MOST_BYTES, MOST_FIGURES
        )
        read = {keys.lock: lease, keys.epoch: epoch, keys.weights: weights}
        (holder, left_ms), (version, published_at) = lease or (b"", 0), weights or (None, None)
        pairs = pairs or []
        figures = {
            _text(name).removeprefix("learner:"): figure
            for name, value in zip(pairs[::2], pairs[1::2], strict=True)
            if name.startswith(b"learner:") and (figure := finite_number(value)) is not None
        }
        number = whole_number(epoch[0] if epoch else None, 0)
        lease_s, lease_epoch = figures.pop("lease_s", None), figures.pop("lease_epoch", None)
        silent_s = age_s = None
        if holder and left_ms >= 0 and lease_s is not None and lease_epoch == number:
            silent_s = max(0.0, lease_s - left_ms / 1000)
        made_s = figures.pop("figures_age_s", None)  # when the lease was renewed
        if made_s is not None and figures.get("epoch") == number:
            age_s = made_s + (silent_s or 0.0)
        published_unix_s = finite_number(published_at)
        now_unix_s = int(now[0]) + int(now[1]) / 1e6
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
            "broken": [key for key, found in read.items() if found is None],
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
        """The figures of every live actor, by its id; of more than MOST_ACTORS some are missing."""
        return self._read_crowd(None).actors

    def _read_crowd(self, within_s: float | None) -> Crowd:
        """The actors; after `within_s` no more of the server's keys are looked at."""
        prefix, found, left_out = self.keys.actor(""), set[bytes](), 0
        began, cursor = time.monotonic(), b"0"
        while True:
            scan = (MOST_BYTES, cursor, escaped(prefix) + "*", SCANNED_AT_ONCE)
            cursor, longer, *names = self._call("read_names", [self.keys.stats], *scan)
            new = set(names) - found
            room = MOST_ACTORS - len(found)
            found.update(sorted(new)[:room])
            left_out += longer + max(0, len(new) - room)
            late = within_s is not None and time.monotonic() - began > within_s
            if cursor == b"0" or late:
                break
        actors, listed = {}, sorted(found)
        for start in range(0, len(listed), READ_AT_ONCE):
            some = listed[start : start + READ_AT_ONCE]
            read = self._call("read_fields", some, MOST_BYTES, *HEARTBEAT)
            for key, texts in zip(some, read, strict=True):
                figures = {n: _text(t) for n, t in zip(HEARTBEAT, texts or [], strict=False) if t}
                if figures:  # else it has expired since
                    actors[_text(key).removeprefix(prefix)] = figures
        return Crowd(dict(sorted(actors.items())), left_out, cursor == b"0")

    def _call(self, function: str, keys: Sequence[str | bytes], *arguments: Any) -> Any:
        """What one of the server's functions replies that only read."""
        with self._asking():
            reply = self.client.fcall_ro(f"{LIBRARY}_{function}", len(keys), *keys, *arguments)
            return reading_of(function, reply, len(keys), len(arguments) - 1)


class OperatorLink(MonitorLink):
    """What an operator may do: it reads, and deletes the keys of a run that nobody works on."""

    def read_actors(self) -> dict[str, dict[str, str]]:
        """The ids of all live actors, without their figures; the functions may be gone."""
        prefix = self.keys.actor("")
        with self._asking():
            found = set(self.client.scan_iter(match=escaped(prefix) + "*", count=SCANNED_AT_ONCE))
        return {_text(key).removeprefix(prefix): {} for key in sorted(found)}

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
            pattern = escaped(self.keys.prefix) + "*"
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


def _text(raw: bytes) -> str:
    """Bytes that anyone may have written, as text that is safe on a terminal."""
    return printable(raw.decode(errors="replace"))
