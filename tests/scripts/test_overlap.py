"""scripts/overlap.py finds an actor that pauses while the learner updates."""

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support import ROOT


@pytest.fixture
def overlap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The script as a module, which no other test finds by that name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.delitem(sys.modules, "overlap", raising=False)
    yield importlib.import_module("overlap")
    monkeypatch.delitem(sys.modules, "overlap")


def spans(first: float, last: float, every_s: float, length_s: float) -> NDArray[np.float64]:
    """Something of that length, again and again."""
    begins = np.arange(first, last, every_s)
    return np.stack([begins, begins + length_s], axis=1)


STEADY = spans(0.0, 10.0, 0.001, 0.0005)
# When, and seconds awake until then.
AWAKE = np.array([[0.5, 0.4], [5.0, 4.7], [9.0, 8.73]])
ASLEEP = np.array([[0.5, 0.4], [9.0, 4.0]])
# Ten updates of 0.3 s.
UPDATES = spans(0.05, 10.0, 1.0, 0.3)


def test_actors_that_never_pause_are_not_accused(overlap: Any) -> None:
    timeline = overlap.together(UPDATES, [STEADY] * 4, [AWAKE] * 4)
    assert len(timeline.updates) == 10
    assert overlap.pauses(timeline) == []
    assert timeline.asleep_shares == pytest.approx([0.02] * 4)


def test_only_the_time_in_which_all_were_at_work_counts(overlap: Any) -> None:
    # given updates from 0.05 to 9.35, an actor from 2.25 on, and one until 6.05
    early, late = spans(0.0, 6.0, 0.1, 0.05), spans(2.25, 20.0, 0.1, 0.05)
    asleep_until_2 = np.array([[0.5, 0.0], [3.0, 1.0], [5.0, 2.5], [9.0, 2.5]])

    # when
    timeline = overlap.together(UPDATES, [early, late], [asleep_until_2] * 2)

    # then an update or step that is not wholly in it is left out, and so are notes of other times
    assert timeline.updates[:, 0] == pytest.approx([3.05, 4.05, 5.05])
    for steps in timeline.steps:
        assert 2.25 <= steps[0, 0] < 2.36
        assert 5.85 < steps[-1, 1] <= 6.0
    assert timeline.asleep_shares == pytest.approx([0.25, 0.25])


def test_an_actor_that_waits_for_updates_is_named(
    overlap: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    # given an actor that plays only between updates
    waits = STEADY[~overlap.during(STEADY[:, 0], UPDATES)]

    # then it is found, and the figures show the gap
    timeline = overlap.together(UPDATES, [STEADY, waits], [AWAKE, ASLEEP])
    assert overlap.pauses(timeline) == [
        "actor 1 made no step in 10 long updates",
        "actor 1 slept 58 % of its time",
    ]
    assert overlap.intervals(waits, UPDATES, inside=True) is None
    gap = overlap.intervals(waits, UPDATES, inside=False)
    assert gap is not None
    assert gap.longest_s == pytest.approx(0.301, abs=0.002)
    overlap.tell("waiting", timeline)
    assert "actor 1" in capsys.readouterr().out


def test_a_short_update_without_a_step_proves_nothing(overlap: Any) -> None:
    # given updates that fit between two steps
    updates = spans(0.0005, 10.0, 0.5, 0.0004)
    assert overlap.pauses(overlap.Timeline(updates, [STEADY], [0.0])) == []


def test_moments_are_within_an_update_from_its_begin_to_its_end(overlap: Any) -> None:
    updates = np.array([[1.0, 2.0], [3.0, 4.0]])
    moments = np.array([0.5, 1.0, 1.9, 2.0, 3.5, 4.5])
    assert overlap.during(moments, updates).tolist() == [False, True, True, False, True, False]
    steps = np.stack([moments, moments + 0.1], axis=1)
    assert overlap.steps_within(steps, updates).tolist() == [2, 1]
