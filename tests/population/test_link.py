"""What members of a population tell each other, by a real server; and what is refused."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import redis

from chaos.hardened import HardenedServer
from impala_redis.common.errors import (
    CheckpointError,
    MessageRefused,
    RedisDenied,
    RedisUnreachable,
)
from impala_redis.common.population.link import MOST_COPIES, PopulationLink
from impala_redis.common.population.member import Member
from impala_redis.common.records.checkpoint import packed
from impala_redis.common.server.address import with_password
from support import usable_servers

TENSORS = {
    "model.policy.bias": np.arange(3, dtype=np.float32),
    "optimizer.square.policy.bias": np.ones(3, np.float32),
    "rng.torch": np.arange(9, dtype=np.uint8),
}
STATE = packed(dict(TENSORS), {"optimizer_steps": 5})
MOST_BYTES = 10_000


def member(name: str, state: bytes = STATE, unix_s: float = 1e9) -> Member:
    return Member(
        *(name, unix_s, 60.0, 100.0, "return", 5_000, 10, "abc123"),
        values={"learning_rate": 1e-3},
        digest=hashlib.sha256(state).hexdigest(),
    )


@pytest.fixture
def link(redis_url: str, run_name: str) -> Iterator[PopulationLink]:
    found = PopulationLink(redis_url, run_name, "impala-learner --population")
    yield found
    found.close()


def test_a_member_and_its_state_come_back_as_they_were_told(
    link: PopulationLink, raw: redis.Redis
) -> None:
    # when
    link.tell(member("a"), STATE)
    link.tell(member("b"))

    # then both are there, and the state of the first one lasts as long as it counts as alive
    assert link.census().members == [member("a"), member("b")]
    found = link.state_of("a", MOST_BYTES)
    assert found is not None
    told, state = found
    assert told == member("a")
    np.testing.assert_array_equal(state.tensors["model.policy.bias"], [0, 1, 2])
    assert state.facts == {"optimizer_steps": 5}
    assert 55_000 < raw.pttl(link.keys.state("a")) <= 60_000
    assert link.state_of("b", MOST_BYTES) is None


def test_a_member_that_has_copied_offers_nothing_and_stands_in_the_bounded_lineage(
    link: PopulationLink, raw: redis.Redis
) -> None:
    # given
    link.tell(member("a"), STATE)
    raw.rpush(link.keys.lineage, *[b"old"] * MOST_COPIES)

    # when
    link.tell_copy(replace(member("a"), fitness=None), {"member": "a", "copied_from": "b"})

    # then
    assert link.state_of("a", MOST_BYTES) is None
    lineage = link.lineage()
    assert json.loads(lineage[0]) == {"member": "a", "copied_from": "b"}
    assert len(lineage) == MOST_COPIES


def test_who_was_silent_for_a_day_is_forgotten(link: PopulationLink) -> None:
    # given
    now_s = link.census().now_unix_s
    link.tell(member("new", unix_s=now_s - 80_000))
    link.tell(member("old", unix_s=now_s - 90_000))

    # when
    link.forget_the_silent(link.census())

    # then
    assert [one.name for one in link.census().members] == ["new"]


def test_records_that_are_none_are_left_out_and_told(
    link: PopulationLink, raw: redis.Redis
) -> None:
    link.tell(member("a"))
    raw.hset(link.keys.members, mapping={"b": b"\xff", "c": member("a").to_json()})
    census = link.census()
    assert [one.name for one in census.members] == ["a"]
    assert census.refused.keys() == {"b", "c"}


def _with(**changes: np.ndarray) -> bytes:
    named = {name.replace("__", "."): array for name, array in changes.items()}
    return packed({**TENSORS, **named}, {"optimizer_steps": 5})


POISON: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut": (lambda: STATE[:-5], "SafetensorError|no state|safetensor"),
    "not a number": (
        lambda: _with(model__policy__bias=np.array([np.nan, 0, 0], np.float32)),
        "too large, or none",
    ),
    "huge": (
        lambda: _with(model__policy__bias=np.array([1e30, 0, 0], np.float32)),
        "too large, or none",
    ),
    "a square below 0": (
        lambda: _with(optimizer__square__policy__bias=-np.ones(3, np.float32)),
        "negative",
    ),
    "a pickle": (lambda: b"\x80\x04N.", "no state"),
    "nested": (lambda: (8000).to_bytes(8, "little") + b"[" * 8000, "no state"),
    "facts that are a list": (lambda: packed(dict(TENSORS), [1]), "no state"),  # type: ignore[arg-type]
    "too long": (lambda: STATE + bytes(MOST_BYTES), "more than"),
}


def test_figures_of_large_observations_are_no_poison(link: PopulationLink) -> None:
    state = _with(
        model__normalizer__mean=np.array([1e7], np.float32),
        moments__observations__squares=np.array([1e20]),
    )
    link.tell(member("a", state), state)
    assert link.state_of("a", MOST_BYTES) is not None


@pytest.mark.fault(67)
@pytest.mark.parametrize("kind", POISON)
def test_a_poisoned_state_is_refused(link: PopulationLink, kind: str) -> None:
    make, why = POISON[kind]
    link.tell(member("a", make()), make())
    with pytest.raises(CheckpointError, match=why):
        link.state_of("a", MOST_BYTES)


@pytest.mark.fault(67)
def test_a_state_that_was_changed_on_its_way_is_refused(
    link: PopulationLink, raw: redis.Redis
) -> None:
    link.tell(member("a"), STATE)
    raw.hset(link.keys.state("a"), "payload", STATE[:-1] + b"x")
    with pytest.raises(CheckpointError, match="SHA-256"):
        link.state_of("a", MOST_BYTES)
    raw.hset(link.keys.state("a"), "record", b"x")
    with pytest.raises(MessageRefused):
        link.state_of("a", MOST_BYTES)


def test_a_server_that_is_away_is_told(tmp_path: Path) -> None:
    link = PopulationLink(f"unix://{tmp_path}/none", "p", "impala-learner --population")
    with pytest.raises(RedisUnreachable):
        link.census()


def test_the_users_of_the_file_may_do_what_a_member_does_and_nothing_else(tmp_path: Path) -> None:
    # given the file of docker/, in which the population has the name in its braces
    with HardenedServer(tmp_path, usable_servers()[0], "mine") as server:
        addresses = {
            user: with_password(server.url(user), server.password(user))
            for user in ("learner", "monitor", "actor")
        }
        learner = PopulationLink(addresses["learner"], "POPULATION", "impala-learner --population")
        reader = PopulationLink(addresses["monitor"], "POPULATION", "impala-status --population")

        # when both ask, and do all that they do
        learner.require()
        reader.require()
        learner.tell(member("a"), STATE)
        learner.tell_copy(member("b"), {"member": "b"})
        learner.forget_the_silent(learner.census())
        assert learner.state_of("a", MOST_BYTES) is not None
        assert reader.census().members == []  # by the server's clock they were silent for years
        assert len(reader.lineage()) == 1

        # then nothing was refused, and neither another population nor another user may do so
        assert server.refusals() == []
        other = PopulationLink(addresses["learner"], "other", "impala-learner --population")
        with pytest.raises(RedisDenied, match=r"the population's keys.*impala-population:{other}:"):
            other.require()
        with pytest.raises(RedisDenied):
            reader.tell(member("a"))
        with pytest.raises(RedisDenied):
            PopulationLink(
                addresses["actor"], "POPULATION", "impala-learner --population"
            ).require()
