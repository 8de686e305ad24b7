"""The state of training as each learner of a group holds it: all of them the same."""

import zlib
from pathlib import Path
from typing import Protocol

import torch

from impala_redis.common.grouping import meeting
from impala_redis.common.grouping.group_engine import GroupEngine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.updates import Agreed, Share
from impala_redis.common.records.checkpoint import packed, unpacked
from impala_redis.common.run.config import Config

# What a state that came from rank 0 is called in errors.
FROM_RANK_0 = Path("what rank 0 of the group sent")


class Exchanging(Protocol):
    """As much of a group of learners as this one needs."""

    rank: int

    def exchange(self, message: bytes) -> list[bytes]:
        """The messages of all learners, in the order of their ranks."""


class GroupLearner(Learner):
    """One learner of a group. Its updates are those of all, who begin and settle them together."""

    engine: GroupEngine

    def __init__(self, config: Config, engine: GroupEngine, group: Exchanging) -> None:
        """The engine adds up by the same group."""
        super().__init__(config, engine)
        self._group = group

    def _agree(self, share: Share, any_fit: bool) -> Agreed:
        """Tells the others what is left of this learner's batch, and hears the same of theirs.

        Raises GroupLost.
        """
        words = meeting.Words("", share, False, 0.0, 0.0)
        heard = self._group.exchange(bytes([any_fit]) + meeting.pack(words))
        shares = [meeting.unpack(message[1:]).share for message in heard]
        any_fit = any(message[0] for message in heard)
        # Where somebody's blocks allow a step, the network is sound: all count the same faults.
        self._at_fault = self._at_fault and not any_fit
        return Agreed([share for share in shares if share is not None], any_fit)

    def crc(self) -> int:
        """A checksum of all that travels to actors, as it is now; it waits for a GPU."""
        statistics = self._begin_statistics()()
        crc = zlib.crc32(self.engine.flat().data)
        for name in sorted(statistics):
            crc = zlib.crc32(statistics[name].tobytes(), crc)
        return crc

    def as_bytes(self) -> bytes:
        """The whole state, for `take_over`. No update may be under way. Raises NotFinite."""
        return packed(*self.state())

    def take_over(self, state: bytes) -> None:
        """Begins where rank 0 is, whose `as_bytes` gave the state; with other random numbers.

        A dropout must not leave out the same in each learner's batch. Raises CheckpointError.
        """
        self.restore(unpacked(state, FROM_RANK_0))
        if self._group.rank:
            seed = zlib.crc32(self.engine.random_state.data)
            torch.manual_seed(seed + self._group.rank)
