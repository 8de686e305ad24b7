"""Replies that anyone may have written."""

from typing import Any

import pytest

from impala_redis.common.server.reading import NotRedis
from impala_redis.common.transport.replies import of_kinds, whole_number


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
