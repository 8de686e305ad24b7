"""What Redis replies, read: a run's spec, its weights, the news after a push, numbers."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

RunState = Literal["running", "finished"]

# In digits. A longer text is not a number that this project writes, and would be slow to read.
LONGEST_NUMBER = 30


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


def pipeline_replies(pipe: Any) -> list[Any]:
    """Sends a pipeline; the first error reply is raised as it came, without the command."""
    return without_errors(pipe.execute(raise_on_error=False))


def without_errors(replies: list[Any]) -> list[Any]:
    """The replies, if none is an error; else the first error is raised."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


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
