"""How the learners of a group find each other, at the start and after every restart.

torchrun keeps one store for as long as it runs, so what learners have written there outlives them:
a learner that looks for the others' addresses by name finds those of the dead. So all that one
meeting needs is written under a prefix that rank 0 makes up for it, and the learners agree on it
before they use it, whoever of them has died and begun anew in between, on whichever machine:

    rank r > 0                                      rank 0
    hello/r = a nonce, new for each process   ->
                                              <-    answer/nonce = the attempt, the prefix, facts
    ack/prefix/nonce                          ->
                                              <-    go/nonce = the prefix, once all have acked

Rank 0 goes by the newest hello of each rank only, and a rank by the newest answer to its own.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from impala_redis.common.errors import ConfigError
from impala_redis.common.grouping.seat import Seat

# The store belongs to torchrun too; our names in it begin so.
OURS = "impala/"
POLL_S = 0.05


class Store(Protocol):
    """What learners and torchrun share: values by key, as torch.distributed.Store has them."""

    def set(self, key: str, value: bytes, /) -> None:
        """Writes a value."""

    def get(self, key: str, /) -> bytes:
        """The value of a key that is there."""

    def check(self, keys: list[str], /) -> bool:
        """Whether all of these keys are there."""

    def add(self, key: str, amount: int, /) -> int:
        """Adds to a number, which begins at 0; the sum."""

    def compare_set(self, key: str, expected: bytes, desired: bytes, /) -> bytes:
        """Writes `desired` if the key holds `expected`, or is missing and that is empty.

        Returns what the key holds then.
        """


class Rendezvous:
    """Where the learners of a group meet."""

    def __init__(self, store: Store, seat: Seat, stop: Callable[[float], bool]) -> None:
        """`stop(timeout_s)` sleeps for so long, or until one is asked to stop, and says which.

        Rank 0 counts its attempt here.
        """
        self._store, self._seat, self._stop = store, seat, stop
        self._attempt = 0
        if seat.rank == 0:
            # A store that rank 0 serves has died with it, and does not know of earlier ones.
            self._attempt = max(store.add(f"{OURS}attempts", 1), seat.restarts + 1)

    @property
    def attempt(self) -> int:
        """1 for the first try since torchrun began. Others than rank 0 know it by `come_in`."""
        return self._attempt

    def note(self, name: str, text: str) -> None:
        """Writes down a fact for the attempts to come, over what stands there."""
        self._store.set(f"{OURS}notes/{name}", text.encode())

    def noted(self, name: str) -> str | None:
        """The fact of that name; None if nobody has noted one."""
        noted = self._read(f"{OURS}notes/{name}")
        return None if noted is None else noted.decode()

    def end(self, code: int, sentence: str = "") -> None:
        """Says that the run has ended for good, with which exit code and why: no attempt follows.

        The first to say so is heard.
        """
        text = json.dumps([code, sentence]).encode()
        self._store.compare_set(f"{OURS}end", b"", text)

    @property
    def ended(self) -> tuple[int, str] | None:
        """Exit code and sentence with which the run has ended for good; None if it has not."""
        text = self._read(f"{OURS}end")
        if text is None:
            return None
        with _as_learners_write():
            code, sentence = json.loads(text)
            return int(code), str(sentence)

    def call_in(self, facts: bytes) -> str | None:
        """Waits, as rank 0, for all others, and tells them these facts; the meeting's prefix.

        Each of them gets the facts once it has said hello. None if one is asked to stop, or if the
        run has ended for good.
        """
        prefix = f"{OURS}meeting/{secrets.token_hex(16)}"
        answer = json.dumps([self._attempt, prefix]).encode() + b"\n" + facts
        others = range(1, self._seat.ranks)
        answered: dict[int, str] = {}  # the nonce by rank
        while self.ended is None:
            for rank in others:
                hello = self._read(f"{OURS}hello/{rank}")
                if hello is not None and (nonce := hello.decode()) != answered.get(rank):
                    self._store.set(f"{OURS}answer/{nonce}", answer)
                    answered[rank] = nonce
            if len(answered) == len(others) and self._acked(prefix, list(answered.values())):
                for nonce in answered.values():
                    self._store.set(f"{OURS}go/{nonce}", prefix.encode())
                return prefix
            if self._stop(POLL_S):
                break
        return None

    def come_in(self) -> tuple[str, bytes] | None:
        """Waits, as another rank, for rank 0, however long; the meeting's prefix, and the facts.

        None if one is asked to stop, or if the run has ended for good.
        """
        nonce = secrets.token_hex(16)
        self._store.set(f"{OURS}hello/{self._seat.rank}", nonce.encode())
        prefix, facts = "", b""
        while self.ended is None:
            answer = self._read(f"{OURS}answer/{nonce}")
            if answer is not None:
                head, _, facts = answer.partition(b"\n")
                with _as_learners_write():
                    self._attempt, newest = json.loads(head)
                if newest != prefix:  # another rank 0 than before, or the first
                    prefix = newest
                    self._store.set(f"{OURS}ack/{prefix}/{nonce}", b"here")
                if self._read(f"{OURS}go/{nonce}") == prefix.encode():
                    return prefix, facts
            if self._stop(POLL_S):
                break
        return None

    def _acked(self, prefix: str, nonces: Sequence[str]) -> bool:
        """Whether all of them have."""
        keys = [f"{OURS}ack/{prefix}/{nonce}" for nonce in nonces]
        return not keys or self._store.check(keys)

    def _read(self, key: str) -> bytes | None:
        """A key's value, or None at once if it is not there: the store's `get` would wait."""
        return self._store.get(key) if self._store.check([key]) else None


@contextmanager
def _as_learners_write() -> Iterator[None]:
    """Wraps the reading of what stands in the store. Raises ConfigError: no learner wrote it."""
    try:
        yield
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(
            "somebody else writes to the store in which the learners of the group meet; let only "
            "them reach its port"
        ) from error
