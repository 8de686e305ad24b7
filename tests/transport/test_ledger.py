"""The ledger of blocks in flight: trained on in the order of their claim, the rest at once."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from impala_redis.common.transport.ledger import (
    DEAD_RECORDS,
    REASONS,
    Claimed,
    Dead,
    Ledger,
    Settled,
)
from support import ROOT


def dead(number: int, reason: str = "malformed") -> Dead:
    return Dead(reason, f"message {number}", b"message")


def claims(ledger: Ledger, count: int) -> list[Claimed]:
    return [ledger.claim() for _ in range(count)]


def test_every_reason_for_which_a_block_is_refused_is_listed() -> None:
    # given the reasons that are written in the code
    files = [*(ROOT / "common").rglob("*.py")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    written = set(re.findall(r'MessageRefused\(\s*"(\w+)"', text))

    # then impala-status knows the counter of each
    assert written
    assert written <= set(REASONS)


def test_nothing_is_settled_before_its_end_is_known() -> None:
    # given
    ledger = Ledger()
    claims(ledger, 3)

    # when / then
    assert ledger.settle() == Settled(0, 0, ())
    assert len(ledger.settle()) == 0


def test_a_block_that_was_trained_on_early_waits_for_those_claimed_before_it() -> None:
    # given
    ledger = Ledger()
    first, second, third = claims(ledger, 3)

    # when / then
    third.outcome = "consumed"
    second.outcome = "consumed"
    assert ledger.settle() == Settled(0, 0, ())
    first.outcome = "consumed"
    assert ledger.settle() == Settled(3, 0, ())


def test_only_the_oldest_whose_end_is_known_are_settled() -> None:
    # given
    ledger = Ledger()
    blocks = claims(ledger, 4)

    # when
    for index in (0, 1, 3):
        blocks[index].outcome = "consumed"

    # then
    assert ledger.settle() == Settled(2, 0, ())
    blocks[2].outcome = "consumed"
    assert ledger.settle() == Settled(2, 0, ())


def test_what_is_not_trained_on_waits_for_nothing() -> None:
    # given a block whose batch is not full
    ledger = Ledger()
    ledger.claim()

    # when others come that no batch takes
    ledger.note_stale()
    ledger.refuse(dead(1))

    # then
    assert ledger.settle() == Settled(0, 1, (dead(1),))


def test_a_block_is_settled_once() -> None:
    # given one of each end
    ledger = Ledger()
    ledger.claim().outcome = "consumed"
    ledger.note_stale()
    ledger.refuse(dead(1))

    # when / then
    assert len(ledger.settle()) == 3
    assert len(ledger.settle()) == 0


def test_of_many_refused_blocks_all_are_counted_and_the_last_keep_their_evidence() -> None:
    # given more than are kept, of two reasons
    ledger = Ledger()
    for number in range(DEAD_RECORDS + 30):
        ledger.refuse(dead(number, "range" if number < 10 else "spec"))

    # when
    settled = ledger.settle()

    # then
    assert settled.dead == tuple(dead(n, "spec") for n in range(30, DEAD_RECORDS + 30))
    assert settled.refused_before == {"range": 10, "spec": 20}
    assert settled.refused() == {"range": 10, "spec": DEAD_RECORDS + 20}
    assert len(settled) == DEAD_RECORDS + 30


@pytest.mark.parametrize("settled_before", [False, True])
def test_what_is_forgotten_is_never_settled(settled_before: bool) -> None:
    # given
    ledger = Ledger()
    before = claims(ledger, 2)
    before[0].outcome = "consumed"
    if settled_before:
        ledger.settle()
    ledger.refuse(dead(1))
    ledger.note_stale()

    # when
    ledger.forget()
    before[1].outcome = "consumed"  # the batch it is in is still trained on
    ledger.note_stale()

    # then
    assert ledger.settle() == Settled(0, 1, ())


# Claim one more, train on the n-th still open one, refuse one, leave one as too old, or settle.
_events = st.lists(
    st.sampled_from(["claim", "settle", "refuse", "stale"]) | st.integers(0, 20), max_size=60
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(_events)
def test_whatever_ends_when_every_block_is_settled_once_and_in_order(
    events: list[str | int],
) -> None:
    # given
    ledger = Ledger()
    blocks: list[Claimed] = []
    settled: list[Settled] = []

    # when
    for number, event in enumerate(events):
        still_open = [block for block in blocks if block.outcome is None]
        if event == "claim":
            blocks.append(ledger.claim())
        elif event == "settle":
            settled.append(ledger.settle())
        elif event == "refuse":
            ledger.refuse(dead(number))
        elif event == "stale":
            ledger.note_stale()
        elif still_open and isinstance(event, int):
            still_open[event % len(still_open)].outcome = "consumed"
    settled.append(ledger.settle())

    # then: exactly the blocks before the first open one, and all the others
    outcomes = [block.outcome for block in blocks]
    ended = outcomes[: outcomes.index(None)] if None in outcomes else outcomes
    assert sum(part.consumed for part in settled) == len(ended)
    assert sum(part.stale for part in settled) == events.count("stale")
    refused = [dead(number) for number, event in enumerate(events) if event == "refuse"]
    assert [one for part in settled for one in part.dead] == refused
    assert sum(map(len, settled)) == len(ended) + events.count("stale") + len(refused)
