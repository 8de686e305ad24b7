"""How claimed blocks end: consumed, stale or refused; each is settled once, in claim order."""

import json
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

# This much of a refused block's message is kept as evidence.
DEAD_RECORD_BYTES = 4096


class Dead(NamedTuple):
    """A refused block."""

    reason: str  # names its counter
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
    """How the oldest in-flight blocks ended, each in one counter."""

    consumed: int = 0  # trained on
    stale: int = 0  # the policy lag was too long
    dead: tuple[Dead, ...] = ()

    def __len__(self) -> int:
        return self.consumed + self.stale + len(self.dead)


@dataclass
class Claimed:
    """A block in the in-flight list, and how it ended once that is known."""

    outcome: Literal["consumed", "stale"] | Dead | None = None


class Ledger:
    """The in-flight list as the learner sees it: blocks are settled in the order of their claim."""

    def __init__(self) -> None:
        self._claimed: deque[Claimed] = deque()

    def claim(self) -> Claimed:
        """Notes one more claimed block."""
        self._claimed.append(Claimed())
        return self._claimed[-1]

    def settle(self) -> Settled:
        """Removes and returns the oldest blocks whose end is known."""
        consumed, stale, dead = 0, 0, []
        while self._claimed and (outcome := self._claimed[0].outcome) is not None:
            self._claimed.popleft()
            if isinstance(outcome, Dead):
                dead.append(outcome)
            elif outcome == "stale":
                stale += 1
            else:
                consumed += 1
        return Settled(consumed, stale, tuple(dead))

    def forget(self) -> None:
        """Drops everything: the server has lost it, or another learner abandoned it."""
        self._claimed.clear()
