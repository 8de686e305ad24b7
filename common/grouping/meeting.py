"""What the learners of a group tell each other in every round, and what follows from it for all."""

import json
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from impala_redis.common.errors import GroupApart
from impala_redis.common.learning.updates import Share
from impala_redis.common.normalizing.moments import Sample
from impala_redis.common.records.window import Played


class EndedElsewhere(NamedTuple):
    """An episode that ended in a block of another learner, as far as the window looks at it."""

    column: int  # the environment's index in its actor's blocks
    episode_return: float
    length: int  # steps


class Words(NamedTuple):
    """What one learner says in a round."""

    leaving: str  # why it ends: "interrupted", "solved" or "finished"; "" if it goes on
    share: Share | None  # of the batch that it holds; None if it has no batch
    saving: bool  # whether it has to save a checkpoint before the next update
    waited_s: float  # without a batch, since its start
    stood_by_s: float  # for the other learners, since its start
    check: tuple[int, int] | None = None  # its number of updates, and a checksum of its weights


class Round:
    """The words of all learners in one round; all of them draw the same conclusions from these."""

    def __init__(self, words: Sequence[Words]) -> None:
        """`words` are in the order of the ranks."""
        self.words = tuple(words)

    @property
    def leaving(self) -> str:
        """Why the group ends, as the first who leaves says; "" if all go on."""
        return next((said.leaving for said in self.words if said.leaving), "")

    @property
    def saving(self) -> bool:
        """Whether somebody has to save a checkpoint."""
        return any(said.saving for said in self.words)

    @cached_property
    def shares(self) -> list[Share] | None:
        """What the update of this round is made of, by rank; None in an idle round.

        A round is idle if somebody has no batch, leaves, or has to save a checkpoint.
        """
        shares = [said.share for said in self.words if said.share is not None]
        full = len(shares) == len(self.words)
        return shares if full and not self.leaving and not self.saving else None

    def check_alike(self) -> None:
        """Compares the weights of all, where they tell about them.

        Raises GroupApart with the first rank that does not say the same as rank 0.
        """
        first = self.words[0].check
        for rank, said in enumerate(self.words):
            if said.check != first:
                after = said.check or first
                raise GroupApart(
                    f"rank {rank} does not hold the weights of rank 0 any more (found after "
                    f"{after[0] if after else 0} updates), so their machines do not compute alike; "
                    "begin the run anew, with learners that are all on the same kind of machine"
                )


def pack(words: Words) -> bytes:
    """Words as bytes: a line of JSON, then int64 and float64 numbers, the lowest byte first."""
    share = words.share
    blocks = share.blocks if share else ()
    seen = share.seen if share else ()
    episodes = [episode for block in blocks for episode in block.episodes]
    whole = [
        *(episode.column for episode in episodes),
        *(episode.length for episode in episodes),
        *(column for block in blocks for column in block.left_out),
    ]
    numbers = [words.waited_s, words.stood_by_s, *(e.episode_return for e in episodes)]
    head = {
        "leaving": words.leaving,
        "saving": words.saving,
        "check": words.check,
        "frames": None if share is None else share.frames,
        "task_frames": [] if share is None else list(share.task_frames),
        "blocks": [
            [
                *(*block.actor, block.num_envs, block.first),
                *(len(block.episodes), len(block.left_out), list(block.tasks)),
            ]
            for block in blocks
        ],
        "seen": [[sample.num_rows, len(sample.mean)] for sample in seen],
    }
    return b"".join(
        [
            json.dumps(head).encode() + b"\n",
            np.array(whole, "<i8").tobytes(),
            np.array(numbers, "<f8").tobytes(),
            *(row.astype("<f8").tobytes() for sample in seen for row in sample[1:]),
        ]
    )


def unpack(message: bytes) -> Words:
    """The words that `pack` has made bytes of, exactly.

    Raises GroupApart, if the bytes are no words: the other learner is of another version.
    """
    try:
        line, _, rest = message.partition(b"\n")
        return _words(json.loads(line), rest)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise GroupApart(
            "what another learner of the group says cannot be read; install the same version of "
            "impala-redis for all of them"
        ) from error


def _words(head: dict[str, Any], rest: bytes) -> Words:
    blocks, seen = head["blocks"], head["seen"]
    num_episodes = sum(ended for *_, ended, _, _ in blocks)
    num_whole = 2 * num_episodes + sum(left_out for *_, left_out, _ in blocks)
    whole = np.frombuffer(rest, "<i8", num_whole)
    numbers = np.frombuffer(rest, "<f8", offset=whole.nbytes)
    if len(numbers) != 2 + num_episodes + 2 * sum(size for _, size in seen):
        raise ValueError("too many numbers, or too few")
    columns, lengths = whole[:num_episodes].tolist(), whole[num_episodes:].tolist()
    waited_s, stood_by_s, *returns = numbers[: 2 + num_episodes].tolist()
    episodes = iter(map(EndedElsewhere, columns, returns, lengths))
    left_out = iter(lengths[num_episodes:])
    played = [
        Played(
            actor=(name, incarnation),
            num_envs=num_envs,
            first=first,
            episodes=list(islice(episodes, num_ended)),
            left_out=list(islice(left_out, num_left_out)),
            tasks=tasks,
        )
        for name, incarnation, num_envs, first, num_ended, num_left_out, tasks in blocks
    ]
    samples, start = [], 2 + num_episodes
    for num_rows, size in seen:
        mean, squares = numbers[start : start + 2 * size].reshape(2, size).copy()
        samples.append(Sample(num_rows, mean, squares))
        start += 2 * size
    frames, check, task_frames = head["frames"], head["check"], tuple(head["task_frames"])
    return Words(
        leaving=head["leaving"],
        share=None if frames is None else Share(frames, played, tuple(samples), task_frames),
        saving=head["saving"],
        waited_s=waited_s,
        stood_by_s=stood_by_s,
        check=None if check is None else (check[0], check[1]),
    )
