"""Replies that anyone may have written."""

import pytest

from impala_redis.common.transport.replies import whole_number


@pytest.mark.parametrize(
    ("reply", "read"),
    [(b"12", 12), (b"-3", -3), (None, 7), (b"twelve", 7), (b"", 7), (b"9" * 5000, 7)],
)
def test_a_reply_that_is_no_number_of_ours_is_the_default(reply: bytes | None, read: int) -> None:
    assert whole_number(reply, 7) == read
