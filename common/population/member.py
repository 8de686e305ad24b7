"""What a member of a population tells of itself: one line of JSON, which nobody has to believe."""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from impala_redis.common.errors import MessageRefused, printable
from impala_redis.common.settings.evolving import MOST_GENERATIONS

# A record takes some hundred bytes.
MOST_RECORD_BYTES = 4096
# A record is of no use after this many intervals of its member, but never before that many seconds.
FRESH_INTERVALS, LEAST_FRESH_S, MOST_FRESH_S = 3, 60.0, 30 * 86_400.0
# A member that was silent for so long is taken off the list by whoever sees it.
FORGOTTEN_S = 86_400.0
MOST_COUNT, MOST_VALUES, LARGEST = 2**52, 16, 1e30

Measure = Literal["score", "return"]
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY = re.compile(r"[a-z_]{1,64}")
_HEX = re.compile(r"[0-9a-f]{1,64}")


@dataclass(frozen=True)
class Member:
    """A run in a population, as it was at one moment."""

    name: str  # of the run
    unix_s: float  # when that was, by the server's clock
    fresh_s: float  # for how many seconds from then on it counts as alive
    fitness: float | None  # None: it has just copied, and begins to play
    measure: Measure  # what the fitness is: the score of the run's tasks, or its mean return
    frames: int
    updates: int
    fingerprint: str  # the same for all whose states fit each other
    values: Mapping[str, float]  # the mutable settings, as they were
    generation: int = 0  # through how many copies its state has come
    copied_from: str = ""  # the last member that it has copied
    copied_unix_s: float = 0.0
    refused: int = 0  # states of others that were none
    digest: str = ""  # the SHA-256 of the state that it offers, in hex

    def is_stale(self, now_unix_s: float) -> bool:
        """Whether it may have ended."""
        return now_unix_s > self.unix_s + self.fresh_s

    def to_json(self) -> str:
        """One line that `read_member` reads."""
        return json.dumps(dataclasses.asdict(self))


def fresh_s(interval_s: float) -> float:
    """How long a member counts as alive whose last interval took so many seconds."""
    return min(max(FRESH_INTERVALS * interval_s, LEAST_FRESH_S), MOST_FRESH_S)


def read_member(name: str, text: bytes) -> Member:
    """The record of the member of that name. Raises MessageRefused: it is none, or another's."""
    try:
        if len(text) > MOST_RECORD_BYTES:
            raise ValueError(f"{len(text)} bytes")
        found = json.loads(text)
        member = Member(**{**found, "values": _values(found["values"])})
        _check(member)
        if member.name != name:
            raise ValueError(f"the name {member.name}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MessageRefused(
            "malformed", f"{printable(name)[:80]} has no record of a member: {_why(error)}"
        ) from error
    return member


def _why(error: Exception) -> str:
    return printable(error)[:200]


def _check(member: Member) -> None:
    """Raises ValueError for a field that is not as declared."""
    counts = {key: getattr(member, key) for key in ("frames", "updates", "generation", "refused")}
    for key, count in counts.items():
        most = MOST_GENERATIONS - 1 if key == "generation" else MOST_COUNT
        if type(count) is not int or not 0 <= count <= most:
            raise ValueError(key)
    for key, longest in (("unix_s", 1e12), ("fresh_s", MOST_FRESH_S), ("copied_unix_s", 1e12)):
        if not 0 <= _number(getattr(member, key), key) <= longest:
            raise ValueError(key)
    if member.fitness is not None:
        _number(member.fitness, "fitness")
    for key, form in (("name", NAME), ("fingerprint", _HEX)):
        if not _is_text(getattr(member, key), form):
            raise ValueError(key)
    for key, form in (("copied_from", NAME), ("digest", _HEX)):
        if (found := getattr(member, key)) != "" and not _is_text(found, form):
            raise ValueError(key)
    if member.measure not in ("score", "return"):
        raise ValueError("measure")


def _values(found: Any) -> dict[str, float]:
    if not isinstance(found, dict) or len(found) > MOST_VALUES:
        raise ValueError("values")
    if not all(_is_text(key, _KEY) for key in found):
        raise ValueError("values")
    return {key: float(_number(value, "values")) for key, value in found.items()}


def _is_text(found: Any, form: re.Pattern[str]) -> bool:
    return isinstance(found, str) and form.fullmatch(found) is not None


def _number(found: Any, key: str) -> float:
    # What is not a number fails the comparison, too, and no int is too long for it.
    if type(found) not in (int, float) or not abs(found) <= LARGEST:
        raise ValueError(key)
    return float(found)
