"""Weights that are held back for the experiment on policy lag."""

import numpy as np
import pytest

from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.feeding.delay import Delay, most_behind


def weights(version: int) -> VersionedWeights:
    return VersionedWeights(version, {"w": np.full(1, version, np.float32)})


@pytest.mark.parametrize("updates", [1, 3, 10])
def test_weights_come_out_when_they_are_that_many_updates_old(updates: int) -> None:
    delay = Delay(updates)
    came = {}
    for version in range(5, 40):
        delay.hold(weights(version))
        if due := delay.due():
            came[version] = due.version
            assert due.weights["w"][0] == due.version
    assert came == {version: version - updates for version in range(5 + updates, 40)}
    assert delay.newest_version == 39


def test_who_asks_seldom_gets_the_newest_that_is_old_enough() -> None:
    # given
    delay = Delay(3)
    for version in range(1, 1001):
        delay.hold(weights(version))

    # when
    first, second = delay.due(), delay.due()

    # then, also when asked again, and no more is held than is needed
    assert first is not None and first.version == 997
    assert second is first
    assert len(delay._held) == 4


def test_nothing_is_due_before_there_is_anything() -> None:
    delay = Delay(2)
    assert delay.due() is None
    assert delay.newest_version == -1
    delay.hold(weights(7))
    delay.hold(weights(8))
    assert delay.due() is None


@pytest.mark.parametrize(
    ("bound", "forced", "behind"),
    [(None, 0, None), (None, 9, None), (0, 0, 0), (1, 0, 0), (20, 0, 10), (6, 5, 0), (25, 5, 10)],
)
def test_half_of_what_a_bound_leaves_is_for_the_published_weights(
    bound: int | None, forced: int, behind: int | None
) -> None:
    assert most_behind(bound, forced) == behind
