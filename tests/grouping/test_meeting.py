"""What learners say in a round: it arrives exactly, and all conclude the same from it."""

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_redis.common.errors import GroupApart
from impala_redis.common.grouping.meeting import EndedElsewhere, Round, Words, pack, unpack
from impala_redis.common.learning.updates import Share
from impala_redis.common.normalizing.moments import Sample
from impala_redis.common.records.window import Played

NOTHING = Words(leaving="", share=None, saving=False, waited_s=0.0, stood_by_s=0.0)
READY = NOTHING._replace(share=Share(64, []))
LEAST, MOST = -(2**63), 2**63 - 1

int64 = st.integers(LEAST, MOST)
episodes = st.lists(st.builds(EndedElsewhere, int64, st.floats(), int64), max_size=3)
blocks = st.builds(
    Played,
    actor=st.tuples(st.text(), st.integers(0, 2**64)),
    num_envs=int64,
    first=st.booleans(),
    episodes=episodes,
    left_out=st.lists(int64, max_size=3),
    tasks=st.lists(st.integers(0, 127), max_size=3),
)
rows = st.lists(st.tuples(st.floats(), st.floats()), max_size=4).map(
    lambda pairs: np.array(pairs, np.float64).reshape(-1, 2).T
)
samples = st.builds(lambda count, both: Sample(count, both[0], both[1]), int64, rows)
shares = st.builds(
    Share,
    int64,
    st.lists(blocks, max_size=3),
    st.lists(samples).map(tuple),
    st.lists(int64, max_size=3).map(tuple),
)
all_words = st.builds(
    Words,
    leaving=st.sampled_from(["", "interrupted", "solved", "finished"]),
    share=st.none() | shares,
    saving=st.booleans(),
    waited_s=st.floats(),
    stood_by_s=st.floats(),
    check=st.none() | st.tuples(int64, st.integers(0, 2**32)),
)


def to_the_bit(value: Any) -> Any:
    """The same in a form in which equal means equal bits, so that -0.0 is not 0.0."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else struct.pack("<d", value)
    if isinstance(value, np.ndarray):
        return [value.dtype, *map(to_the_bit, value.tolist())]
    if isinstance(value, list | tuple):
        return [type(value).__name__ if hasattr(value, "_fields") else "", *map(to_the_bit, value)]
    return (type(value), value)


@given(all_words)
@settings(deadline=None, max_examples=40)
def test_what_one_learner_says_all_hear_to_the_bit(words: Words) -> None:
    assert to_the_bit(unpack(pack(words))) == to_the_bit(words)


def test_odd_numbers_and_names_arrive() -> None:
    # given what a drawn example may leave out
    odd = [-0.0, math.inf, -math.inf, float(2**52), 5e-324, 0.1]
    ended = [EndedElsewhere(n, number, 2**31) for n, number in enumerate(odd)]
    block = Played(("a\nb\x00\ud800\U0001f600", 7), 6, True, ended, [3], [0, 1])
    seen = (Sample(3, np.array(odd), np.array(odd) ** 2), Sample(0, np.zeros(0), np.zeros(0)))
    words = NOTHING._replace(share=Share(2**53 + 1, [block, Played(("", 0), 1, False, [])], seen))

    # then a block without episodes too, and a figure without numbers
    told = unpack(pack(words))
    assert told.share is not None
    assert told.share.frames == 2**53 + 1
    assert [played.actor for played in told.share.blocks] == [block.actor, ("", 0)]
    returns = [episode.episode_return for episode in told.share.blocks[0].episodes]
    assert np.array(returns).tobytes() == np.array(odd).tobytes()
    assert told.share.blocks[1].episodes == []
    assert [sample.mean.tobytes() for sample in told.share.seen] == [np.array(odd).tobytes(), b""]


@given(st.binary(max_size=64) | all_words.map(pack).map(lambda packed: packed[:-1]))
@settings(deadline=None, max_examples=40)
def test_what_are_no_words_is_refused_in_a_sentence(garbage: bytes) -> None:
    with pytest.raises(GroupApart, match="install the same version"):
        unpack(garbage)


def test_an_update_is_made_when_all_have_a_batch() -> None:
    meeting = Round([READY, READY._replace(share=Share(32, [])), READY])
    assert meeting.shares is not None
    assert [share.frames for share in meeting.shares] == [64, 32, 64]
    assert (meeting.leaving, meeting.saving) == ("", False)


@pytest.mark.parametrize(
    ("other", "leaving", "saving"),
    [
        (NOTHING, "", False),
        (READY._replace(leaving="interrupted"), "interrupted", False),
        (READY._replace(saving=True), "", True),
    ],
    ids=["no batch", "leaves", "saves"],
)
def test_a_round_is_idle_when_one_of_all_is_not_ready(
    other: Words, leaving: str, saving: bool
) -> None:
    meeting = Round([READY, other])
    assert (meeting.shares, meeting.leaving, meeting.saving) == (None, leaving, saving)


def test_of_several_reasons_to_leave_that_of_the_first_rank_counts() -> None:
    solved, interrupted = (READY._replace(leaving=why) for why in ("solved", "interrupted"))
    assert Round([READY, solved, interrupted]).leaving == "solved"


def test_a_rank_with_other_weights_is_named() -> None:
    # given
    alike = [NOTHING._replace(check=(1000, 123))] * 2
    Round(alike).check_alike()
    Round([NOTHING] * 3).check_alike()

    # then
    for other in ((1000, 124), (999, 123), None):
        with pytest.raises(GroupApart, match="rank 2 does not hold the weights of rank 0"):
            Round([*alike, NOTHING._replace(check=other)]).check_alike()
