"""The sentence that says what holds a run up: each of its branches, and both sides of its lines."""

from dataclasses import fields, replace
from itertools import islice, product
from typing import Any

import pytest

from impala_redis.common.server.suitability import Eviction
from impala_redis.common.transport.diagnosis import (
    INTAKE_IS_SLOW,
    LEARNER_WAITS,
    MEMORY_IS_FULL,
    MEMORY_IS_SHORT,
    NOT_ENOUGH_FIGURES,
    PUBLISHER_IS_BUSY,
    REPLIES_ARE_SLOW,
    STAGES,
    TOO_LONG_BLOCKED,
    TOO_MANY_DROPPED,
    TOO_MANY_REFUSED,
    TOO_MANY_SHED,
    Situation,
    Stage,
    Work,
    binding_stage,
    bottleneck,
)

# Both sides keep up, and every figure is known.
BALANCED = Situation(
    learner_present=True,
    finished=False,
    actors=4,
    wait_share=0.1,
    dropped_share=0.01,
    growth_share=0.0,
    refused_share=0.0,
    shed_share=0.0,
    blocked_share=0.0,
    claim_share=0.1,
    memory_share=0.02,
)
LITTLE = 1e-6


# A GPU that computes for 30 % of the time, and one that has no pause.
IDLE_GPU = Work(0.3, 0.05, 0.2, on_gpu=True)
BUSY_GPU = Work(0.95, 0.05, 0.2, on_gpu=True)
BUSY_CPU = Work(0.85, 0.05, 0.2)


def verdict(**changes: Any) -> str:
    return bottleneck(replace(BALANCED, **changes))


def binds(**changes: Any) -> Stage | None:
    return binding_stage(replace(BALANCED, **changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "balanced: the learner waits 10 % and actors are dropping 1 %; to go faster, give both "
            "sides more",
        ),
        (
            {"dropped_share": 0.38},
            "learner-bound: actors are dropping 38 %; use a GPU, or fewer actors",
        ),
        (
            {"growth_share": 0.38},
            "learner-bound: the list grows by 38 % of what actors push; use a GPU, or fewer actors",
        ),
        (
            {"shed_share": 0.38},
            "learner-bound: actors shed 38 % themselves; use a GPU, or fewer actors",
        ),
        (
            {"blocked_share": 0.38},
            "learner-bound: actors wait 38 % for room in the list; use a GPU, or fewer actors",
        ),
        (
            {"dropped_share": 0.38, "work": BUSY_CPU},
            "learner-bound: actors are dropping 38 %; use a GPU, or fewer actors",
        ),
        (
            {"dropped_share": 0.38, "work": Work(0.3)},
            "learner-bound: actors are dropping 38 %; take a larger --batch-size, or fewer actors",
        ),
        (
            {"dropped_share": 0.38, "work": BUSY_GPU},
            "learner-bound: actors are dropping 38 %; try --precision tf32 or bfloat16, or a "
            "smaller network, or fewer actors",
        ),
        (
            {"wait_share": 0.02, "work": IDLE_GPU},
            "host-bound: the learner waits 2 % and its device is busy 30 %; take a larger "
            "--batch-size",
        ),
        (
            {"wait_share": 0.02, "work": BUSY_GPU},
            "device-bound: the learner waits 2 % and its device is busy 95 %; try --precision tf32 "
            "or bfloat16, or a smaller network",
        ),
        (
            {"wait_share": 0.02, "work": IDLE_GPU._replace(publish_share=1.0)},
            "publisher-bound: the learner waits 2 % and its device is busy 30 %; give "
            "--publish-interval-s or --weights-dtype bfloat16",
        ),
        (
            {"wait_share": 0.02, "work": BUSY_GPU._replace(transfer_share=0.6)},
            "transfer-bound: the learner waits 2 % and its device is busy 95 %; take observations "
            "of fewer bytes, or look for pinned memory in the learner's log",
        ),
        (
            {"wait_share": 0.62, "work": IDLE_GPU},
            "actor-bound: the learner waits 62 %; add actors or environments, or let one act on a "
            "GPU: impala-actor --device cuda",
        ),
        (
            {"work": BUSY_CPU},
            "balanced: the learner waits 10 % and actors are dropping 1 %; to go faster, give both "
            "sides more",
        ),
        (
            {"wait_share": 0.62, "blocked_share": 0.38},
            "intake-bound: the learner waits 62 % while actors wait 38 % for room in the list; "
            "give it a free processor, or larger blocks with --envs-per-actor",
        ),
        (
            {"wait_share": 0.62},
            "actor-bound: the learner waits 62 %; add actors or environments",
        ),
        (
            {"wait_share": 0.62, "shed_share": 0.3},
            "link-bound: actors shed 30 % themselves, the way to Redis is too slow; use a faster "
            "network or, on one machine, free a processor",
        ),
        (
            {"wait_share": 0.62, "dropped_share": 0.38, "claim_share": 0.9},
            "link-bound: the learner waits 62 % while the list is full, and its intake waits 90 % "
            "for Redis; use a faster network or a nearer server",
        ),
        (
            {"wait_share": 0.62, "dropped_share": 0.38},
            "intake-bound: the learner waits 62 % while actors are dropping 38 %; give it a free "
            "processor, or larger blocks with --envs-per-actor",
        ),
        (
            {"wait_share": 0.62, "refused_share": 0.4},
            "the learner waits 62 % and refuses 40 % of the blocks; raise --max-policy-lag if they "
            "are too old, else look at the environment's numbers and stop the actors that do not "
            "fit",
        ),
        (
            {"memory_share": 0.8},
            "the server is at 80 % of its memory; raise its maxmemory or take other data off it: "
            "once full, it refuses blocks and weights",
        ),
        (
            {"learner_present": False},
            "no learner holds the run: start one with impala-learner, with --resume to go on",
        ),
        (
            {"learner_lost": "the learner host:7 has ended", "dropped_share": 0.9},
            "the learner host:7 has ended; to go on, start one with impala-learner --resume",
        ),
        ({"actors": 0}, "no actors: start some with impala-actor"),
        (
            {"eviction": Eviction("allkeys-lru", 4365), "actors": 0, "memory_share": 0.99},
            "the server has just evicted 4,365 keys (maxmemory-policy allkeys-lru), and the run's "
            "may be among them; set maxmemory-policy noeviction, and give the server more memory",
        ),
        (
            {"eviction": Eviction("allkeys-lru", 0), "memory_share": 0.99},
            "the server is at 99 % of its memory; raise its maxmemory or take other data off it: "
            "once full, it evicts keys",
        ),
        (
            {"eviction": Eviction("volatile-ttl", 7), "memory_share": 0.99},
            "the server is at 99 % of its memory; raise its maxmemory or take other data off it: "
            "once full, it refuses blocks and weights",
        ),
        (
            {"eviction": Eviction("volatile-ttl", 7), "actors": 0},
            "no actors: start some with impala-actor",
        ),
        (
            {"finished": True, "learner_present": False},
            "the run is finished: nothing holds it up; impala-eval shows how well it plays",
        ),
    ],
)
def test_each_situation_has_its_sentence(changes: dict[str, Any], sentence: str) -> None:
    assert verdict(**changes) == sentence


@pytest.mark.parametrize(
    ("name", "threshold", "around", "beginning"),
    [
        ("wait_share", LEARNER_WAITS, {}, "actor-bound"),
        ("dropped_share", TOO_MANY_DROPPED, {}, "learner-bound: actors are dropping"),
        ("growth_share", TOO_MANY_DROPPED, {}, "learner-bound: the list grows"),
        ("shed_share", TOO_MANY_SHED, {}, "learner-bound: actors shed"),
        ("blocked_share", TOO_LONG_BLOCKED, {}, "learner-bound: actors wait"),
        ("shed_share", TOO_MANY_SHED, {"wait_share": 0.5}, "link-bound: actors shed"),
        ("refused_share", TOO_MANY_REFUSED, {"wait_share": 0.5}, "the learner waits 50 % and re"),
        ("wait_share", INTAKE_IS_SLOW, {"dropped_share": 0.3}, "intake-bound"),
        ("dropped_share", TOO_MANY_DROPPED, {"wait_share": 0.6}, "intake-bound"),
        (
            "claim_share",
            REPLIES_ARE_SLOW,
            {"dropped_share": 0.3, "wait_share": 0.6},
            "link-bound: the learner waits",
        ),
        ("memory_share", MEMORY_IS_SHORT, {}, "the server is at"),
        ("memory_share", MEMORY_IS_FULL, {"learner_present": False}, "the server is at"),
    ],
)
def test_a_sentence_comes_at_its_threshold_and_not_below(
    name: str, threshold: float, around: dict[str, Any], beginning: str
) -> None:
    assert verdict(**around, **{name: threshold}).startswith(beginning)
    assert not verdict(**around, **{name: threshold - LITTLE}).startswith(beginning)


def test_a_learner_that_waits_less_than_half_is_not_to_blame_for_its_intake() -> None:
    assert verdict(wait_share=0.4, dropped_share=0.3).startswith("learner-bound")


def test_memory_is_short_at_80_percent_and_full_at_97() -> None:
    assert (MEMORY_IS_SHORT, MEMORY_IS_FULL) == (0.8, 0.97)


def test_of_several_troubles_the_gravest_is_told() -> None:
    # given all of them at once, mended one after the other
    troubles: dict[str, Any] = {
        "memory_share": 0.99,
        "learner_present": False,
        "actors": 0,
        "wait_share": 0.7,
        "refused_share": 0.5,
        "shed_share": 0.5,
    }
    verdicts = []
    for mended in ({}, {"memory_share": 0.9}, {"learner_present": True}, {"actors": 1}):
        troubles |= mended
        verdicts.append(verdict(**troubles))
    for mended in ({"memory_share": 0.1}, {"refused_share": 0.0}, {"shed_share": 0.0}):
        troubles |= mended
        verdicts.append(verdict(**troubles))

    # then what stops the run comes before what slows it
    assert [sentence.split(":")[0].split(" and ")[0][:28] for sentence in verdicts] == [
        "the server is at 99 % of its",
        "no learner holds the run",
        "no actors",
        "the server is at 90 % of its",
        "the learner waits 70 %",
        "link-bound",
        "actor-bound",
    ]


def test_a_run_that_is_taken_up_again_is_not_finished() -> None:
    assert verdict(finished=True).startswith("balanced")


def test_without_figures_nothing_is_claimed() -> None:
    assert bottleneck(Situation()) == NOT_ENOUGH_FIGURES
    assert verdict(wait_share=None) == NOT_ENOUGH_FIGURES
    assert verdict(dropped_share=None) == NOT_ENOUGH_FIGURES


def test_what_little_is_known_is_told() -> None:
    assert bottleneck(Situation(learner_present=False)).startswith("no learner")
    assert bottleneck(Situation(actors=0)).startswith("no actors")
    assert bottleneck(Situation(memory_share=0.9)).startswith("the server is at 90 %")
    assert bottleneck(Situation(wait_share=0.6, dropped_share=0.0)).startswith("actor-bound")


def test_whatever_is_known_makes_one_sentence_on_one_line() -> None:
    # given every mixture of unknown, low and high
    values: dict[str, tuple[Any, ...]] = {
        field.name: (None, 0.0, 1.0) for field in fields(Situation)
    }
    values |= {"learner_present": (None, False, True), "finished": (None, False, True)}
    values |= {"actors": (None, 0, 3), "claim_share": (None, 1.0), "blocked_share": (None, 1.0)}
    values["work"] = (BUSY_GPU,)
    values["eviction"] = (None, Eviction("allkeys-lru", 0), Eviction("allkeys-lru", 9))
    values["learner_lost"] = (None, "no news of the learner host:7 for 9 s")

    # when / then
    # (one of seven, which meets every value of every figure beside every other)
    for mixture in islice(product(*values.values()), 0, None, 7):
        sentence = bottleneck(Situation(**dict(zip(values, mixture, strict=True))))
        assert sentence.isprintable()
        assert "None" not in sentence
        assert not sentence.endswith(".")
        assert ". " not in sentence


# The stage that binds.


@pytest.mark.parametrize(
    ("changes", "name", "share"),
    [
        ({"wait_share": 0.62}, "actors", 0.62),
        ({"wait_share": 0.62, "refused_share": 0.4}, "actors", 0.62),
        ({"wait_share": 0.62, "shed_share": 0.3}, "link", 0.62),
        ({"wait_share": 0.62, "dropped_share": 0.4, "claim_share": 0.9}, "link", 0.62),
        ({"wait_share": 0.62, "dropped_share": 0.4}, "feeder", 0.62),
        ({"wait_share": 0.62, "blocked_share": 0.4}, "feeder", 0.62),
        ({"wait_share": 0.0, "work": Work(0.9, 0.5)}, "transfer", 0.5),
        ({"wait_share": 0.0, "work": Work(0.9, 0.2)}, "device", 0.7),
        ({"wait_share": 0.05, "work": Work(0.3, 0.1)}, "host", 0.65),
        ({"wait_share": 0.05, "work": Work(0.3, 0.1, 0.95)}, "publisher", 0.65),
        ({"wait_share": 0.05, "work": Work(0.9, 0.1, 0.95)}, "device", 0.8),
    ],
)
def test_the_stage_that_binds_is_the_one_waited_for_or_the_learners_longest(
    changes: dict[str, Any], name: str, share: float
) -> None:
    # given a learner that waits while nothing, or something, piles up; or one that does not wait
    found = binds(**({"work": BUSY_GPU} | changes))

    # then
    assert found is not None
    assert (found.name, found.share) == (name, pytest.approx(share))


def test_a_stage_comes_at_its_threshold_and_not_below() -> None:
    def name(**changes: Any) -> str:
        found = binds(**({"work": IDLE_GPU} | changes))
        assert found is not None
        return found.name

    assert name(wait_share=LEARNER_WAITS) == "actors"
    assert name(wait_share=LEARNER_WAITS - LITTLE) == "host"
    assert name(wait_share=INTAKE_IS_SLOW, dropped_share=0.3) == "feeder"
    assert name(wait_share=INTAKE_IS_SLOW - LITTLE, dropped_share=0.3) != "feeder"
    busy = IDLE_GPU._replace(publish_share=PUBLISHER_IS_BUSY)
    assert name(work=busy) == "publisher"
    assert name(work=busy._replace(publish_share=PUBLISHER_IS_BUSY - LITTLE)) == "host"


def test_a_wait_that_goes_on_while_the_device_computes_leaves_no_share_below_zero() -> None:
    # given a GPU that computes one update while the learner already waits for the next batch
    found = binds(wait_share=0.2, work=Work(0.95, 0.0, on_gpu=True))

    # then
    assert found == Stage("device", 0.95)


def test_no_stage_is_claimed_without_figures() -> None:
    assert binding_stage(Situation()) is None
    assert binds(wait_share=None, work=BUSY_GPU) is None
    assert binds(dropped_share=None, work=BUSY_GPU) is None
    assert binds(work=None) is None


def test_verdict_and_stage_never_speak_of_different_sides() -> None:
    # given every mixture of waits and pile-ups
    sides = {"actor": {"actors"}, "link": {"link"}, "intake": {"feeder"}}
    learners = {"transfer", "device", "host", "publisher"}
    for wait, dropped, blocked, claim, shed, work in product(
        (0.0, 0.3, 0.9), (0.0, 0.3), (None, 0.3), (0.1, 0.9), (0.0, 0.3), (IDLE_GPU, BUSY_CPU)
    ):
        known = {"wait_share": wait, "dropped_share": dropped, "blocked_share": blocked}
        known |= {"claim_share": claim, "shed_share": shed, "work": work}

        # when
        said, found = verdict(**known), binds(**known)

        # then
        assert found is not None
        assert found.name in sides.get(said.partition("-bound")[0], learners), said


def test_each_stage_has_a_meaning_and_a_remedy_on_either_device() -> None:
    for name, remedy in STAGES.items():
        assert name.isalpha()
        for words in remedy:
            assert words.isprintable()
            assert not words.endswith(".")
