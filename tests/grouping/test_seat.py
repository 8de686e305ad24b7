"""The seat of a learner in its group, from torchrun's variables."""

import pytest

from impala_redis.common.errors import ConfigError
from impala_redis.common.grouping.seat import Seat, seat_in

SECOND_OF_TWO = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "host0",
    "MASTER_PORT": "29400",
    "TORCHELASTIC_RESTART_COUNT": "3",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}


def test_a_learner_that_nobody_has_put_into_a_group_has_no_seat() -> None:
    assert seat_in({}) is None
    assert seat_in({"WORLD_SIZE": "", "RANK": "x"}) is None


def test_torchrun_gives_a_seat() -> None:
    assert seat_in(SECOND_OF_TWO) == Seat(1, 2, 1, 3, "host0", 29400, serves_store=False)


def test_rank_0_serves_the_store_where_no_torchrun_does() -> None:
    for told in ({"TORCHELASTIC_USE_AGENT_STORE": "False"}, {"TORCHELASTIC_USE_AGENT_STORE": ""}):
        seat = seat_in(SECOND_OF_TWO | told)
        assert seat is not None and seat.serves_store


def test_a_group_of_one_needs_no_other_variable() -> None:
    # as clusters set it for every job, however few processes it has
    seat = seat_in({"WORLD_SIZE": "1"})
    assert seat is not None
    assert (seat.rank, seat.ranks, seat.local_rank, seat.restarts) == (0, 1, 0, 0)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("WORLD_SIZE", "two", "WORLD_SIZE is 'two', and not a number from 1 to 1024"),
        ("WORLD_SIZE", "0", "WORLD_SIZE is '0'"),
        ("RANK", "2", "RANK is '2', and not a number from 0 to 1"),
        ("RANK", "-1", "RANK is '-1'"),
        ("RANK", "", "RANK is missing"),
        ("RANK", "१", "RANK is '१'"),
        ("LOCAL_RANK", "1.0", "LOCAL_RANK is '1.0'"),
        ("LOCAL_RANK", "", "LOCAL_RANK is missing"),
        ("MASTER_ADDR", "", "MASTER_ADDR is missing"),
        ("MASTER_PORT", "0", "MASTER_PORT is '0', and not a number from 1 to 65535"),
        ("MASTER_PORT", "9" * 5000, "MASTER_PORT is '99"),
        ("TORCHELASTIC_RESTART_COUNT", "\x1b[2J", "TORCHELASTIC_RESTART_COUNT is '?[2J'"),
    ],
)
def test_what_torchrun_does_not_give_is_refused_by_its_name(
    name: str, value: str, says: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        seat_in(SECOND_OF_TWO | {name: value})
    assert says in str(refused.value)
    assert str(refused.value).endswith("or unset WORLD_SIZE for one learner alone")
