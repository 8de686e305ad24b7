"""The ledger of claimed blocks: settled in the order of their claim, each exactly once."""

from collections import Counter
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_redis.common.transport.ledger import Claimed, Dead, Ledger, Settled

Outcome = Literal["consumed", "stale"] | Dead


def dead(number: int) -> Dead:
    return Dead("malformed", f"message {number}", b"message")


def claims(ledger: Ledger, count: int) -> list[Claimed]:
    return [ledger.claim() for _ in range(count)]


def test_nothing_is_settled_before_its_end_is_known() -> None:
    # given
    ledger = Ledger()
    claims(ledger, 3)

    # when / then
    assert ledger.settle() == Settled(0, 0, ())
    assert len(ledger.settle()) == 0


def test_a_block_that_ended_early_waits_for_those_claimed_before_it() -> None:
    # given
    ledger = Ledger()
    first, second, third = claims(ledger, 3)

    # when / then
    third.outcome = "consumed"
    second.outcome = "stale"
    assert ledger.settle() == Settled(0, 0, ())
    first.outcome = "consumed"
    assert ledger.settle() == Settled(2, 1, ())


def test_only_the_oldest_whose_end_is_known_are_settled() -> None:
    # given
    ledger = Ledger()
    blocks = claims(ledger, 4)

    # when
    for index in (0, 1, 3):
        blocks[index].outcome = "consumed"

    # then
    assert ledger.settle() == Settled(2, 0, ())
    blocks[2].outcome = "stale"
    assert ledger.settle() == Settled(1, 1, ())


def test_a_block_is_settled_once() -> None:
    # given
    ledger = Ledger()
    ledger.claim().outcome = "consumed"

    # when / then
    assert len(ledger.settle()) == 1
    assert len(ledger.settle()) == 0


@pytest.mark.parametrize(
    ("outcome", "settled"),
    [
        ("consumed", Settled(consumed=1)),
        ("stale", Settled(stale=1)),
        (dead(1), Settled(dead=(dead(1),))),
    ],
)
def test_each_end_is_counted_as_its_own(outcome: Outcome, settled: Settled) -> None:
    # given
    ledger = Ledger()

    # when
    ledger.claim().outcome = outcome

    # then
    assert ledger.settle() == settled
    assert len(settled) == 1


def test_refused_blocks_keep_their_order_and_their_evidence() -> None:
    # given
    ledger = Ledger()
    blocks = claims(ledger, 3)

    # when
    for number in (2, 0, 1):
        blocks[number].outcome = dead(number)

    # then
    assert ledger.settle().dead == (dead(0), dead(1), dead(2))


def test_what_is_forgotten_is_never_settled() -> None:
    # given
    ledger = Ledger()
    before = claims(ledger, 2)
    before[0].outcome = "consumed"

    # when
    ledger.forget()
    before[1].outcome = "consumed"  # the batch it is in is still trained on
    ledger.claim().outcome = "stale"

    # then
    assert ledger.settle() == Settled(0, 1, ())


_outcomes = st.sampled_from(["consumed", "stale"]) | st.integers(0, 9).map(dead)
# Claim one more, end the n-th still open one somehow, or settle.
_events = st.lists(
    st.just("claim") | st.just("settle") | st.tuples(st.integers(0, 20), _outcomes), max_size=60
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(_events)
def test_whatever_ends_when_every_block_is_settled_once_and_in_order(
    events: list[str | tuple[int, Outcome]],
) -> None:
    # given
    ledger = Ledger()
    blocks: list[Claimed] = []
    settled: list[Settled] = []

    # when
    for event in events:
        still_open = [block for block in blocks if block.outcome is None]
        if event == "claim":
            blocks.append(ledger.claim())
        elif event == "settle":
            settled.append(ledger.settle())
        elif still_open and isinstance(event, tuple):
            still_open[event[0] % len(still_open)].outcome = event[1]
    settled.append(ledger.settle())

    # then: exactly the blocks before the first open one, each in its counter
    outcomes = [block.outcome for block in blocks]
    ended = outcomes[: outcomes.index(None)] if None in outcomes else outcomes
    found = Counter({"consumed": 0, "stale": 0})
    for part in settled:
        found["consumed"] += part.consumed
        found["stale"] += part.stale
    assert found["consumed"] == ended.count("consumed")
    assert found["stale"] == ended.count("stale")
    assert [d for part in settled for d in part.dead] == [d for d in ended if isinstance(d, Dead)]
    assert sum(map(len, settled)) == len(ended)
