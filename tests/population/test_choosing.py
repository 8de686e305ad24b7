"""Whom a member copies, and with which settings it goes on."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from impala_redis.common.errors import MessageRefused
from impala_redis.common.population.choosing import exploit, explore, rivals
from impala_redis.common.population.member import Member, fresh_s, read_member

NOW_S = 1e9
MINE = Member(
    *("mine", NOW_S, 60.0, 100.0, "return", 5_000, 10, "abc123"),
    values={"learning_rate": 1e-3, "entropy_cost": 0.0},
)


def other(fitness: float | None, **changes: Any) -> Member:
    return replace(MINE, **{"name": "other", "fitness": fitness, **changes})


def test_one_other_is_chosen_at_random_whatever_it_has_reached() -> None:
    # given one that is better and three that are not
    rng = np.random.default_rng(0)
    others = [other(200.0), other(50.0), other(100.0), other(104.0)]

    # when a member compares itself again and again
    chosen = [exploit(MINE, others, rng) for _ in range(4000)]

    # then it copies in a quarter of all cases, and nobody but the better one
    assert {one.fitness for one in chosen if one} == {200.0}
    assert sum(one is not None for one in chosen) == pytest.approx(1000, abs=100)


@pytest.mark.parametrize(
    ("measure", "mine", "theirs", "copied"),
    [
        ("score", 0.10, 0.16, True),  # 5 points of 100, wherever they stand
        ("score", 0.90, 0.94, False),
        ("return", 400.0, 430.0, True),  # 5 % of the larger one
        ("return", 400.0, 419.0, False),
        ("return", -21.0, -19.0, True),
        ("return", -19.0, -21.0, False),
        ("return", 0.0, 0.0, False),
    ],
)
def test_another_is_copied_if_it_is_better_by_more_than_the_threshold(
    measure: Any, mine: float, theirs: float, copied: bool
) -> None:
    rng = np.random.default_rng(0)
    found = exploit(
        replace(MINE, measure=measure, fitness=mine), [other(theirs, measure=measure)], rng
    )
    assert (found is not None) == copied


def test_nobody_is_copied_where_there_is_nobody() -> None:
    assert exploit(MINE, [], np.random.default_rng(0)) is None


def test_a_third_of_the_settings_grows_and_a_third_shrinks_by_a_fifth() -> None:
    # given
    rng, values = np.random.default_rng(0), {"a": 1.0, "b": 0.0}

    # when
    drawn = [explore(values, rng) for _ in range(9000)]

    # then
    counts = {factor: sum(one["a"] == factor for one in drawn) for factor in (1.2, 1 / 1.2, 1.0)}
    assert sum(counts.values()) == 9000
    assert counts[1.2] == pytest.approx(0.33 * 9000, abs=200)
    assert counts[1 / 1.2] == pytest.approx(0.33 * 9000, abs=200)
    assert {one["b"] for one in drawn} == {0.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "mine"},
        {"fitness": None},
        {"fingerprint": "def"},
        {"measure": "score"},
        {"values": {"learning_rate": 1e-3}},
        {"unix_s": NOW_S - 61.0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_member_is_compared_with_none_that_it_could_not_go_on_from(
    changes: dict[str, Any],
) -> None:
    assert rivals(MINE, [other(200.0)], NOW_S) != []
    assert rivals(MINE, [other(**{"fitness": 200.0, **changes})], NOW_S) == []


def test_a_record_comes_back_as_it_was() -> None:
    for member in (MINE, other(None, copied_from="mine", copied_unix_s=NOW_S, digest="0f")):
        assert read_member(member.name, member.to_json().encode()) == member


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "another"),
        ("unix_s", -1),
        ("unix_s", 10**400),
        ("fresh_s", 1e300),
        ("fitness", float("nan")),
        ("fitness", True),
        ("measure", "height"),
        ("frames", 2**80),
        ("frames", 1.5),
        ("fingerprint", "g" * 16),
        ("generation", 2**33),
        ("values", {"learning_rate": "1"}),
        ("values", {"learning_rate": -(10**400)}),
        ("values", {"\x1b[2J": 1.0}),
        ("values", [1]),
        ("digest", "x"),
        ("copied_from", "a b"),
        ("more", 1),
    ],
)
def test_a_record_of_another_form_is_refused(key: str, value: Any) -> None:
    text = json.dumps({**json.loads(MINE.to_json()), key: value}).encode()
    with pytest.raises(MessageRefused, match="no record of a member"):
        read_member("mine", text)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"[" * 4000, b'{"name": "mine"}', b" " * 5000])
def test_what_is_no_record_is_refused(text: bytes) -> None:
    with pytest.raises(MessageRefused, match="no record of a member"):
        read_member("mine", text)


def test_a_member_counts_as_alive_for_three_intervals() -> None:
    assert fresh_s(100.0) == 300.0
    assert fresh_s(0.1) == 60.0
