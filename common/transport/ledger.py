"""How claimed blocks end: consumed, stale or refused; each is settled once.

Those that are trained on are settled in the order of their claim. The others are settled at once:
however many are refused while a batch fills, nothing here grows with them.
"""

import json
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

# Why blocks are refused: a counter `dead_lettered:<reason>` each.
REASONS = ("malformed", "version", "spec", "schema", "range", "nonfinite", "duplicate")
# This much of a refused block's message is kept as evidence.
DEAD_RECORD_BYTES = 4096
# The run keeps evidence of this many refused blocks, the last ones.
DEAD_RECORDS = 100


class Dead(NamedTuple):
    """A refused block."""

    reason: str  # one of REASONS
    explanation: str
    message: bytes

    def record(self) -> bytes:
        """What the list `dead` keeps: one line of JSON, then the first bytes of the message."""
        head = {
            "reason": self.reason,
            "message": self.explanation,
            "bytes": len(self.message),
            "unix_s": round(time.time(), 3),
        }
        return json.dumps(head).encode() + b"\n" + self.message[:DEAD_RECORD_BYTES]


class Settled(NamedTuple):
    """How blocks in flight ended, each in one counter."""

    consumed: int = 0  # trained on
    stale: int = 0  # the policy lag was too long
    dead: tuple[Dead, ...] = ()  # the last that were refused, oldest first
    refused_before: Mapping[str, int] = MappingProxyType({})  # by reason; of these nothing is kept

    def __len__(self) -> int:
        return self.consumed + self.stale + len(self.dead) + sum(self.refused_before.values())

    def refused(self) -> Counter[str]:
        """How many blocks were refused, by reason."""
        return Counter(self.refused_before) + Counter(dead.reason for dead in self.dead)

    def as_arguments(self) -> tuple[int | str | bytes, ...]:
        """The same as the server's function `commit` takes it."""
        refused = self.refused()
        by_reason = (part for pair in refused.items() for part in pair)
        records = (dead.record() for dead in self.dead)
        return (self.consumed, self.stale, len(refused), *by_reason, *records)


@dataclass
class Claimed:
    """A block to train on, and how it ended once that is known."""

    outcome: Literal["consumed"] | None = None


class Ledger:
    """The blocks in flight as the learner sees them, whose end the server does not know yet."""

    def __init__(self) -> None:
        self._claimed: deque[Claimed] = deque()
        self._stale = 0
        self._dead: deque[Dead] = deque()
        self._refused_before: Counter[str] = Counter()

    def claim(self) -> Claimed:
        """Notes one more block to train on."""
        self._claimed.append(Claimed())
        return self._claimed[-1]

    def note_stale(self) -> None:
        """Notes a block that was too old to train on."""
        self._stale += 1

    def refuse(self, dead: Dead) -> None:
        """Notes a refused block; of more than DEAD_RECORDS only the last ones are kept."""
        self._dead.append(dead)
        if len(self._dead) > DEAD_RECORDS:
            self._refused_before[self._dead.popleft().reason] += 1

    def settle(self) -> Settled:
        """Removes and returns what has ended: of the blocks to train on the oldest ones."""
        consumed = 0
        while self._claimed and self._claimed[0].outcome is not None:
            self._claimed.popleft()
            consumed += 1
        settled = Settled(consumed, self._stale, tuple(self._dead), self._refused_before)
        self._forget_the_others()
        return settled

    def forget(self) -> None:
        """Drops everything: the server has lost it, or another learner abandoned it."""
        self._claimed.clear()
        self._forget_the_others()

    def _forget_the_others(self) -> None:
        self._stale, self._refused_before = 0, Counter()
        self._dead.clear()
