"""The rounds of a group: who steps when, what is kept, and what all hear in the same round."""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from companions import Companions, cut, run_of, some_batch

from impala_redis.common.errors import GroupApart, GroupLost
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.grouping import company
from impala_redis.common.grouping.company import Company
from impala_redis.common.grouping.group_learner import GroupLearner
from impala_redis.common.grouping.meeting import Words, pack

pytestmark = pytest.mark.usefixtures("one_thread")

RUNNING = {"normalize_observations": True, "normalize_rewards": True, "reward_clipping": "none"}


class Turn(NamedTuple):
    """What a learner has in a round."""

    batch: Batch | None = None
    leaving: str = ""
    saving: bool = False


class Rounds:
    """A group that goes round as its programs do: take a batch, update or settle."""

    def __init__(self, ranks: int = 2, **changes: Any) -> None:
        self.spec, config = run_of(**changes)
        self.group = Companions(self.spec, config, ranks)
        self.learners = self.group.learners
        self.companies = [*map(Company, self.group.places, self.learners)]
        self.asked = [0] * ranks

    def parts(self, seed: int) -> list[Batch]:
        return cut(some_batch(self.spec, seed, 2 * self.group.ranks), self.group.ranks)

    def go(self, *turns: Turn) -> list[Batch | None]:
        """One round; the batch with which each learner has begun an update."""

        def one(rank: int, learner: GroupLearner) -> Batch | None:
            place, (batch, leaving, saving) = self.companies[rank], turns[rank]

            def ask() -> Batch | None:
                self.asked[rank] += 1
                return batch

            begun = place.next_batch(ask, leaving, saving)
            if begun:
                learner.update(begun, place.shares)
            else:
                learner.settle()
            return begun

        return self.group.all_do(one)

    def train(self, updates: int) -> None:
        for _ in range(updates):
            parts = self.parts(self.learners[0].updates)
            assert same(self.go(*map(Turn, parts)), parts)

    def crcs(self) -> list[int]:
        return [learner.crc() for learner in self.learners]


def same(found: Sequence[Batch | None], expected: Sequence[Batch]) -> bool:
    return all(one is other for one, other in zip(found, expected, strict=True))


def test_a_batch_is_kept_over_idle_rounds_and_looked_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a group of which one learner has a batch long before the other
    waiting, ready = Rounds(**RUNNING), Rounds(**RUNNING)
    for rounds in (waiting, ready):
        rounds.train(1)  # returns of rewards go on from here
    before = waiting.crcs()
    parts, looked = waiting.parts(7), []
    learner = waiting.learners[0]
    share_of = learner.share_of
    monkeypatch.setattr(learner, "share_of", lambda batch: looked.append(1) or share_of(batch))
    for _ in range(3):
        assert waiting.go(Turn(parts[0]), Turn()) == [None, None]

    # then nobody has stepped meanwhile, and it was not asked for another
    assert waiting.crcs() == before
    assert [learner.updates for learner in waiting.learners] == [1, 1]
    assert (waiting.asked, len(looked)) == ([1 + 1, 1 + 3], 1)

    # and when the other one has its own, all is as if both had come at once
    assert same(waiting.go(Turn(), Turn(parts[1])), parts)
    ready.go(*map(Turn, ready.parts(7)))
    assert waiting.crcs() == ready.crcs()
    assert waiting.crcs()[0] == waiting.crcs()[1] != before[0]


def test_all_settle_in_the_round_in_which_rank_0_saves() -> None:
    # given an update that is under way, as on a GPU
    rounds = Rounds()
    for learner in rounds.learners:
        learner.engine.ahead = 1
    rounds.train(1)
    for learner in rounds.learners:
        with pytest.raises(AssertionError, match="under way"):
            learner.state()

    # when rank 0 has to save
    parts = rounds.parts(1)
    assert rounds.go(Turn(parts[0], saving=True), Turn(parts[1])) == [None, None]

    # then each has its whole state, and the batch of the other one is trained on later
    first, second = (learner.state()[1]["optimizer_steps"] for learner in rounds.learners)
    assert first == second == 1
    assert same(rounds.go(Turn(parts[0]), Turn()), parts)


@pytest.mark.parametrize("leaver", range(3))
def test_who_leaves_is_heard_by_all_in_the_same_round(leaver: int) -> None:
    # given
    rounds = Rounds(ranks=3)
    rounds.train(1)

    # when one leaves, though all have a batch
    turns = [*map(Turn, rounds.parts(1))]
    turns[leaver] = turns[leaver]._replace(leaving="interrupted")
    assert rounds.go(*turns) == [None] * 3

    # then
    assert {place.leaving for place in rounds.companies} == {"interrupted"}
    assert [learner.updates for learner in rounds.learners] == [1] * 3
    assert rounds.asked[leaver] == 1


def test_rank_0_takes_all_with_it_when_the_goal_is_reached() -> None:
    # given one that has a batch for the next update, and one that has none
    rounds = Rounds(ranks=3)
    batches = [None, rounds.parts(0)[1], None]

    # when
    def one(rank: int, learner: GroupLearner) -> str:
        place = rounds.companies[rank]
        if rank == 0:
            place.leave("solved")
        else:
            assert place.next_batch(lambda: batches[rank], "", saving=False) is None
        return place.leaving

    # then
    assert rounds.group.all_do(one) == ["solved"] * 3


def test_the_word_of_a_learner_that_dies_upon_it_ends_no_run() -> None:
    # given a rank that says it leaves, as one that torchrun ends with the others, and is killed
    rounds = Rounds(ranks=3)

    def one(rank: int, learner: GroupLearner) -> str:
        if rank == 2:
            place = rounds.group.places[rank]
            place.exchange(pack(Words("interrupted", None, False, 0.0, 0.0)))
            place.close()
            return "killed"
        try:
            rounds.companies[rank].next_batch(lambda: None, "", saving=False)
        except GroupLost:
            return "lost"
        return "ended"

    # then the others have lost it, which begins all anew
    assert rounds.group.all_do(one) == ["lost", "lost", "killed"]


def test_the_waits_of_all_add_up_over_the_rounds() -> None:
    # given a rank whose batches take a while
    rounds, batch_s = Rounds(), 0.05
    never = threading.Event()

    def one(rank: int, learner: GroupLearner) -> tuple[list[float], list[float]]:
        place = rounds.companies[rank]
        for _ in range(3):
            place.next_batch(lambda: never.wait(rank * batch_s) or None, "", saving=False)
        return place.waits()

    # when
    heard, also = rounds.group.all_do(one)

    # then all know for how long it had none, and for how long the other one stood by: as of the
    # words of the last round
    assert heard == also
    (_, waited_1_s), (stood_by_0_s, _) = heard
    assert waited_1_s >= 3 * batch_s
    assert stood_by_0_s >= batch_s


def test_a_rank_whose_weights_are_not_those_of_rank_0_ends_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given weights that are compared after every third update, and were the same
    monkeypatch.setattr(company, "CHECK_UPDATES", 3)
    rounds = Rounds(ranks=3)
    rounds.train(4)

    # when one rank's are changed
    with torch.no_grad():
        next(rounds.learners[1].engine.network.parameters()).flatten()[0] += np.float32(1e-6)
    rounds.train(2)

    # then all of them end before the next update, and know which one it was
    parts = rounds.parts(6)

    def one(rank: int, learner: GroupLearner) -> str:
        with pytest.raises(GroupApart) as apart:
            rounds.companies[rank].next_batch(lambda: parts[rank], "", saving=False)
        return str(apart.value)

    said = set(rounds.group.all_do(one))
    assert len(said) == 1
    assert "rank 1 does not hold the weights of rank 0 any more (found after 6" in said.pop()
