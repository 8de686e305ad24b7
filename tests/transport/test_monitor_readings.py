"""What two looks at a run come to: shares of the time between them, and whose figures count."""

from typing import Any

import pytest

from impala_redis.common.server.suitability import Eviction
from impala_redis.common.transport.diagnosis import Work
from impala_redis.common.transport.monitor import Reading
from impala_redis.common.transport.situation import (
    LEAST_GROWTH_BLOCKS,
    behind,
    figures_are_current,
    situation,
    summary,
    work_of,
)

BOOKS = dict.fromkeys(
    (
        "produced",
        "consumed",
        "dropped_oldest",
        "dead_lettered",
        "stale_rejected",
        "abandoned",
        "queued",
        "in_flight",
        "foreign",
    ),
    0,
)


def reading(
    at: float = 0.0,
    books: dict[str, Any] | None = None,
    learner: dict[str, Any] | None = None,
    figures: dict[str, float] | None = None,
    **changes: Any,
) -> Reading:
    """What a look at a run of one learner and one actor finds, with some things changed."""
    known = {"holder": "host:7#1", "epoch": 2, "weights_version": 10, "figures": figures or {}}
    return {
        "at": at,
        "books": BOOKS | {"generation": "g"} | (books or {}),
        "residual": 0,
        "learner": known | (learner or {}),
        "state": "running",
        "queue_blocks": 64,
        "actors": {"a": {}},
        "memory": None,
        **changes,
    }


@pytest.mark.parametrize(("counts", "evicted"), [((5, 12), 7), ((9, 2), 0), ((4, 4), 0)])
def test_keys_are_counted_that_were_evicted_between_two_looks(
    counts: tuple[int, int], evicted: int
) -> None:
    # given counters of a server, which begin anew when it is started again
    memory = {"used_bytes": 1, "maxmemory_bytes": 8, "share": 0.1, "policy": "allkeys-lru"}
    readings = [reading(at, memory=memory | {"evicted_keys": n}) for at, n in enumerate(counts)]

    # then
    assert situation(readings).eviction == Eviction("allkeys-lru", evicted)
    assert situation(readings[-1:]).eviction == Eviction("allkeys-lru", 0)


@pytest.mark.parametrize(("more", "share"), [(7, 0.0), (8, 0.08)])
def test_a_list_has_grown_from_eight_blocks_on(more: int, share: float) -> None:
    # given a list that was not empty
    readings = [
        reading(books={"queued": 3}),
        reading(1.0, books={"queued": 3 + more, "produced": 100, "consumed": 100 - more}),
    ]

    # when / then
    assert LEAST_GROWTH_BLOCKS == 8
    assert situation(readings).growth_share == share


def test_no_share_is_more_than_all() -> None:
    # given 10 blocks pushed, and more that were pushed before and are dealt with now
    now = {"produced": 10, "dropped_oldest": 30, "queued": 20, "stale_rejected": 12}
    readings = [
        reading(actors={"a": {"generated": "0", "shed_local": "0"}}),
        reading(
            1.0,
            books=now | {"dead_lettered": 11},
            actors={"a": {"generated": "5", "shed_local": "9"}},
        ),
    ]

    # when
    found = situation(readings)

    # then
    assert (found.dropped_share, found.growth_share) == (1.0, 1.0)
    assert (found.refused_share, found.shed_share) == (1.0, 1.0)


def test_without_a_block_pushed_nothing_is_divided_by_zero() -> None:
    found = situation([reading(), reading(1.0, books={"consumed": 1})])
    assert (found.dropped_share, found.growth_share, found.refused_share) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("before", "now", "share"),
    [
        ((100, 10), (200, 30), 0.2),
        ((100, 10), (200, 9), None),
        ((100, 10), (50, 10), None),
        ((100, 10), (100, 10), None),
    ],
    ids=["goes on", "sheds begun anew", "blocks begun anew", "stands still"],
)
def test_an_actor_that_has_begun_anew_tells_nothing(
    before: tuple[int, int], now: tuple[int, int], share: float | None
) -> None:
    readings = [
        reading(at, actors={"a": {"generated": str(generated), "shed_local": str(shed)}})
        for at, (generated, shed) in ((0.0, before), (1.0, now))
    ]
    assert situation(readings).shed_share == share


def test_a_learners_figures_are_averaged_over_the_readings() -> None:
    readings = [
        reading(at, books={"in_flight": 1}, figures={"wait_share": wait, "claim_share": claim})
        for at, wait, claim in ((0.0, 0.2, 0.5), (1.0, 0.6, 0.7))
    ]
    found = situation(readings)
    assert found.wait_share == pytest.approx(0.4)
    assert found.claim_share == pytest.approx(0.6)


# A learner on a GPU, of which each update is one graph of 2 ms after 0.5 ms for its batch.
ON_GPU = {"wait_share": 0.02, "device_busy_share": 0.3, "transfer_s": 0.0005}
ON_GPU |= {"updates_per_s": 120.0, "publish_share": 0.4, "device_memory_bytes": 1.3e9}


def test_what_a_learner_does_with_its_time_is_made_of_its_figures() -> None:
    readings = [reading(at, books={"in_flight": 1}, figures=ON_GPU) for at in (0.0, 1.0)]
    assert situation(readings).work == Work(0.3, pytest.approx(0.06), 0.4, on_gpu=True)
    assert summary(readings)["binds"] == {"name": "host", "share": pytest.approx(0.68)}


def test_a_learner_without_memory_of_a_gpu_computes_on_a_cpu() -> None:
    # given the figures of release 0.2, which say neither how often it updates nor what is held
    figures = {"wait_share": 0.02, "device_busy_share": 0.8}
    readings = [reading(at, books={"in_flight": 1}, figures=figures) for at in (0.0, 1.0)]

    # then
    assert situation(readings).work == Work(0.8)


def test_a_transfer_is_a_part_of_what_the_device_is_busy_with() -> None:
    figures = ON_GPU | {"transfer_s": 0.9, "updates_per_s": 9.0}
    work = work_of(figures.get)
    assert work is not None
    assert work.transfer_share == work.device_share == 0.3


def test_without_the_devices_share_nothing_is_said_of_a_learners_time() -> None:
    figures = {"wait_share": 0.1, "transfer_s": 0.1}
    readings = [reading(at, books={"in_flight": 1}, figures=figures) for at in (0.0, 1.0)]
    assert work_of(figures.get) is None
    assert summary(readings)["binds"] is None


def test_a_reading_in_which_the_learner_told_nothing_does_not_count() -> None:
    readings = [
        reading(books={"queued": 1}),
        reading(1.0, {"queued": 1}, None, {"wait_share": 0.6}),
    ]
    assert situation(readings).wait_share == 0.6


def test_figures_of_an_earlier_epoch_are_not_averaged_in() -> None:
    # given a learner that has been followed by another between two readings
    at_work = {"queued": 1}
    before = reading(0.0, at_work, {"epoch": 1}, {"wait_share": 0.9, "epoch": 1.0})
    now = reading(1.0, at_work, {"epoch": 2}, {"wait_share": 0.3, "epoch": 2.0})

    # when / then
    assert situation([before, now]).wait_share == 0.3


def test_figures_of_a_reading_without_a_learner_are_not_averaged_in() -> None:
    at_work = {"queued": 1}
    before = reading(0.0, at_work, {"holder": None}, {"wait_share": 0.9})
    now = reading(1.0, at_work, None, {"wait_share": 0.3})
    assert situation([before, now]).wait_share == 0.3


@pytest.mark.parametrize(
    ("books", "share"),
    [({}, 1.0), ({"in_flight": 1}, 0.1), ({"queued": 1}, 0.1), ({"consumed": 1}, 0.1)],
    ids=["nothing to do", "a block in its hands", "a block in the list", "trained on one"],
)
def test_a_learner_is_idle_only_when_there_is_no_block_anywhere(
    books: dict[str, int], share: float
) -> None:
    readings = [
        reading(figures={"wait_share": 0.1}),
        reading(1.0, books, None, {"wait_share": 0.1}),
    ]
    assert situation(readings).wait_share == share


@pytest.mark.parametrize(
    ("holder", "figures", "of_now"),
    [
        ("host:7#1", {"epoch": 2.0}, True),
        ("host:7#1", {}, True),
        ("host:7#1", {"epoch": 1.0}, False),
        (None, {"epoch": 2.0}, False),
        (None, {}, False),
    ],
)
def test_figures_are_of_now_while_their_learner_holds_the_run(
    holder: str | None, figures: dict[str, float], of_now: bool
) -> None:
    assert figures_are_current({"holder": holder, "epoch": 2, "figures": figures}) is of_now


def test_a_single_reading_tells_no_share_but_memorys() -> None:
    found = situation([reading(figures={"wait_share": 0.5}, memory={"share": 0.5})])
    assert (found.memory_share, found.actors, found.learner_present) == (0.5, 1, True)
    assert (found.wait_share, found.dropped_share, found.claim_share) == (None, None, None)


def test_rates_are_by_the_second_and_of_one_generation_only() -> None:
    # given
    first = reading(books={"produced": 10, "consumed": 5})
    last = reading(
        4.0, {"produced": 30, "consumed": 13, "dropped_oldest": 2}, {"weights_version": 12}
    )
    another = {"generation": "another"}

    # when / then
    status = summary([first, last])
    assert status["blocks_per_s"] == {"produced": 5.0, "consumed": 2.0, "dropped_oldest": 0.5}
    assert status["updates_per_s"] == 0.5
    assert "at" not in status
    begun_anew = summary([first, last | {"books": last["books"] | another}])
    assert not {"blocks_per_s", "updates_per_s"} & set(begun_anew)
    assert begun_anew["bottleneck"].startswith("not enough figures")


@pytest.mark.parametrize(
    ("before", "now", "share"),
    [
        ({"a": "10.0"}, {"a": "11.5"}, 0.75),
        ({"a": "10.0", "b": "0.0"}, {"a": "12.0", "b": "0.5", "new": "9.0"}, 0.625),
        ({"a": "10.0"}, {"a": "0.5"}, None),
        ({"a": "1.0"}, {"a": "99.0"}, 1.0),
        ({"a": "inf"}, {"a": "what"}, 0.0),
        ({}, {"a": "1.0"}, None),
    ],
    ids=["one", "several", "begun anew", "more than all", "no numbers", "new"],
)
def test_the_time_that_actors_wait_for_room_is_a_share_of_theirs(
    before: dict[str, str], now: dict[str, str], share: float | None
) -> None:
    readings = [
        reading(at, actors={name: {"waited_s": waited_s} for name, waited_s in actors.items()})
        for at, actors in ((0.0, before), (2.0, now))
    ]
    assert situation(readings).blocked_share == share


# A learner that is gone, or another one: no verdict rests on what it has left.

# An overloaded learner's figures, and what a killed one leaves behind: the list is full, and most
# blocks are dropped.
BUSY = {"wait_share": 0.02, "claim_share": 0.1, "frames": 1e6, "epoch": 2.0}
FULL = {"produced": 1000, "dropped_oldest": 900, "consumed": 36, "queued": 64}


def verdict(first: dict[str, Any] | None = None, **last: Any) -> str:
    """The verdict on a second in which most blocks were dropped; `last` is of the last reading."""
    figures, state = last.pop("figures", BUSY), last.pop("state", "running")
    readings = [
        reading(learner=first, figures=BUSY),
        reading(1.0, books=FULL, learner=last, figures=figures, state=state),
    ]
    return str(summary(readings)["bottleneck"])


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ({}, "learner-bound: actors are dropping 90 %"),
        ({"silent_s": 1.4, "figures_age_s": 61.0}, "learner-bound: actors are dropping 90 %"),
        ({"is_gone": True}, "the learner host:7 has ended without giving its lease back"),
        ({"silent_s": 5.2}, "no news of the learner host:7 for 5 s: it is stopped, cut off or"),
        ({"figures_age_s": 95.0}, "the learner host:7 has made no record for 95 s: it hangs"),
        ({"holder": None}, "no learner holds the run"),
        ({"is_gone": True, "state": "finished"}, "the run is finished"),
        ({"holder": None, "state": "finished"}, "the run is finished"),
        # another one has taken the run, and has made no figures yet, or those of its own
        ({"epoch": 3}, "not enough figures yet"),
        ({"epoch": 3, "figures": BUSY | {"epoch": 3.0}}, "not enough figures yet"),
    ],
)
def test_a_verdict_rests_on_a_learner_that_is_at_work(last: dict[str, Any], words: str) -> None:
    assert verdict(**last).startswith(words)


def test_a_learner_that_is_only_starting_is_not_said_to_wait_for_actors() -> None:
    readings = [reading(at) for at in (0.0, 1.0)]
    assert summary(readings)["bottleneck"].startswith("not enough figures yet")


def test_figures_of_a_learner_that_is_lost_are_its_last_ones() -> None:
    for sign in ({"is_gone": True}, {"silent_s": 4.0}, {"figures_age_s": 90.0}):
        assert not figures_are_current(reading(learner=sign, figures=BUSY)["learner"])
    assert figures_are_current(reading(learner={"silent_s": 3.9}, figures=BUSY)["learner"])


@pytest.mark.parametrize(
    ("actor", "versions"),
    [
        # what an actor knew when it gave its figures, whatever was published since
        ({"weights_version": "98", "published_version": "100"}, 2),
        ({"weights_version": "100", "published_version": "100"}, 0),
        # an actor of 0.1, and one that says nothing
        ({"weights_version": "98"}, 402),
        ({}, 500),
    ],
)
def test_an_actor_is_behind_what_was_published_at_its_own_time(
    actor: dict[str, str], versions: int
) -> None:
    assert behind(actor, 500) == versions
