"""What Redis replies, read: a run's spec, its weights, the news after a push, numbers."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from impala_redis.common.errors import printable
from impala_redis.common.server.reading import NotRedis
from impala_redis.common.server.shapes import is_number

RunState = Literal["running", "finished"]

# In digits. A longer text is not a number that this project writes, and would be slow to read.
LONGEST_NUMBER = 30
# No learner makes so many versions of its weights; messages and functions count up to twice this.
MOST_VERSION = 2**52


class SpecReply(NamedTuple):
    """The run's spec as it stands in Redis."""

    json: bytes
    digest: str  # SHA-256 of the JSON in hex: a different one means a different run
    state: str


class WeightsReply(NamedTuple):
    """Weights as they stand in Redis; `digest` is the SHA-256 of `message` in hex."""

    version: int
    message: bytes
    digest: str

    @property
    def intact(self) -> bool:
        """Whether the message is the one that was published."""
        return hashlib.sha256(self.message).hexdigest() == self.digest


# The fields of WeightsReply, as they stand in Redis.
WEIGHTS = ("version", "payload", "digest")

# What an actor leaves in its heartbeat.
HEARTBEAT = (
    *("host", "pid", "started_unix_s", "frames", "frames_per_s", "episodes", "weights_version"),
    *("published_version", "generated", "accepted", "shed_local", "pending_local", "push_unknown"),
    *("left_over", "waited_s", "weights_refused"),
)

# What became of a block: `duplicate` had been stored before; the others are not in the list.
BlockFate = Literal["stored", "duplicate", "full", "over"]

# What every round trip reads of a spec.
NEWS_OF_SPEC = ("digest", "state", "renewed_at")


class News(NamedTuple):
    """What is new of a run."""

    weights_version: int  # -1: none published
    spec_digest: str
    state: str
    renewed_at: str  # another text each time the learner renews its lease; empty: never


class PushReply(NamedTuple):
    """What an actor learns in the round trip of a push."""

    fate: BlockFate
    news: News
    weights: WeightsReply | None = None  # the published ones, if they were asked for

    @property
    def stored(self) -> bool:
        """Whether the block came into the list by this push."""
        return self.fate == "stored"


def news_from(version: bytes | None, spec: Sequence[bytes | None]) -> News | None:
    """The news in the weights' version and the fields NEWS_OF_SPEC; None when there is no spec."""
    digest, state, renewed_at = (None if f is None else f.decode(errors="replace") for f in spec)
    if digest is None or state is None:
        return None
    return News(whole_number(version, -1), digest, state, renewed_at or "")


def weights_from(fields: Sequence[bytes | None]) -> WeightsReply | None:
    """The weights in the fields WEIGHTS; None when one is missing."""
    version, message, digest = fields
    if version is None or message is None or digest is None:
        return None
    return WeightsReply(whole_number(version, -1), message, digest.decode(errors="replace"))


def what_was_mended(mended: Sequence[bytes], unexplained: int) -> str:
    """Which keys were deleted, which counters begin anew, and what that means for the books."""
    names = [printable(name.decode(errors="replace")) for name in mended]
    broken = ", ".join(name for name in names if " " not in name)
    counters = ", ".join(name for name in names if " " in name)
    said = [f"deleted {broken}, of another type than a run's"] if broken else []
    said += [f"began {counters} anew, which held no number of a run's"] if counters else []
    said += [f"corrected `produced` by {-unexplained:+,} blocks"] if unexplained else []
    return (
        f"SOMEBODY HAD BROKEN THE RUN'S KEYS: {'; '.join(said)}; counts of before may be lost; see "
        "who has the passwords of the users actor and learner"
    )


def pipeline_replies(pipe: Any) -> list[Any]:
    """Sends a pipeline; the first error reply is raised as it came, without the command."""
    return without_errors(pipe.execute(raise_on_error=False))


def without_errors(replies: list[Any]) -> list[Any]:
    """The replies, if none is an error; else the first error is raised."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def of_kinds(reply: list[Any], *kinds: type, rest: type | None = None) -> list[Any]:
    """The items of what a function of ours has replied. Raises NotRedis: they are others.

    `rest` is the type of all that may follow those of `kinds`.
    """
    found = tuple(map(type, reply)) if type(reply) is list else ()
    if found[: len(kinds)] != kinds or set(found[len(kinds) :]) - {rest}:
        raise NotRedis(f"{repr(reply)[:60]} by one of our functions")
    return reply


def _is_hash(fields: int, found: Any) -> bool:
    """Some fields of a hash, of which some may be missing; None for another type of key."""
    return found is None or _is_list(found, fields, bytes, type(None))


def _is_list(found: Any, items: int | None, *kinds: type) -> bool:
    return (
        type(found) is list
        and items in (None, len(found))
        and all(type(item) in kinds for item in found)
    )


def _are_books(found: list[Any], keys: int, names: int) -> bool:
    return _is_list(found, 3, list, int, type(None)) and (
        _is_hash(names, found[0]) and list not in map(type, found[1:])
    )


def _is_learner(found: list[Any], keys: int, names: int) -> bool:
    if not _is_list(found, 4, list, type(None)):
        return False
    lease, epoch, pairs, now = found
    return (
        (lease is None or tuple(map(type, lease)) == (bytes, int))
        and _is_hash(1, epoch)
        and (pairs is None or (_is_list(pairs, None, bytes) and len(pairs) % 2 == 0))
        and _is_list(now, 2, bytes)
        and all(map(is_number, now))
    )


def _are_fields(found: list[Any], keys: int, names: int) -> bool:
    return _is_list(found, keys, list, type(None)) and all(_is_hash(names, one) for one in found)


def _are_names(found: list[Any], keys: int, names: int) -> bool:
    cursor, longer, *others = [*found[:2], None, None][:2] + found[2:]
    return is_number(cursor) and type(longer) is int and _is_list(others, None, bytes)


# What the functions reply that only read, by their names (functions.lua).
READINGS = {
    "read_books": _are_books,
    "read_learner": _is_learner,
    "read_fields": _are_fields,
    "read_names": _are_names,
}


def reading_of(function: str, reply: Any, keys: int, names: int) -> Any:
    """The reply of a function that only reads, which was given so many keys and names of fields.

    Raises NotRedis: it has another form.
    """
    if type(reply) is not list or not READINGS[function](reply, keys, names):
        raise NotRedis(f"{repr(reply)[:60]} by the function {function}")
    return reply


def whole_number(reply: bytes | str | None, default: int) -> int:
    """A reply that is a whole number, or the default when it is none."""
    try:
        return default if reply is None or len(reply) > LONGEST_NUMBER else int(reply)
    except ValueError:
        return default


def finite_number(reply: bytes | str | None) -> float | None:
    """A reply that is a finite number; None when it is none."""
    try:
        figure = float(reply or "")
    except ValueError:
        return None
    return figure if math.isfinite(figure) else None
