"""A learner's place in the rounds of its group: what it brings, keeps, and hears.

In a round all learners say what they have (`meeting`). If each has a batch, all make the update
together; else none does, and whoever has a batch keeps it for the next round. So an update is
always of whole batches, a wish to stop is heard by all in the same round, and nobody waits for
data in a call that the others wait in.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from impala_redis.common.feeding.batch import Batch
from impala_redis.common.grouping.group_learner import Exchanging, GroupLearner
from impala_redis.common.grouping.meeting import Round, Words, pack, unpack
from impala_redis.common.learning.updates import Share, Updated

# After so many updates the learners compare what they hold.
CHECK_UPDATES = 1000


class Meeting(Exchanging, Protocol):
    """As much of a group of learners as their rounds need."""

    def close(self) -> None:
        """Leaves the group."""


class Company:
    """The rounds of one learner with the others of its group."""

    def __init__(self, group: Meeting, learner: GroupLearner) -> None:
        self._group, self._learner = group, learner
        self._held: tuple[Batch, Share] | None = None  # until all have a batch
        self._round: Round | None = None
        self._checked = learner.updates
        self._waited_s = self._stood_by_s = 0.0
        self.shares: Sequence[Share] | None = None  # of the batch that `next_batch` gave
        self.leaving = ""  # why all end, once one of them has said so

    def next_batch(
        self, ask: Callable[[], Batch | None], leaving: str, saving: bool
    ) -> Batch | None:
        """One round: a batch if all have one, and an update is to be made of them.

        Args:
          ask: waits a short time for a batch of this learner's own.
          leaving: why this learner ends now; empty if it goes on.
          saving: whether this learner saves its state before the next update.

        Raises GroupLost, and GroupApart where the learners differ.
        """
        if self._held is None and not (leaving or saving):
            began = time.monotonic()
            batch = ask()
            self._waited_s += time.monotonic() - began
            if batch is not None:
                self._held = batch, self._learner.share_of(batch)
        heard = self._meet(leaving, saving)
        self.leaving, self.shares = heard.leaving, heard.shares
        if heard.leaving:
            # One that was killed may have been heard, and cannot answer once more: then it is no
            # end of the run.
            self._group.exchange(b"")
        if heard.shares is None or self._held is None:
            return None
        (batch, _), self._held = self._held, None
        return batch

    def note(self, ended: Sequence[Updated]) -> None:
        """Counts how long this learner stood by for the others in updates that have ended."""
        self._stood_by_s += sum(update.figures.get("exchange_s", 0.0) for update in ended)

    def leave(self, why: str) -> None:
        """Tells the others that all end now."""
        self.next_batch(lambda: None, why, saving=False)

    def close(self) -> None:
        """Needs the others no more."""
        self._group.close()

    def waits(self) -> tuple[list[float], list[float]]:
        """For how many seconds each learner had no batch, and how long it stood by for others."""
        words = self._round.words if self._round else []
        return [one.waited_s for one in words], [one.stood_by_s for one in words]

    def _meet(self, leaving: str, saving: bool) -> Round:
        learner, check = self._learner, None
        if learner.updates - self._checked >= CHECK_UPDATES:
            self._checked = learner.updates
            check = (learner.updates, learner.crc())
        share = self._held[1] if self._held else None
        mine = Words(leaving, share, saving, self._waited_s, self._stood_by_s, check)
        began = time.monotonic()
        self._round = Round([unpack(words) for words in self._group.exchange(pack(mine))])
        self._stood_by_s += time.monotonic() - began
        self._round.check_alike()
        return self._round
