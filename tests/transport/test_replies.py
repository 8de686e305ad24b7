"""Replies that anyone may have written."""

from typing import Any

import pytest

from impala_redis.common.server.reading import NotRedis
from impala_redis.common.transport.replies import READINGS, of_kinds, reading_of, whole_number


@pytest.mark.parametrize(
    ("reply", "read"),
    [(b"12", 12), (b"-3", -3), (None, 7), (b"twelve", 7), (b"", 7), (b"9" * 5000, 7)],
)
def test_a_reply_that_is_no_number_of_ours_is_the_default(reply: bytes | None, read: int) -> None:
    assert whole_number(reply, 7) == read


@pytest.mark.parametrize("reply", [None, 1, b"x", [], [1], [1, 2], [b"1", 2, b"x"], [1, 2, None]])
def test_a_function_that_replies_anything_else_is_none_of_ours(reply: Any) -> None:
    with pytest.raises(NotRedis):
        of_kinds(reply, int, int, bytes)
    assert of_kinds([1, 2, b"x"], int, int, bytes) == [1, 2, b"x"]


GOOD_LEARNER = [[b"holder", 5], [b"1"], [b"learner:x", b"1"], [b"7", b"5"]]


@pytest.mark.parametrize(
    ("function", "reply"),
    [
        ("read_books", [[b"1", None], 0, 0]),
        ("read_books", [None, None, None]),
        ("read_learner", GOOD_LEARNER),
        ("read_learner", [None, None, None, [b"7", b"5"]]),
        ("read_fields", [[b"1", None], None]),
        ("read_names", [b"0", 0]),
        ("read_names", [b"17", 3, b"a", b"b"]),
    ],
)
def test_a_reading_is_taken_as_the_functions_give_it(function: str, reply: Any) -> None:
    assert reading_of(function, reply, 2, 1 + (function in ("read_books", "read_fields"))) == reply


@pytest.mark.parametrize(
    ("function", "reply"),
    [
        *((function, reply) for function in READINGS for reply in (None, 1, b"x", [], [1], [[]])),
        ("read_books", [[b"1"], 0, 0]),
        ("read_books", [[b"1", 2], 0, 0]),
        ("read_books", [[b"1", b"2"], [], 0]),
        ("read_learner", [[b"holder"], *GOOD_LEARNER[1:]]),
        ("read_learner", [*GOOD_LEARNER[:2], [b"learner:x"], GOOD_LEARNER[3]]),
        ("read_learner", [*GOOD_LEARNER[:3], [b"7", b"x"]]),
        ("read_learner", [*GOOD_LEARNER[:3], None]),
        ("read_fields", [[b"1", b"2"]]),
        ("read_fields", [[b"1", 2], None]),
        ("read_names", [b"x", 0]),
        ("read_names", [b"0", b"0"]),
        ("read_names", [b"0", 0, None]),
    ],
)
def test_a_reading_of_any_other_form_is_refused(function: str, reply: Any) -> None:
    with pytest.raises(NotRedis):
        reading_of(function, reply, 2, 2)
